"""Planned times that have passed run after all, each at most once."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
import trio
from support.clock import SET_CLOCK, clocked_database
from support.postgres import Postgres
from support.world import (
  bind_all,
  make_job,
  make_schedule,
  query,
  read_cursor,
  start_attempt,
)

from hetuflow.errors import Conflict, NotFound, ProtocolError, ScheduleError
from hetuflow.nursery import Wakeup
from hetuflow.protocol.model import (
  BackfillForCreate,
  Misfire,
  Schedule,
  ScheduleForUpdate,
  TaskConfig,
  new_id,
)
from hetuflow.protocol.states import (
  Coverage,
  MisfirePolicy,
  OverlapPolicy,
  ScheduleKind,
)
from hetuflow.server.scheduling.generator import Generator
from hetuflow.storage.backfill import backfill_schedule
from hetuflow.storage.connect import Database, StorageSettings, open_storage
from hetuflow.storage.jobs import set_job_enabled
from hetuflow.storage.ledger import check_ledger, query_ledger
from hetuflow.storage.schedules import (
  get_schedule,
  set_schedule_enabled,
  update_schedule,
)

START = datetime(2026, 5, 1, 12, 0, 30, tzinfo=UTC)
SKIP = Misfire(policy=MisfirePolicy.SKIP)
TASKS = query("""
  SELECT id, planned_at, scheduled_at, due_at, rank_at, status, cause, lane, start_by,
    occurrence
  FROM sched_task WHERE schedule_id = $id ORDER BY planned_at
""")
GAPS = query("""
  SELECT from_at, to_at, count, outcome, reason FROM sched_ledger_gap
  WHERE schedule_id = $id ORDER BY from_at
