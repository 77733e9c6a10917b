"""Limits in a real database: who waits for what, and what frees a place."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from support.members import DEFAULT, claim_one
from support.world import make_job, query, read_clock, start_attempt

from hetuflow.errors import Conflict, ProtocolError
from hetuflow.protocol import wire
from hetuflow.protocol.model import (
  Job,
  JobForUpdate,
  NamespaceForUpdate,
  Task,
  TaskConfig,
  TaskForCreate,
  TaskForUpdate,
  TaskId,
)
from hetuflow.storage import limits
from hetuflow.storage.connect import Database
from hetuflow.storage.jobs import update_job
from hetuflow.storage.limits import (
  adopt_running,
  adopt_waiting,
  expire_overdue,
  judge_tasks,
  look_at_limits,
  miss_late,
)
from hetuflow.storage.namespaces import update_namespace
from hetuflow.storage.tasks import create_tasks, get_task, update_task
from hetuflow.storage.transitions import (
  pause_task,
  request_cancel,
  resume_task,
  revive_task,
)

KEY = "{{ parameters.key }}"
PLACE_LATE = query("""
  UPDATE sched_task SET start_by = start_by - interval '1 day',
    end_by = end_by - interval '1 day'
  WHERE id = $id
""")
SET_PENDING = query("UPDATE sched_task SET status = 'pending' WHERE id = $id")
LANES = query("SELECT lane, status::text FROM sched_task ORDER BY id")
TOUCH = query("UPDATE sched_task SET updated_at = now() WHERE id = $id")
BLOCKED_SESSIONS = query("""
  SELECT count(*) FROM pg_stat_activity
  WHERE wait_event_type = 'Lock' AND datname = current_database()
