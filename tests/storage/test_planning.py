"""The statement that moves cursors and makes tasks, called by hand."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from support.world import (
  make_job,
  make_namespace,
  make_schedule,
  planned_times,
  query,
  read_cursor,
)

from hetuflow.protocol.model import Schedule, TaskConfig
from hetuflow.protocol.states import LedgerOutcome
from hetuflow.storage.connect import Database
from hetuflow.storage.jobs import delete_job
from hetuflow.storage.planning import (
  Gap,
  Plan,
  PlannedTask,
  list_due_schedules,
  plan_tasks,
)
from hetuflow.storage.schedules import set_schedule_enabled

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
GAPS = query("""
  SELECT from_at, to_at, count, reason FROM sched_ledger_gap
  WHERE schedule_id = $id ORDER BY from_at
""")
TASKS = query("""
  SELECT planned_at, due_at, rank_at, priority, max_retries, job_version, parameters,
    scheduled_at, occurrence
  FROM sched_task WHERE schedule_id = $id ORDER BY planned_at
""")
SET_CURSOR = query("UPDATE sched_schedule SET cursor_at = $at WHERE id = $id")


def minute(number: int) -> datetime:
  """Return some minute after noon."""
  return NOON + timedelta(minutes=number)


def make_gap(first: int, last: int, reason: str = "late") -> Gap:
  """Make a gap from one minute to another."""
  return Gap(
    from_at=minute(first),
    to_at=minute(last),
    count=last - first + 1,
    outcome=LedgerOutcome.MERGED,
    reason=reason,
  )


def make_plan(schedule: Schedule, start: int, end: int, **more: Any) -> Plan:
  """Make a plan that moves a cursor from one minute to another."""
  fields = {
    "schedule_id": schedule.id,
    "revision": 1,
    "expected": minute(start),
    "cursor_at": minute(end),
    "next_plan_at": minute(end + 1),
    "tasks": [],
    "gaps": [],
  }
  return Plan(**(fields | more))


def make_task(number: int, late: float = 0.0) -> PlannedTask:
  """Make a planned time, with so many seconds of jitter."""
  at = minute(number)
  return PlannedTask(planned_at=at, scheduled_at=at + timedelta(seconds=late))


@pytest.fixture
async def schedule(database: Database) -> Schedule:
  config = TaskConfig(cmd="/bin/true", priority=3, max_retries=2)
  job = await make_job(database, config=config)
  made = await make_schedule(database, job, parameters={"x": 1})
  await database.fetch(SET_CURSOR, id=made.id, at=NOON)
  return made


async def test_a_plan_makes_its_tasks_from_job_and_schedule(
  database: Database, schedule: Schedule
) -> None:
  plan = make_plan(schedule, 0, 2, tasks=[make_task(1, late=7.0), make_task(2)])
  assert await plan_tasks(database, [plan]) == {"default": 2}
  first, second = await database.fetch(TASKS, id=schedule.id)
  assert first["planned_at"] == minute(1)
  assert first["scheduled_at"] == first["due_at"] == minute(1) + timedelta(seconds=7)
  assert first["rank_at"] == first["due_at"] - timedelta(minutes=3)
  assert (first["priority"], first["max_retries"], first["job_version"]) == (3, 2, 1)
  assert first["parameters"] == {"x": 1}
  assert first["occurrence"] != second["occurrence"]
  row = await read_cursor(database, schedule)
  assert (row["cursor_at"], row["next_plan_at"]) == (minute(2), minute(3))
  assert row["run_count"] == 2


async def test_plans_of_many_schedules_keep_to_their_own(database: Database) -> None:
  await make_namespace(database, "other")
  jobs = [
    await make_job(database, "a"),
    await make_job(database, "b", namespace_id="other"),
  ]
  schedules = [
    await make_schedule(database, jobs[number % 2], name=str(number))
    for number in range(7)
  ]
  plans = []
  for number, schedule in enumerate(schedules):
    await database.fetch(SET_CURSOR, id=schedule.id, at=NOON)
    tasks = [make_task(30 + place) for place in range(number)]
    gaps = [make_gap(1, number)] if number else []
    plans.append(make_plan(schedule, 0, 40, tasks=tasks, gaps=gaps))
  made = await plan_tasks(database, plans[::-1])
  assert made == {"default": 0 + 2 + 4 + 6, "other": 1 + 3 + 5}
  for number, schedule in enumerate(schedules):
    expected = [minute(30 + place) for place in range(number)]
    assert await planned_times(database, schedule) == expected
    gaps = await database.fetch(GAPS, id=schedule.id)
    assert [gap["count"] for gap in gaps] == ([number] if number else [])


@pytest.mark.parametrize(
  "change", [{"revision": 2}, {"expected": minute(1)}], ids=["revision", "cursor"]
)
async def test_a_plan_from_another_reading_comes_to_nothing(
  database: Database, schedule: Schedule, change: dict[str, Any]
) -> None:
  plan = make_plan(
    schedule, 0, 9, tasks=[make_task(1)], gaps=[make_gap(2, 3)], **change
  )
  assert await plan_tasks(database, [plan]) == {}
  assert await planned_times(database, schedule) == []
  assert await database.fetch(GAPS, id=schedule.id) == []
  assert (await read_cursor(database, schedule))["cursor_at"] == NOON


async def test_a_schedule_that_somebody_has_in_hand_is_passed_over(
  database: Database, schedule: Schedule
) -> None:
  plan = make_plan(schedule, 0, 1, tasks=[make_task(1)])
  lock = query("SELECT id FROM sched_schedule WHERE id = $id FOR UPDATE")
  with trio.fail_after(5):
    async with database.transaction() as connection:
      await connection.fetch(lock, id=schedule.id)
      assert await plan_tasks(database, [plan]) == {}
  assert await plan_tasks(database, [plan]) == {"default": 1}


async def test_a_gap_that_goes_on_becomes_longer(
  database: Database, schedule: Schedule
) -> None:
  await plan_tasks(database, [make_plan(schedule, 0, 5, gaps=[make_gap(1, 5)])])
  await plan_tasks(database, [make_plan(schedule, 5, 9, gaps=[make_gap(6, 9)])])
  other = make_gap(10, 12, reason="other")
  await plan_tasks(database, [make_plan(schedule, 9, 12, gaps=[other])])
  # A time that ran lies between this one and the last.
  apart = make_plan(schedule, 12, 20, tasks=[make_task(13)], gaps=[])
  await plan_tasks(database, [apart])
  late = make_gap(21, 22, reason="other")
  await plan_tasks(database, [make_plan(schedule, 20, 22, gaps=[late])])
  gaps = await database.fetch(GAPS, id=schedule.id)
  assert [(gap["from_at"], gap["to_at"], gap["count"]) for gap in gaps] == [
    (minute(1), minute(9), 9),
    (minute(10), minute(12), 3),
    (minute(21), minute(22), 2),
  ]


async def test_only_schedules_that_may_run_are_due(
  database: Database, schedule: Schedule
) -> None:
  assert len(await list_due_schedules(database, horizon=60.0, limit=9)) == 1
  [row] = await list_due_schedules(database, horizon=600.0, limit=1)
  assert row["until_at"] - row["read_at"] == timedelta(seconds=600)
  await set_schedule_enabled(database, schedule.id, False)
  assert await list_due_schedules(database, horizon=60.0, limit=9) == []
  await set_schedule_enabled(database, schedule.id, True)
  await delete_job(database, schedule.job_id)  # type: ignore[arg-type]  # it is of a job
  assert await list_due_schedules(database, horizon=60.0, limit=9) == []


async def test_a_gap_that_is_booked_already_undoes_no_plan(
  database: Database, schedule: Schedule
) -> None:
  plan = make_plan(schedule, 0, 3, gaps=[make_gap(1, 3)])
  await plan_tasks(database, [plan])
  await database.fetch(SET_CURSOR, id=schedule.id, at=NOON)
  again = make_plan(schedule, 0, 4, gaps=[make_gap(1, 3)], tasks=[make_task(4)])
  assert await plan_tasks(database, [again]) == {"default": 1}
  rows = await database.fetch(GAPS, id=schedule.id)
  assert [(row["from_at"], row["to_at"]) for row in rows] == [(minute(1), minute(3))]
