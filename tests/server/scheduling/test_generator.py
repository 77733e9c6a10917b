"""Planning: as a pure function, and by several servers on one database."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from support.world import bind_all, make_job, make_schedule, query

from hetuflow.nursery import Wakeup
from hetuflow.protocol.model import (
  Job,
  Misfire,
  NamespaceForUpdate,
  Schedule,
  ScheduleForUpdate,
  ServerId,
  TaskConfig,
  new_id,
)
from hetuflow.protocol.states import MisfirePolicy, ScheduleKind
from hetuflow.schedule import count_fires, fire_times
from hetuflow.server.scheduling.bindings import Bindings
from hetuflow.server.scheduling.generator import Generator
from hetuflow.storage.connect import Database, StorageSettings, open_storage
from hetuflow.storage.jobs import set_job_enabled
from hetuflow.storage.namespaces import update_namespace
from hetuflow.storage.plan import plan_schedule
from hetuflow.storage.planning import list_due_schedules, plan_tasks
from hetuflow.storage.schedules import update_schedule
from hetuflow.storage.timing import timing_of

START = datetime(2026, 3, 28, 12, tzinfo=UTC)
GRACE = timedelta(seconds=60)
HORIZON = timedelta(seconds=60)

REWIND = query("""
  UPDATE sched_schedule
  SET cursor_at = now() - make_interval(secs => $seconds),
    planned_from = now() - make_interval(secs => $seconds),
    next_plan_at = now() - make_interval(secs => $seconds)
  WHERE id = $id
""")
TASKS = query("SELECT planned_at FROM sched_task WHERE schedule_id = $id ORDER BY 1")
GAPS = query("""
  SELECT from_at, to_at, count, outcome FROM sched_ledger_gap
  WHERE schedule_id = $id ORDER BY from_at
""")
CURSOR = query("SELECT cursor_at, run_count FROM sched_schedule WHERE id = $id")
CLOCK = query("SELECT now()")


def make_generator(
  database: Database, bindings: Bindings, horizon: float = 60.0
) -> Generator:
  """Make a generator that is called pass by pass."""
  return Generator(database, bindings, horizon=horizon, interval=1.0, wakeup=Wakeup())


@pytest.fixture
async def bindings(database: Database) -> Bindings:
  return await bind_all(database)


async def planned(database: Database, schedule: Schedule) -> list[datetime]:
  """Read the planned times of a schedule's tasks."""
  return [row["planned_at"] for row in await database.fetch(TASKS, id=schedule.id)]


@pytest.fixture
async def job(database: Database) -> Job:
  return await make_job(database)


async def check_coverage(database: Database, schedule: Schedule, after: Any) -> None:
  """Compare tasks and gaps of a schedule with its planned times."""
  cursor = await database.fetchval(CURSOR, id=schedule.id)
  times = set(
    fire_times(timing_of(schedule), after=after, until=cursor, limit=1_000_000)
  )
  tasks = await planned(database, schedule)
  merged: list[datetime] = []
  for gap in await database.fetch(GAPS, id=schedule.id):
    inside = [at for at in times if gap["from_at"] <= at <= gap["to_at"]]
    assert len(inside) == gap["count"]
    merged += inside
  assert sorted([*tasks, *merged]) == sorted(times)


async def test_two_servers_that_plan_at_once_double_nothing(
  database: Database, dsn: str, job: Job, bindings: Bindings
) -> None:
  schedules = [
    await make_schedule(database, job, name=f"s{number}", cron_expression="* * * * * *")
    for number in range(20)
  ]
  starts = {}
  for schedule in schedules:
    await database.fetch(REWIND, id=schedule.id, seconds=3_700.0)
    starts[schedule.id] = await database.fetchval(CURSOR, id=schedule.id)

  async def plan_all(one: Database) -> None:
    server = make_generator(one, bindings)
    while await server.plan_once():
      pass

  async def plan_elsewhere() -> None:
    # In a task of its own, for each storage has its own asyncio loop.
    async with open_storage(StorageSettings(dsn=dsn, statement_timeout=10)) as other:
      await plan_all(other)

  with trio.fail_after(60):
    async with trio.open_nursery() as nursery:
      nursery.start_soon(plan_all, database)
      nursery.start_soon(plan_all, database)
      nursery.start_soon(plan_elsewhere)
  for schedule in schedules:
    await check_coverage(database, schedule, starts[schedule.id])


