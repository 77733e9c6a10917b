"""The statement that moves cursors and makes tasks, called by hand."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import attrs
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

from hetuflow.protocol.model import (
  JobForUpdate,
  NamespaceId,
  Schedule,
  ServerId,
  TaskConfig,
  new_id,
)
from hetuflow.protocol.states import LedgerOutcome, TaskCause
from hetuflow.storage import planning
from hetuflow.storage.connect import Database, Record
from hetuflow.storage.jobs import delete_job, get_job, update_job
from hetuflow.storage.plan import Gap, Plan, PlannedTask
from hetuflow.storage.planning import (
  Fence,
  draw_back_cursors,
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
    scheduled_at, occurrence, status, reason, lane, cause, start_by, end_by
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
    "namespace_id": schedule.namespace_id,
    "job_version": 1,
    "revision": 1,
    "expected": minute(start),
    "cursor_at": minute(end),
    "next_plan_at": minute(end + 1),
  }
  return Plan(**(fields | more))


def make_task(number: int, late: float = 0.0) -> PlannedTask:
  """Make a planned time, with so many seconds of jitter."""
  at = minute(number) + timedelta(seconds=late)
  return PlannedTask(planned_at=minute(number), scheduled_at=at, due_at=at)


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
  "change",
  [{"revision": 2}, {"expected": minute(1)}, {"job_version": 2}],
  ids=["revision", "cursor", "job"],
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


async def due(database: Database, horizon: float = 60.0) -> list[Record]:
  """Read what is due in the default namespace."""
  here = [NamespaceId("default")]
  return await list_due_schedules(database, horizon=horizon, limit=9, namespaces=here)


async def test_only_schedules_that_may_run_are_due(
  database: Database, schedule: Schedule
) -> None:
  assert len(await due(database)) == 1
  [row] = await due(database, horizon=600.0)
  assert row["until_at"] - row["read_at"] == timedelta(seconds=600)
  await set_schedule_enabled(database, schedule.id, False)
  assert await due(database) == []
  await set_schedule_enabled(database, schedule.id, True)
  await delete_job(database, schedule.job_id)  # type: ignore[arg-type]  # it is of a job
  assert await due(database) == []


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


async def test_tasks_with_a_lane_wait_for_a_place_in_it(
  database: Database, schedule: Schedule
) -> None:
  plan = make_plan(schedule, 0, 1, tasks=[make_task(1)], lane="key:Ulm")
  assert await plan_tasks(database, [plan]) == {"default": 1}
  [task] = await database.fetch(TASKS, id=schedule.id)
  assert (task["status"], task["lane"], task["cause"]) == (
    "blocked",
    "key:Ulm",
    "schedule",
  )
  assert "Ulm" in task["reason"]


async def test_deadlines_are_counted_from_when_a_task_is_due(
  database: Database,
) -> None:
  config = TaskConfig(cmd="/bin/true", start_deadline=5.0, total_timeout=60.0)
  job = await make_job(database, config=config)
  schedule = await make_schedule(database, job)
  await database.fetch(SET_CURSOR, id=schedule.id, at=NOON)
  late = attrs.evolve(make_task(1), due_at=minute(90), cause=TaskCause.CATCH_UP)
  await plan_tasks(database, [make_plan(schedule, 0, 1, tasks=[late])])
  [task] = await database.fetch(TASKS, id=schedule.id)
  assert task["scheduled_at"] == minute(1)
  assert (task["due_at"], task["cause"]) == (minute(90), "catch_up")
  assert task["start_by"] == minute(90) + timedelta(seconds=5)
  assert task["end_by"] == minute(91)


async def test_much_work_is_cut_into_statements_of_bounded_size(
  database: Database, schedule: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
  sizes = []

  async def watch(executor: Any, plans: Any, fence: Any) -> Any:
    sizes.append(sum(len(plan.tasks) for plan in plans))
    return await whole(executor, plans, fence)

  whole = planning._plan_part
  monkeypatch.setattr(planning, "_plan_part", watch)
  monkeypatch.setattr(planning, "TASKS_PER_STATEMENT", 10)
  job = await get_job(database, schedule.job_id)
  other = await make_schedule(database, job, name="other")
  await database.fetch(SET_CURSOR, id=other.id, at=NOON)
  many = [make_task(number) for number in range(1, 26)]
  few = [make_task(number) for number in range(1, 7)]
  plans = [
    make_plan(schedule, 0, 30, tasks=many, gaps=[make_gap(27, 28)]),
    make_plan(other, 0, 30, tasks=few),
  ]
  assert await plan_tasks(database, plans) == {"default": 31}
  assert sizes == [10, 10, 5, 6]
  assert len(await planned_times(database, schedule)) == 25
  assert len(await database.fetch(GAPS, id=schedule.id)) == 1
  assert (await read_cursor(database, schedule))["run_count"] == 25


# ── bindings ────────────────────────────────────────────────────────────────────────

BIND = query("""
  INSERT INTO sched_binding AS b (namespace_id, server_id) VALUES ($namespace, $server)
  ON CONFLICT (namespace_id) DO UPDATE
  SET server_id = excluded.server_id, epoch = b.epoch + 1
