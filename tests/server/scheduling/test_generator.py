"""Planning: as a pure function, and by several servers on one database."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from support.world import make_job, make_schedule, query

from hetuflow.nursery import Wakeup
from hetuflow.protocol.model import (
  Job,
  NamespaceForUpdate,
  Schedule,
  ScheduleForUpdate,
  new_id,
)
from hetuflow.protocol.states import ScheduleKind
from hetuflow.schedule import Timing, fire_times
from hetuflow.server.scheduling import generator
from hetuflow.server.scheduling.generator import TIMES_PER_SCHEDULE, Generator
from hetuflow.storage.connect import Database, StorageSettings, open_storage
from hetuflow.storage.jobs import set_job_enabled
from hetuflow.storage.namespaces import update_namespace
from hetuflow.storage.planning import (
  Plan,
  list_due_schedules,
  plan_schedule,
  plan_tasks,
)
from hetuflow.storage.schedules import update_schedule
from hetuflow.storage.timing import timing_of

START = datetime(2026, 3, 28, 12, tzinfo=UTC)
GRACE = timedelta(seconds=60)
HORIZON = timedelta(seconds=60)

# ── the pure plan ───────────────────────────────────────────────────────────────────

timings = st.one_of(
  st.builds(
    Timing,
    kind=st.just("cron"),
    cron_expression=st.sampled_from(
      ["* * * * *", "*/7 * * * *", "30 2 * * *", "* * * * * *", "0 0 1 * *"]
    ),
    timezone=st.sampled_from(["UTC", "Europe/Berlin"]),
    jitter_seconds=st.sampled_from([0.0, 5.0]),
    end_at=st.sampled_from([None, START + timedelta(hours=5)]),
  ),
  st.builds(
    Timing,
    kind=st.just("time"),
    interval_seconds=st.sampled_from([1.0, 1.5, 61.0, 86_400.0]),
    created_at=st.just(START),
    start_at=st.sampled_from([None, START + timedelta(minutes=3)]),
  ),
  st.builds(
    Timing, kind=st.just("time"), run_at=st.just(START + timedelta(minutes=10))
  ),
)
downtimes = st.lists(
  st.one_of(
    st.floats(0.1, 30.0), st.floats(30.0, 3_600.0), st.floats(3_600.0, 3 * 86_400.0)
  ),
  min_size=1,
  max_size=6,
)


def make_row(**more: Any) -> dict[str, Any]:
  """Make what is read of a schedule."""
  fresh = {
    "id": new_id(),
    "revision": 1,
    "cursor_at": START,
    "read_at": START,
    "until_at": START + HORIZON,
    "max_runs": None,
    "run_count": 0,
    "taken": [],
  }
  return fresh | more


def carry_out(row: dict[str, Any], plan: Plan) -> None:
  """Move the cursor of a row as the statement does."""
  assert plan.expected == row["cursor_at"]
  assert plan.cursor_at >= row["cursor_at"]
  row["cursor_at"] = plan.cursor_at
  row["run_count"] += len(plan.tasks)


@settings(max_examples=50, deadline=None)
@given(timing=timings, waits=downtimes, max_runs=st.sampled_from([None, 1, 5, 1_500]))
def test_every_planned_time_is_covered_exactly_once(
  timing: Timing, waits: list[float], max_runs: int | None
) -> None:
  row = make_row(max_runs=max_runs)
  now, ended = START, False
  covered: list[datetime] = []
  ran: list[datetime] = []
  for wait in waits:
    now += timedelta(seconds=wait)
    row |= {"read_at": now, "until_at": now + HORIZON}
    while not ended:
      plan = plan_schedule(row, timing, limit=TIMES_PER_SCHEDULE)
      before = row["cursor_at"]
      carry_out(row, plan)
      for gap in plan.gaps:
        times = fire_times(timing, after=before, until=gap.to_at, limit=10_000)
        assert times[0] == gap.from_at
        assert len(times) == gap.count
        assert gap.to_at < now - GRACE
        covered += times
      planned = [task.planned_at for task in plan.tasks]
      assert all(
        timedelta(0) <= task.scheduled_at - task.planned_at < timedelta(seconds=5.001)
        for task in plan.tasks
      )
      covered += planned
      ran += planned
      # At most one of those that are later than the grace runs: the last one.
      assert sum(at < now - GRACE for at in planned) <= 1
      ended = plan.next_plan_at is None
      if plan.next_plan_at is not None:
        assert plan.next_plan_at > plan.cursor_at
      if ended or plan.cursor_at >= row["until_at"]:
        break
  assert len(covered) == len(set(covered))
  assert covered == sorted(covered)
  expected = fire_times(timing, after=START, until=row["cursor_at"], limit=10_000_000)
  if max_runs is None:
    assert covered == expected
  else:
    assert len(ran) <= max_runs
    assert covered == expected[: len(covered)]
    assert len(covered) == len(expected) or len(ran) == max_runs


def test_more_runs_than_one_pass_plans_are_all_planned() -> None:
  timing = Timing(kind="cron", cron_expression="* * * * * *")
  row = make_row(max_runs=2_500, until_at=START + timedelta(hours=1))
  runs = 0
  for _ in range(3):
    plan = plan_schedule(row, timing, limit=TIMES_PER_SCHEDULE)
    carry_out(row, plan)
    runs += len(plan.tasks)
  assert runs == 2_500
  assert plan.next_plan_at is None


def test_a_horizon_behind_the_cursor_plans_nothing_and_moves_nothing() -> None:
  timing = Timing(kind="cron", cron_expression="* * * * *")
  row = make_row(cursor_at=START + timedelta(hours=1))
  plan = plan_schedule(row, timing, limit=TIMES_PER_SCHEDULE)
  assert (plan.tasks, plan.gaps, plan.cursor_at) == ([], [], row["cursor_at"])
  assert plan.next_plan_at == START + timedelta(hours=1, minutes=1)


def test_a_late_time_within_the_grace_runs_beside_the_next() -> None:
  timing = Timing(kind="cron", cron_expression="* * * * *")
  row = make_row(read_at=START + timedelta(seconds=110))
  plan = plan_schedule(
    row | {"until_at": START + timedelta(seconds=170)},
    timing,
    limit=TIMES_PER_SCHEDULE,
  )
  assert [task.planned_at - START for task in plan.tasks] == [
    timedelta(minutes=1),
    timedelta(minutes=2),
  ]
  assert plan.gaps == []


# ── on a database ───────────────────────────────────────────────────────────────────

REWIND = query("""
  UPDATE sched_schedule
  SET cursor_at = now() - make_interval(secs => $seconds),
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