""")


def config(**limits: Any) -> TaskConfig:
  """Make a configuration with limits."""
  return wire.load(TaskConfig, {"cmd": "/bin/true"} | limits)


async def limited_job(database: Database, name: str = "limited", **limits: Any) -> Job:
  """Make a job with limits."""
  return await make_job(database, name, config=config(**limits))


async def make(
  database: Database, job: Job, count: int = 1, **more: Any
) -> list[TaskId]:
  """Make tasks of a job."""
  return await create_tasks(
    database, [TaskForCreate(job_id=job.id, **more) for _ in range(count)]
  )


async def statuses(database: Database, ids: list[TaskId]) -> list[str]:
  """Read the statuses of tasks."""
  return [(await get_task(database, id)).status.value for id in ids]


async def judge_all(database: Database) -> None:
  """Give places until there is nothing more to do at once."""
  while (await judge_tasks(database, DEFAULT)).more:
    pass


async def test_a_task_with_a_limit_is_made_blocked_and_says_why(
  database: Database,
) -> None:
  job = await limited_job(database, max_concurrent=2)
  [id] = await make(database, job)
  task = await get_task(database, id)
  assert (task.status, task.reason) == (
    "blocked",
    "waits for a place: limits of the job",
  )
  free = await make_job(database, "free")
  assert await statuses(database, await make(database, free)) == ["pending"]


async def test_a_place_is_held_until_its_task_has_ended(database: Database) -> None:
  job = await limited_job(database, max_concurrent=1, max_retries=1, retry_interval=0)
  first, second = await make(database, job, 2)
  await judge_all(database)
  assert await statuses(database, [first, second]) == ["pending", "blocked"]
  await (await start_attempt(database, first)).end(1)
  await judge_all(database)
  # It is to be tried again: that is not judged anew.
  assert await statuses(database, [first, second]) == ["waiting_retry", "blocked"]
  await (await start_attempt(database, first)).end(0)
  await judge_all(database)
  assert await statuses(database, [first, second]) == ["succeeded", "pending"]


async def test_a_task_with_a_limit_is_not_promoted_before_it_is_due(
  database: Database,
) -> None:
  job = await limited_job(database, max_concurrent=1)
  at = await read_clock(database) + timedelta(seconds=3)
  [id] = await make(database, job, scheduled_at=at)
  done = await judge_tasks(database, DEFAULT)
  assert await statuses(database, [id]) == ["blocked"]
  assert done.next_in is not None
  assert 2 < done.next_in <= 3
  await update_task(
    database, id, TaskForUpdate(scheduled_at=await read_clock(database))
  )
  await judge_all(database)
  assert await statuses(database, [id]) == ["pending"]


async def test_a_key_needs_its_parameter(database: Database) -> None:
  job = await limited_job(database, concurrency_key=KEY)
  with pytest.raises(ProtocolError) as caught:
    await make(database, job, parameters={"other": 1})
  assert caught.value.issues == (
    (
      "$.items[0].parameters",
      "expected 'key', which the job's concurrency_key needs",
    ),
  )
  [id] = await make(database, job, parameters={"key": 1})
  with pytest.raises(ProtocolError):
    await update_task(database, id, TaskForUpdate(parameters={}))


async def test_another_parameter_is_another_lane(database: Database) -> None:
  job = await limited_job(database, concurrency_key=KEY, max_retries=1)
  one, other = await make(database, job, 2, parameters={"key": "a"})
  await judge_all(database)
  assert await statuses(database, [one, other]) == ["pending", "blocked"]
  await update_task(database, other, TaskForUpdate(parameters={"key": "b"}))
  await judge_all(database)
  assert await statuses(database, [one, other]) == ["pending", "pending"]
  # What has its place gives it back.
  await update_task(database, one, TaskForUpdate(parameters={"key": "b"}))
  await judge_all(database)
  assert await statuses(database, [one, other]) == ["blocked", "pending"]
  await (await start_attempt(database, other)).end(1)
  with pytest.raises(Conflict, match="concurrency_key"):
    await update_task(database, other, TaskForUpdate(parameters={"key": "c"}))
  await update_task(database, other, TaskForUpdate(priority=3))


async def test_priority_is_heeded_among_those_that_wait(database: Database) -> None:
  job = await limited_job(database, max_concurrent=1)
  ids = await make(database, job, 3)
  await update_task(database, ids[2], TaskForUpdate(priority=10))
  await judge_all(database)
  assert await statuses(database, ids) == ["blocked", "blocked", "pending"]


async def test_a_paused_task_holds_no_place_and_waits_for_one_again(
  database: Database,
) -> None:
  job = await limited_job(database, max_concurrent=1)
  first, second = await make(database, job, 2)
  await judge_all(database)
  await pause_task(database, first)
  await judge_all(database)
  assert await statuses(database, [first, second]) == ["paused", "pending"]
  task = await resume_task(database, first)
  assert (task.status, task.reason) == (
    "blocked",
    "waits for a place: limits of the job",
  )
  await judge_all(database)
  assert await statuses(database, [first, second]) == ["blocked", "pending"]
  await pause_task(database, first)
  assert await statuses(database, [first]) == ["paused"]


async def test_a_cancelled_task_frees_its_place_and_is_revived_behind_others(
  database: Database,
) -> None:
  job = await limited_job(database, max_concurrent=1)
  first, second = await make(database, job, 2)
  await judge_all(database)
  await request_cancel(database, first)
  await judge_all(database)
  assert await statuses(database, [first, second]) == ["cancelled", "pending"]
  task = await revive_task(database, first)
  assert task.status == "blocked"
  assert "waits for a place" in str(task.reason)
  await (await start_attempt(database, second)).end(0)
  await judge_all(database)
  assert await statuses(database, [first, second]) == ["pending", "succeeded"]


async def test_who_is_replaced_before_an_agent_has_it_ends_at_once(
  database: Database,
) -> None:
  job = await limited_job(database, overlap="replace")
  [first] = await make(database, job)
  await judge_all(database)
  [second] = await make(database, job)
  await judge_all(database)
  assert await statuses(database, [first, second]) == ["cancelled", "pending"]
  assert (await get_task(database, first)).reason == f"replaced by task {second}"
  attempt = await start_attempt(database, second)
  [third] = await make(database, job)
  await judge_all(database)
  running = await get_task(database, second)
  assert running.cancel_requested_at is not None
  assert await statuses(database, [second, third]) == ["dispatched", "blocked"]
  await attempt.end(143)
  await judge_all(database)
  assert await statuses(database, [second, third]) == ["cancelled", "pending"]
  assert (await get_task(database, second)).reason == f"replaced by task {third}"


async def limit_namespace(database: Database, max_running: int | None) -> None:
  """Let the default namespace have a limit, or none."""
  await update_namespace(database, DEFAULT, NamespaceForUpdate(max_running=max_running))


async def test_what_was_there_before_a_namespace_had_a_limit_counts_too(
  database: Database,
) -> None:
  job = await make_job(database)
  running, waiting, later = await make(database, job, 3)
  attempt = await start_attempt(database, running)
  await limit_namespace(database, 1)
  [look] = await look_at_limits(database, [DEFAULT])
  assert (look.limited, look.strays) == (True, True)
  assert await adopt_running(database, DEFAULT) == 1
  assert not await adopt_waiting(database, DEFAULT)
  await judge_all(database)
  assert await statuses(database, [running, waiting, later]) == [
    "dispatched",
    "blocked",
    "blocked",
  ]
  assert "max_running" in str((await get_task(database, later)).reason)
  await attempt.end(0)
  await judge_all(database)
  assert await statuses(database, [waiting, later]) == ["pending", "blocked"]
  await limit_namespace(database, None)
  await judge_all(database)
  assert await statuses(database, [later]) == ["pending"]


async def test_nobody_claims_what_has_no_lane_where_there_is_a_limit(
  database: Database,
) -> None:
  job = await make_job(database)
  [id] = await make(database, job)
  await limit_namespace(database, 1)
  with pytest.raises(ValueError, match="not enough values"):
    await claim_one(database, job)
  await adopt_waiting(database, DEFAULT)
  await judge_all(database)
  assert (await claim_one(database, job))["task_id"] == id


async def test_tasks_that_are_there_go_by_the_limits_that_their_job_has_now(
  database: Database,
) -> None:
  job = await make_job(database)
  ids = await make(database, job, 3, parameters={"key": "a"})
  attempt = await start_attempt(database, ids[0])
  await update_job(database, job.id, JobForUpdate(config=config(concurrency_key=KEY)))
  await judge_all(database)
  assert await statuses(database, ids) == ["dispatched", "blocked", "blocked"]
  lanes = {row["lane"] for row in await database.fetch(LANES)}
  assert lanes == {"key:a"}
  await update_job(database, job.id, JobForUpdate(config=config(max_concurrent=2)))
  await judge_all(database)
  assert await statuses(database, ids) == ["dispatched", "pending", "blocked"]
  await update_job(database, job.id, JobForUpdate(config=config()))
  assert await statuses(database, ids) == ["dispatched", "pending", "pending"]
  assert {row["lane"] for row in await database.fetch(LANES)} == {None}
  await attempt.end(0)
  assert await statuses(database, ids[:1]) == ["succeeded"]


async def test_a_task_that_others_change_at_the_time_goes_by_the_new_limits_too(
  database: Database,
) -> None:
  job = await make_job(database)
  ids = await make(database, job)
  change = JobForUpdate(config=config(max_concurrent=1))
  with trio.fail_after(30):
    async with trio.open_nursery() as nursery, database.transaction() as connection:
      await connection.fetch(TOUCH, id=ids[0])
      nursery.start_soon(update_job, database, job.id, change)
      while not await database.fetchval(BLOCKED_SESSIONS):
        pass
  assert await statuses(database, ids) == ["blocked"]


async def test_what_ended_under_other_limits_is_revived_under_those_of_now(
  database: Database,
) -> None:
  job = await make_job(database)
  ids = await make(database, job, 2)
  for id in ids:
    await (await start_attempt(database, id)).end(0)
  await update_job(database, job.id, JobForUpdate(config=config(max_concurrent=1)))
  for id in ids:
    await revive_task(database, id)
  await judge_all(database)
  assert sorted(await statuses(database, ids)) == ["blocked", "pending"]
  await update_job(database, job.id, JobForUpdate(config=config()))
  for id in ids:
    await request_cancel(database, id)
  assert (await revive_task(database, ids[0])).status == "pending"


async def test_what_changes_its_lane_while_it_is_judged_gets_no_place_there(
  database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
  job = await limited_job(database, concurrency_key=KEY)
  [first] = await make(database, job, parameters={"key": "a"})
  await judge_all(database)
  [second] = await make(database, job, parameters={"key": "b"})
  list_holders = limits._list_holders

  async def move_then_list(*arguments: Any) -> Any:
    """Let a user be faster than the limiter, which has counted already."""
    await update_task(database, second, TaskForUpdate(parameters={"key": "a"}))
    return await list_holders(*arguments)

  with monkeypatch.context() as patch:
    patch.setattr(limits, "_list_holders", move_then_list)
    await judge_tasks(database, DEFAULT)
  await judge_all(database)
  assert await statuses(database, [first, second]) == ["pending", "blocked"]


async def test_what_has_not_started_in_time_is_missed(database: Database) -> None:
  job = await limited_job(database, start_deadline=60.0, max_concurrent=1)
  late, started = await make(database, job, 2)
  task = await get_task(database, late)
  assert task.start_by is not None
  assert task.start_by - task.scheduled_at == timedelta(seconds=60)
  await database.fetch(SET_PENDING, id=started)
  await (await start_attempt(database, started)).end(1)
  for id in (late, started):
    await database.fetch(PLACE_LATE, id=id)
  await revive_task(database, started)
  await miss_late(database, DEFAULT)
  assert await statuses(database, [late, started]) == ["missed", "blocked"]
  assert (await get_task(database, late)).reason == "start_deadline"
  revived = await revive_task(database, late)
  assert revived.start_by is not None
  assert revived.start_by > await read_clock(database) + timedelta(seconds=50)


async def test_what_has_not_ended_in_time_fails(database: Database) -> None:
  job = await make_job(
    database, config=config(total_timeout=60.0, max_retries=9, retry_interval=0)
  )
  waiting, paused, running, started = ids = await make(database, job, 4)
  task = await get_task(database, waiting)
  assert task.end_by is not None
  assert task.end_by - task.scheduled_at == timedelta(seconds=60)
  await pause_task(database, paused)
  attempt = await start_attempt(database, running)
  other = await start_attempt(database, started)
  for id in ids:
    await database.fetch(PLACE_LATE, id=id)
  await expire_overdue(database, DEFAULT)
  assert await statuses(database, ids) == [
    "failed",
    "failed",
    "dispatched",
    "dispatched",
  ]
  # Whatever it says: there is no further attempt.
  await attempt.end(1)
  await other.end(0)
  assert await statuses(database, [running, started]) == ["failed", "succeeded"]
  reasons = [(await get_task(database, id)).reason for id in ids]
  assert reasons == ["total timeout"] * 3 + [None]


async def test_deadlines_of_a_revived_task_move_as_far_as_the_task(
  database: Database,
) -> None:
  job = await limited_job(database, start_deadline=60, total_timeout=600)
  now = await read_clock(database)
  [id] = await make(database, job, scheduled_at=now - timedelta(days=40_000))
  await miss_late(database, DEFAULT)
  await revive_task(database, id)
  later = now + timedelta(days=2_900_000)
  task = await update_task(database, id, TaskForUpdate(scheduled_at=later))
  assert (task.start_by, task.end_by) == (
    later + timedelta(seconds=60),
    later + timedelta(seconds=600),
  )


async def test_no_deadline_lies_behind_the_last_year_that_can_be_read(
  database: Database,
) -> None:
  year_s = 366 * 86_400.0
  job = await limited_job(database, start_deadline=year_s, total_timeout=year_s)
  last = datetime(9998, 12, 31, 23, tzinfo=UTC)
  created, changed = (
    *await make(database, job, scheduled_at=last),
    *await make(database, job),
  )
  await update_task(database, changed, TaskForUpdate(scheduled_at=last))
  for id in (created, changed):
    task = await get_task(database, id)
    assert task.end_by is not None
    assert task.end_by.year == 9998


async def test_a_user_who_cancels_first_is_heeded(database: Database) -> None:
  job = await make_job(database, config=config(total_timeout=60.0))
  [id] = await make(database, job)
  attempt = await start_attempt(database, id)
  await request_cancel(database, id)
  await database.fetch(PLACE_LATE, id=id)
  await expire_overdue(database, DEFAULT)
  await attempt.end(1)
  task: Task = await get_task(database, id)
  assert (task.status, task.reason) == ("cancelled", "cancelled by request")


async def test_deadlines_move_with_the_time_of_a_task(database: Database) -> None:
  job = await make_job(database, config=config(start_deadline=5.0, total_timeout=60.0))
  [id] = await make(database, job)
  at = await read_clock(database) + timedelta(hours=1)
  task = await update_task(database, id, TaskForUpdate(scheduled_at=at))
  assert task.start_by == at + timedelta(seconds=5)
  assert task.end_by == at + timedelta(seconds=60)