""")


def make_fence(server_id: UUID, **epochs: int) -> Fence:
  """Make what a server knows of its bindings."""
  known = {NamespaceId(name): epoch for name, epoch in epochs.items()}
  return Fence(server_id=ServerId(server_id), epochs=known)


async def test_only_schedules_of_some_namespaces_are_looked_at(
  database: Database, schedule: Schedule
) -> None:
  await make_namespace(database, "other")
  job = await make_job(database, "b", namespace_id="other")
  other = await make_schedule(database, job)
  here = [NamespaceId("other")]
  rows = await list_due_schedules(database, horizon=99.0, limit=9, namespaces=here)
  assert [row["id"] for row in rows] == [other.id]
  assert await list_due_schedules(database, horizon=99.0, limit=9, namespaces=[]) == []
  far = query("UPDATE sched_schedule SET cursor_at = now() + interval '1 day'")
  await database.fetch(far)
  drawn = await draw_back_cursors(database, horizon=60.0, limit=9, namespaces=here)
  assert drawn == [other.id]


async def test_plans_of_a_binding_that_was_lost_come_to_nothing(
  database: Database, schedule: Schedule
) -> None:
  await make_namespace(database, "other")
  job = await make_job(database, "b", namespace_id="other")
  kept = await make_schedule(database, job)
  await database.fetch(SET_CURSOR, id=kept.id, at=NOON)
  mine, theirs = new_id(), new_id()
  for namespace in ("default", "other"):
    await database.fetch(BIND, namespace=namespace, server=mine)
  plans = [
    make_plan(each, 0, 1, tasks=[make_task(1)], gaps=[make_gap(2, 3)])
    for each in (schedule, kept)
  ]
  known = make_fence(mine, default=1, other=1)
  await database.fetch(BIND, namespace="default", server=theirs)
  assert await plan_tasks(database, plans, fence=known) == {"other": 1}
  assert await planned_times(database, schedule) == []
  assert await database.fetch(GAPS, id=schedule.id) == []
  # Mine again, but not as I know it.
  await database.fetch(BIND, namespace="default", server=mine)
  assert await plan_tasks(database, plans, fence=known) == {}
  known = make_fence(mine, default=3)
  assert await plan_tasks(database, plans, fence=known) == {"default": 1}


async def test_a_namespace_that_is_bound_to_nobody_is_planned_by_nobody(
  database: Database, schedule: Schedule
) -> None:
  plan = make_plan(schedule, 0, 1, tasks=[make_task(1)])
  known = make_fence(new_id(), default=1)
  assert await plan_tasks(database, [plan], fence=known) == {}
  assert await plan_tasks(database, [plan], fence=make_fence(new_id())) == {}


async def test_a_move_waits_for_plans_that_are_being_carried_out_and_fences_later_ones(
  database: Database, schedule: Schedule
) -> None:
  mine, theirs = new_id(), new_id()
  await database.fetch(BIND, namespace="default", server=mine)
  known = make_fence(mine, default=1)
  first = make_plan(schedule, 0, 1, tasks=[make_task(1)])
  then = make_plan(schedule, 1, 2, tasks=[make_task(2)])
  moved = trio.Event()

  async def move() -> None:
    await database.fetch(BIND, namespace="default", server=theirs)
    moved.set()

  with trio.fail_after(10):
    async with trio.open_nursery() as nursery:
      async with database.transaction() as connection:
        await plan_tasks(connection, [first], fence=known)
        nursery.start_soon(move)
        await wait_for_lock(database)
        assert not moved.is_set()
      await moved.wait()
  assert await plan_tasks(database, [then], fence=known) == {}
  assert await planned_times(database, schedule) == [minute(1)]


async def test_a_job_that_gets_limits_meanwhile_has_no_task_without_them(
  database: Database, schedule: Schedule
) -> None:
  mine = new_id()
  await database.fetch(BIND, namespace="default", server=mine)
  plan = make_plan(schedule, 0, 1, tasks=[make_task(1)])
  made: list[dict[NamespaceId, int]] = []

  async def carry_out() -> None:
    made.append(await plan_tasks(database, [plan], fence=make_fence(mine, default=1)))

  limited = JobForUpdate(config=TaskConfig(cmd="/bin/true", max_concurrent=1))
  with trio.fail_after(10):
    async with trio.open_nursery() as nursery, database.transaction() as connection:
      await connection.fetch(query("SELECT FROM sched_binding FOR UPDATE"))
      nursery.start_soon(carry_out)
      await wait_for_lock(database)
      await update_job(database, schedule.job_id, limited)
  assert made == [{}]
  assert await planned_times(database, schedule) == []


async def wait_for_lock(database: Database) -> None:
  """Wait until somebody waits for a lock."""
  waiting = query("SELECT count(*) FROM pg_locks WHERE NOT granted")
  while not await database.fetchval(waiting):
    await trio.lowlevel.checkpoint()