async def test_a_namespace_that_moves_to_and_fro_is_planned_once(
  database: Database, job: Job
) -> None:
  schedules = [
    await make_schedule(database, job, name=f"s{number}", cron_expression="* * * * * *")
    for number in range(10)
  ]
  starts = {}
  for schedule in schedules:
    await database.fetch(REWIND, id=schedule.id, seconds=3_700.0)
    starts[schedule.id] = await database.fetchval(CURSOR, id=schedule.id)
  owners = [new_id(), new_id()]
  known = [await bind_all(database, owner) for owner in owners]
  done = trio.Event()

  async def plan(bindings: Bindings) -> None:
    server = make_generator(database, bindings)
    while not done.is_set():
      await server.plan_once()

  with trio.fail_after(60):
    async with trio.open_nursery() as nursery:
      for bindings in known:
        nursery.start_soon(plan, bindings)
      for number in range(20):
        # The one that loses it goes on in good faith for a while.
        told = await bind_all(database, owners[number % 2])
        known[number % 2].replace(told.epochs)
        await trio.lowlevel.checkpoint()
      while await list_due_schedules(
        database, horizon=50.0, limit=1, namespaces=[job.namespace_id]
      ):
        pass
      done.set()
  for schedule in schedules:
    await check_coverage(database, schedule, starts[schedule.id])


async def test_without_bindings_nothing_is_planned(
  database: Database, job: Job
) -> None:
  schedule = await make_schedule(database, job, cron_expression="* * * * * *")
  bindings = Bindings(ServerId(new_id()))
  server = make_generator(database, bindings)
  assert not await server.plan_once()
  # Told, but not so.
  bindings.replace({job.namespace_id: 1})
  assert not await server.plan_once()
  assert await planned(database, schedule) == []


@pytest.mark.parametrize("policy", MisfirePolicy)
async def test_four_hundred_days_of_seconds_are_one_pass_and_one_gap(
  database: Database, policy: MisfirePolicy
) -> None:
  misfire = Misfire(policy=policy, limit=3_000)
  config = TaskConfig(cmd="/bin/true", misfire=misfire)
  job = await make_job(database, config=config)
  schedule = await make_schedule(database, job, cron_expression="* * * * * *")
  await database.fetch(REWIND, id=schedule.id, seconds=400 * 86_400.0)
  start = await database.fetchval(CURSOR, id=schedule.id)
  server = make_generator(database, await bind_all(database))
  with trio.fail_after(10):
    assert not await server.plan_once()
  [gap] = await database.fetch(GAPS, id=schedule.id)
  cursor = await database.fetchval(CURSOR, id=schedule.id)
  tasks = await planned(database, schedule)
  assert gap["from_at"] - start < timedelta(seconds=1)
  assert gap["count"] + len(tasks) == count_fires(
    timing_of(schedule), after=start, until=cursor
  )
  ran = {"run_once": 1, "skip": 0, "run_all": 3_000}[policy]
  # The grace, and the horizon.
  assert len(tasks) - ran in (120, 121)


async def test_a_policy_that_cannot_be_read_stops_only_its_own_schedules(
  database: Database, job: Job
) -> None:
  broken = await make_schedule(database, job)
  await database.fetch(REWIND, id=broken.id, seconds=3_600.0)
  spoil = query('UPDATE sched_job SET misfire = \'{"policy": "x"}\' WHERE id = $id')
  await database.fetch(spoil, id=job.id)
  other = await make_job(database, "other")
  sound = await make_schedule(database, other, cron_expression="* * * * * *")
  await make_generator(database, await bind_all(database)).plan_once()
  assert await planned(database, broken) == []
  assert await planned(database, sound)


async def test_a_later_downtime_is_a_gap_of_its_own(
  database: Database, job: Job, bindings: Bindings
) -> None:
  schedule = await make_schedule(database, job, cron_expression="* * * * *")
  await database.fetch(REWIND, id=schedule.id, seconds=7 * 86_400.0)
  server = make_generator(database, bindings)
  row, *_ = await list_due_schedules(
    database, horizon=60.0, limit=1, namespaces=[job.namespace_id]
  )
  then = dict(row) | {"read_at": row["cursor_at"] + timedelta(hours=1)}
  then |= {"until_at": then["read_at"] + HORIZON}
  await plan_tasks(database, [plan_schedule(then, timing_of(schedule), limit=9_999)])
  while await server.plan_once():
    pass
  first, second = await database.fetch(GAPS, id=schedule.id)
  assert first["count"] == 58
  assert second["from_at"] > first["to_at"] + timedelta(minutes=1)
  await check_coverage(database, schedule, row["cursor_at"])