""")


def minute(number: float) -> datetime:
  """Return some minute after noon."""
  return START.replace(second=0) + timedelta(minutes=number)


@attrs.define(kw_only=True)
class Scene:
  """A database with a clock of its own, and a server that plans when it is told."""

  database: Database
  now: datetime = START

  async def wait(self, seconds: float) -> None:
    """Let time pass without a server."""
    self.now += timedelta(seconds=seconds)
    await self.database.fetch(SET_CLOCK, at=self.now)

  async def plan(self) -> None:
    """Let a server plan all there is."""
    bindings = await bind_all(self.database)
    server = Generator(
      self.database, bindings, horizon=60.0, interval=1.0, wakeup=Wakeup()
    )
    while await server.plan_once():
      pass

  async def begin(self, misfire: Misfire = SKIP, **more: Any) -> Schedule:
    """Make a schedule that fires each minute, of a job that misses what is late."""
    config = TaskConfig(cmd="/bin/true", misfire=misfire)
    job = await make_job(self.database, config=config)
    return await make_schedule(self.database, job, **more)

  async def fill(self, schedule: Schedule, first: float, last: float) -> list[Any]:
    """Backfill from one minute to another."""
    span = BackfillForCreate(start_at=minute(first), end_at=minute(last))
    made = await backfill_schedule(self.database, schedule.id, span)
    assert made.tasks == len(made.ids)
    return made.ids

  async def gaps(self, schedule: Schedule) -> list[tuple[datetime, datetime, int]]:
    """Read the gaps."""
    rows = await self.database.fetch(GAPS, id=schedule.id)
    return [(row["from_at"], row["to_at"], row["count"]) for row in rows]

  async def tasks(self, schedule: Schedule, cause: str = "backfill") -> list[Any]:
    """Read the tasks of a cause."""
    rows = await self.database.fetch(TASKS, id=schedule.id)
    return [row for row in rows if row["cause"] == cause]


@pytest.fixture
async def scene(postgres: Postgres, template: str) -> AsyncIterator[Scene]:
  with clocked_database(postgres, template, START) as dsn:
    settings = StorageSettings(dsn=dsn, statement_timeout=10)
    async with open_storage(settings) as database:
      yield Scene(database=database)


async def test_times_in_a_gap_run_in_their_order_and_leave_the_gap(
  scene: Scene,
) -> None:
  schedule = await scene.begin()
  await scene.wait(3_600)
  await scene.plan()
  assert await scene.gaps(schedule) == [(minute(1), minute(59), 59)]
  ids = await scene.fill(schedule, 10, 19)
  tasks = await scene.tasks(schedule)
  assert [task["id"] for task in tasks] == ids
  assert [task["planned_at"] for task in tasks] == [
    minute(number) for number in range(10, 20)
  ]
  assert all(task["due_at"] <= scene.now for task in tasks)
  ranks = [task["rank_at"] for task in tasks]
  assert ranks == sorted(set(ranks))
  assert all(task["status"] == "pending" for task in tasks)
  assert await scene.gaps(schedule) == [
    (minute(1), minute(9), 9),
    (minute(20), minute(59), 40),
  ]
  assert (await check_ledger(scene.database, schedule.id)).complete


async def test_a_whole_gap_may_go_and_its_ends(scene: Scene) -> None:
  schedule = await scene.begin()
  await scene.wait(3_600)
  await scene.plan()
  await scene.fill(schedule, 1, 3)
  await scene.fill(schedule, 50, 59.5)
  assert await scene.gaps(schedule) == [(minute(4), minute(49), 46)]
  await scene.fill(schedule, -5, 55)
  assert await scene.gaps(schedule) == []
  assert (await check_ledger(scene.database, schedule.id)).complete


async def test_to_backfill_again_makes_nothing_even_of_what_has_ended(
  scene: Scene,
) -> None:
  schedule = await scene.begin()
  await scene.wait(600)
  await scene.plan()
  ids = await scene.fill(schedule, 2, 4)
  attempt = await start_attempt(scene.database, ids[0])
  await attempt.end()
  assert await scene.fill(schedule, 2, 4) == []
  assert len(await scene.fill(schedule, 1, 5)) == 2
  assert (await check_ledger(scene.database, schedule.id)).complete


async def test_two_at_once_make_each_time_once(scene: Scene) -> None:
  schedule = await scene.begin()
  await scene.wait(3_600)
  await scene.plan()
  made: list[Any] = []

  async def fill(first: int, last: int) -> None:
    made.extend(await scene.fill(schedule, first, last))

  with trio.fail_after(20):
    async with trio.open_nursery() as nursery:
      for span in ((1, 40), (20, 59), (5, 30)):
        nursery.start_soon(fill, *span)
  assert len(made) == len(set(made)) == 59
  assert (await check_ledger(scene.database, schedule.id)).complete


async def test_times_before_the_schedule_and_while_it_was_off_are_made_too(
  scene: Scene,
) -> None:
  schedule = await scene.begin()
  await set_schedule_enabled(scene.database, schedule.id, False)
  await scene.wait(600)
  assert len(await scene.fill(schedule, -2, 3)) == 6
  await set_schedule_enabled(scene.database, schedule.id, True)
  await scene.plan()
  assert len(await scene.tasks(schedule)) == 6
  assert (await check_ledger(scene.database, schedule.id)).complete


async def test_what_nobody_planned_yet_is_planned_first_by_its_policy(
  scene: Scene,
) -> None:
  schedule = await scene.begin(Misfire())
  await scene.wait(600)
  assert len(await scene.fill(schedule, 1, 10.4)) == 8
  [late] = await scene.tasks(schedule, "catch_up")
  assert late["planned_at"] == minute(9)
  assert len(await scene.tasks(schedule, "schedule")) == 1
  await scene.plan()
  assert await scene.gaps(schedule) == []
  assert (await check_ledger(scene.database, schedule.id)).complete


async def test_the_runs_that_max_runs_counts_are_not_used_up(scene: Scene) -> None:
  schedule = await scene.begin(max_runs=3)
  await scene.wait(600)
  await scene.plan()
  before = (await read_cursor(scene.database, schedule))["run_count"]
  await scene.fill(schedule, 1, 5)
  assert (await read_cursor(scene.database, schedule))["run_count"] == before == 2


async def test_gaps_of_another_definition_stay_as_they_are(scene: Scene) -> None:
  schedule = await scene.begin()
  await scene.wait(3_600)
  await scene.plan()
  gaps = await scene.gaps(schedule)
  change = ScheduleForUpdate(cron_expression="*/20 * * * *")
  await update_schedule(scene.database, schedule.id, change)
  assert len(await scene.fill(schedule, 1, 59)) == 2
  assert await scene.gaps(schedule) == gaps


async def test_an_edit_of_something_else_leaves_gaps_open_to_be_filled(
  scene: Scene,
) -> None:
  schedule = await scene.begin()
  await scene.wait(3_600)
  await scene.plan()
  change = ScheduleForUpdate(parameters={"day": 1})
  await update_schedule(scene.database, schedule.id, change)
  assert len(await scene.fill(schedule, 1, 30)) == 30
  assert await scene.gaps(schedule) == [(minute(31), minute(59), 29)]


async def test_tasks_wait_in_the_lane_of_their_job(scene: Scene) -> None:
  config = TaskConfig(
    cmd="/bin/true", misfire=SKIP, overlap=OverlapPolicy.QUEUE, start_deadline=5.0
  )
  job = await make_job(scene.database, config=config)
  schedule = await make_schedule(scene.database, job, jitter_seconds=30.0)
  await scene.wait(600)
  await scene.fill(schedule, 1, 2)
  for task in await scene.tasks(schedule):
    assert (task["status"], task["lane"]) == ("blocked", f"job:{job.id}")
    assert task["start_by"] == task["due_at"] + timedelta(seconds=5)
    late = task["scheduled_at"] - task["planned_at"]
    assert timedelta(0) < late < timedelta(seconds=30)


async def test_too_much_is_refused_with_how_much_it_is(scene: Scene) -> None:
  schedule = await scene.begin(cron_expression="* * * * * *")
  await scene.wait(11_000)
  with pytest.raises(ProtocolError, match=r"10201 planned times, 201 more") as caught:
    await scene.fill(schedule, 0, 170)
  assert caught.value.issues[0][0] == "$.end_at"
  with trio.fail_after(30):
    assert len(await scene.fill(schedule, 0, 166)) == 9_961
  assert (await check_ledger(scene.database, schedule.id)).complete


async def test_what_has_not_passed_or_cannot_be_is_refused(scene: Scene) -> None:
  schedule = await scene.begin()
  with pytest.raises(ProtocolError, match="future"):
    await scene.fill(schedule, 0, 1)
  with pytest.raises(NotFound):
    await scene.fill(attrs.evolve(schedule, id=new_id()), -9, -8)
  daemon = await make_schedule(
    scene.database,
    await make_job(scene.database, "daemon"),
    kind=ScheduleKind.DAEMON,
    cron_expression=None,
    replicas=1,
  )
  with pytest.raises(ScheduleError, match="no planned times"):
    await scene.fill(daemon, -9, -8)
  await set_job_enabled(scene.database, schedule.job_id, False)
  with pytest.raises(Conflict, match="is disabled"):
    await scene.fill(schedule, -9, -8)


# ── the ledger, page by page ────────────────────────────────────────────────────────


async def test_the_ledger_tells_in_order_what_became_of_each_time(scene: Scene) -> None:
  schedule = await scene.begin()
  await scene.plan()
  [first] = await scene.tasks(schedule, "schedule")
  attempt = await start_attempt(scene.database, first["id"])
  await attempt.end(exit_code=1)
  await scene.wait(600)
  await scene.plan()
  await scene.fill(schedule, 3, 3)
  shown = []
  cursor = None
  while True:
    page, cursor = await query_ledger(
      scene.database, schedule.id, limit=2, cursor=cursor
    )
    assert (page.totals is None) == (page.check is None) == bool(shown)
    shown += page.items
    if page.totals is not None:
      totals = page.totals
      assert page.check is not None
      assert page.check.complete
    if cursor is None:
      break
  told = [
    (item.from_at, item.to_at, item.count, item.outcome, item.status, item.cause)
    for item in shown
  ]
  ran, waiting, missed = Coverage.RAN, Coverage.WAITING, Coverage.MISSED
  assert told == [
    (minute(1), minute(1), 1, ran, "failed", "schedule"),
    (minute(2), minute(2), 1, missed, None, None),
    (minute(3), minute(3), 1, waiting, "pending", "backfill"),
    (minute(4), minute(9), 6, missed, None, None),
    (minute(10), minute(10), 1, waiting, "pending", "schedule"),
    (minute(11), minute(11), 1, waiting, "pending", "schedule"),
  ]
  assert (totals.ran, totals.waiting, totals.missed) == (1, 3, 7)
  assert shown[0].task_id == first["id"]
  assert shown[1].reason is not None


async def test_of_a_gap_only_what_lies_in_the_span_is_counted(scene: Scene) -> None:
  schedule = await scene.begin()
  await scene.wait(3_600)
  await scene.plan()
  page, _ = await query_ledger(
    scene.database, schedule.id, from_at=minute(10), to_at=minute(19), limit=9
  )
  [gap] = page.items
  assert (gap.count, gap.from_at) == (59, minute(1))
  assert page.totals is not None
  assert page.totals.missed == 10


async def test_a_time_that_was_lost_or_doubled_is_found(scene: Scene) -> None:
  schedule = await scene.begin()
  for _ in range(5):
    await scene.plan()
    await scene.wait(60)
  [first, *_] = await scene.tasks(schedule, "schedule")
  await scene.database.fetch(
    query("DELETE FROM sched_task WHERE id = $id"), id=first["id"]
  )
  found = await check_ledger(scene.database, schedule.id)
  assert found.uncovered == [minute(1)]
  assert (found.planned, found.covered) == (5, 4)
  book = query("""
    INSERT INTO sched_ledger_gap (
      id, namespace_id, schedule_id, from_at, to_at, count, outcome, reason
    ) VALUES (gen_random_uuid(), 'default', $id, $from, $to, 2, 'missed', 'by hand')
  """)
  await scene.database.fetch(
    book, id=schedule.id, **{"from": minute(1), "to": minute(2)}
  )
  found = await check_ledger(scene.database, schedule.id)
  assert (found.uncovered, found.doubled) == ([], [minute(2)])
  part = await check_ledger(scene.database, schedule.id, minute(3), minute(4))
  assert part.complete
  assert part.planned == 2


async def test_what_was_planned_before_an_edit_is_not_judged_by_it(
  scene: Scene,
) -> None:
  schedule = await scene.begin()
  await scene.plan()
  await scene.wait(600)
  await scene.plan()
  change = ScheduleForUpdate(cron_expression="*/5 * * * * *")
  await update_schedule(scene.database, schedule.id, change)
  await scene.plan()
  found = await check_ledger(scene.database, schedule.id)
  assert found.complete
  assert found.after_at == scene.now
  assert found.planned == 12


async def test_behind_its_last_run_a_schedule_has_no_times(scene: Scene) -> None:
  schedule = await scene.begin(Misfire(), max_runs=2)
  await scene.wait(300)
  await scene.plan()
  await scene.wait(900)
  await scene.plan()
  found = await check_ledger(scene.database, schedule.id)
  assert found.complete
  assert found.planned == 5
  assert (await get_schedule(scene.database, schedule.id)).next_run_at is None