def make_generator(database: Database, horizon: float = 60.0) -> Generator:
  """Make a generator that is called pass by pass."""
  return Generator(database, horizon=horizon, interval=1.0, wakeup=Wakeup())


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
  database: Database, dsn: str, job: Job
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
    server = make_generator(one)
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


async def test_four_hundred_days_of_downtime_cost_one_gap(
  database: Database, job: Job
) -> None:
  schedule = await make_schedule(database, job, cron_expression="*/10 * * * *")
  await database.fetch(REWIND, id=schedule.id, seconds=400 * 86_400.0)
  start = await database.fetchval(CURSOR, id=schedule.id)
  server = make_generator(database)
  with trio.fail_after(60):
    while await server.plan_once():
      pass
  [gap] = await database.fetch(GAPS, id=schedule.id)
  assert 57_500 < gap["count"] < 57_602
  await check_coverage(database, schedule, start)


async def test_a_later_downtime_is_a_gap_of_its_own(
  database: Database, job: Job
) -> None:
  schedule = await make_schedule(database, job, cron_expression="* * * * *")
  await database.fetch(REWIND, id=schedule.id, seconds=7 * 86_400.0)
  server = make_generator(database)
  row, *_ = await list_due_schedules(database, horizon=60.0, limit=1)
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
  [row] = await list_due_schedules(database, horizon=60.0, limit=10)
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
  [row] = await list_due_schedules(database, horizon=60.0, limit=10)
  plan = plan_schedule(row, timing_of(schedule), limit=99)
  assert await plan_tasks(database, [plan]) == {"default": len(plan.tasks)}
  assert await plan_tasks(database, [plan]) == {}
  assert len(await planned(database, schedule)) == len(plan.tasks)


async def test_a_disabled_job_plans_nothing(database: Database, job: Job) -> None:
  schedule = await make_schedule(database, job, cron_expression="* * * * * *")
  await set_job_enabled(database, job.id, False)
  # What was due before that may have been planned by it.
  before = await planned(database, schedule)
  now = await database.fetchval(CLOCK)
  assert all(at <= now for at in before)
  assert not await make_generator(database).plan_once()
  assert await planned(database, schedule) == before


async def test_an_occurrence_that_an_edit_comes_back_to_is_not_planned_again(
  database: Database, job: Job
) -> None:
  now = await database.fetchval(CLOCK)
  schedule = await make_schedule(
    database, job, kind=ScheduleKind.TIME, cron_expression=None, run_at=now
  )
  server = make_generator(database)
  await server.plan_once()
  for run_at in (now + timedelta(days=9), now):
    await update_schedule(database, schedule.id, ScheduleForUpdate(run_at=run_at))
    await server.plan_once()
  assert await planned(database, schedule) == [now]


async def test_a_lead_longer_than_the_horizon_is_honoured(
  database: Database, job: Job
) -> None:
  schedule = await make_schedule(database, job, cron_expression="* * * * *")
  server = make_generator(database, horizon=10.0)
  await server.plan_once()
  assert len(await planned(database, schedule)) <= 1
  await update_namespace(database, job.namespace_id, NamespaceForUpdate(lead=900.0))
  await server.plan_once()
  assert len(await planned(database, schedule)) in (15, 16)


async def test_much_work_is_cut_into_statements_of_bounded_size(
  database: Database, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
  sizes = []

  async def watch(executor: Database, plans: list[Plan]) -> dict[str, int]:
    sizes.append(sum(len(plan.tasks) for plan in plans))
    return await plan_tasks(executor, plans)

  monkeypatch.setattr(generator, "plan_tasks", watch)
  monkeypatch.setattr(generator, "TASKS_PER_STATEMENT", 100)
  for number in range(5):
    await make_schedule(database, job, name=f"s{number}", cron_expression="* * * * * *")
  await make_generator(database).plan_once()
  assert len(sizes) == 5
  assert all(50 < size <= 100 for size in sizes)


async def test_a_definition_that_no_longer_parses_stops_only_itself(
  database: Database, job: Job
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
  await make_generator(database).plan_once()
  assert await planned(database, broken) == []
  assert await planned(database, sound)
  [row] = await database.fetch(
    query("SELECT next_plan_at FROM sched_schedule WHERE id = $id"), id=broken.id
  )
  assert row["next_plan_at"] is None


async def test_a_change_of_schedules_wakes_the_loop(
  database: Database, job: Job
) -> None:
  wakeup = Wakeup()
  server = Generator(database, horizon=60.0, interval=600.0, wakeup=wakeup)
  with trio.fail_after(20):
    async with trio.open_nursery() as nursery:
      await nursery.start(server.run)
      schedule = await make_schedule(database, job, cron_expression="* * * * * *")
      wakeup.set()
      while not await planned(database, schedule):
        pass
      nursery.cancel_scope.cancel()
  assert server.planned >= 59