async def test_a_schedule_edited_after_it_was_read_is_left_alone(
  database: Database, job: Job
) -> None:
  schedule = await make_schedule(database, job, cron_expression="* * * * * *")
  [row] = await list_due_schedules(
    database, horizon=60.0, limit=10, namespaces=[job.namespace_id]
  )
  stale = plan_schedule(row, timing_of(schedule), limit=99)
  assert stale.tasks
  await update_schedule(
    database, schedule.id, ScheduleForUpdate(cron_expression="0 0 1 1 *")
  )
  # What was due before the edit may have been planned by it.
  before = await planned(database, schedule)
  assert await plan_tasks(database, [stale]) == {}
  assert await planned(database, schedule) == before
  now = await database.fetchval(CLOCK)
  assert all(at <= now for at in before)


async def test_a_plan_is_carried_out_once(database: Database, job: Job) -> None:
  schedule = await make_schedule(database, job, cron_expression="* * * * * *")
  [row] = await list_due_schedules(
    database, horizon=60.0, limit=10, namespaces=[job.namespace_id]
  )
  plan = plan_schedule(row, timing_of(schedule), limit=99)
  assert await plan_tasks(database, [plan]) == {"default": len(plan.tasks)}
  assert await plan_tasks(database, [plan]) == {}
  assert len(await planned(database, schedule)) == len(plan.tasks)


async def test_a_disabled_job_plans_nothing(
  database: Database, job: Job, bindings: Bindings
) -> None:
  schedule = await make_schedule(database, job, cron_expression="* * * * * *")
  await set_job_enabled(database, job.id, False)
  # What was due before that may have been planned by it.
  before = await planned(database, schedule)
  now = await database.fetchval(CLOCK)
  assert all(at <= now for at in before)
  assert not await make_generator(database, bindings).plan_once()
  assert await planned(database, schedule) == before


async def test_an_occurrence_that_an_edit_comes_back_to_is_not_planned_again(
  database: Database, job: Job, bindings: Bindings
) -> None:
  now = await database.fetchval(CLOCK)
  schedule = await make_schedule(
    database, job, kind=ScheduleKind.TIME, cron_expression=None, run_at=now
  )
  server = make_generator(database, bindings)
  await server.plan_once()
  for run_at in (now + timedelta(days=9), now):
    await update_schedule(database, schedule.id, ScheduleForUpdate(run_at=run_at))
    await server.plan_once()
  assert await planned(database, schedule) == [now]


async def test_a_lead_longer_than_the_horizon_is_honoured(
  database: Database, job: Job, bindings: Bindings
) -> None:
  schedule = await make_schedule(database, job, cron_expression="* * * * *")
  server = make_generator(database, bindings, horizon=10.0)
  await server.plan_once()
  assert len(await planned(database, schedule)) <= 1
  await update_namespace(database, job.namespace_id, NamespaceForUpdate(lead=900.0))
  await server.plan_once()
  assert len(await planned(database, schedule)) in (15, 16)


async def test_a_definition_that_no_longer_parses_stops_only_itself(
  database: Database, job: Job, bindings: Bindings
) -> None:
  broken = await make_schedule(database, job, name="broken")
  sound = await make_schedule(
    database, job, name="sound", cron_expression="* * * * * *"
  )
  await database.fetch(
    query(
      "UPDATE sched_schedule SET cron_expression = 'x', next_plan_at = now()"
      " WHERE id = $id"
    ),
    id=broken.id,
  )
  await make_generator(database, bindings).plan_once()
  assert await planned(database, broken) == []
  assert await planned(database, sound)
  [row] = await database.fetch(
    query("SELECT next_plan_at FROM sched_schedule WHERE id = $id"), id=broken.id
  )
  assert row["next_plan_at"] is None


async def test_a_change_of_schedules_wakes_the_loop(
  database: Database, job: Job
) -> None:
  wakeup, bindings = Wakeup(), await bind_all(database)
  server = Generator(database, bindings, horizon=60.0, interval=600.0, wakeup=wakeup)
  with trio.fail_after(20):
    async with trio.open_nursery() as nursery:
      await nursery.start(server.run)
      schedule = await make_schedule(database, job, cron_expression="* * * * * *")
      wakeup.set()
      while not await planned(database, schedule):
        pass
      nursery.cancel_scope.cancel()
  assert server.planned >= 59
