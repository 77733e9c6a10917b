"""Tasks in a real database: made, read, changed until an agent has them."""

from datetime import timedelta

import pytest
import trio
from support.members import claim_one, make_tasks
from support.world import make_job, make_namespace, query, read_clock

from hetuflow.errors import Conflict, NotFound, ProtocolError
from hetuflow.protocol.model import (
  JobId,
  TaskConfig,
  TaskFilter,
  TaskForCreate,
  TaskForUpdate,
  TaskId,
  new_id,
)
from hetuflow.protocol.model.task import MAX_BATCH
from hetuflow.protocol.states import TaskStatus
from hetuflow.storage.connect import Database, StorageSettings, open_storage
from hetuflow.storage.jobs import set_job_enabled
from hetuflow.storage.tasks import create_tasks, get_task, query_tasks, update_task
from hetuflow.storage.transitions import (
  pause_task,
  request_cancel,
  resume_task,
  revive_task,
)

COUNT = query("SELECT count(*) FROM sched_task")
RAISE_PRIORITY = query("""
  UPDATE sched_task SET priority = 7, rank_at = due_at - interval '7 minutes'
  WHERE id = $id
""")
RANK = query("SELECT rank_at FROM sched_task WHERE id = $id")
GENERIC_PLANS = query("""
  SELECT generic_plans FROM pg_prepared_statements
  WHERE statement LIKE '/* query_tasks */%'
""")
LOCK_HISTORY = """
  DO $$ DECLARE week regclass; BEGIN
    FOR week IN SELECT inhrelid FROM pg_inherits
      WHERE inhparent = 'sched_task'::regclass
      AND inhrelid <> 'sched_task_live'::regclass
    LOOP EXECUTE format('LOCK TABLE %s', week); END LOOP;
  END $$
"""
WAITING = query("""
  SELECT count(*) FROM pg_stat_activity
  WHERE datname = current_database() AND wait_event_type = 'Lock'
""")


async def test_a_task_is_read_as_it_was_made(database: Database) -> None:
  config = TaskConfig(cmd="/bin/true", priority=2, max_retries=4)
  job = await make_job(database, config=config)
  later = await read_clock(database) + timedelta(hours=1)
  plain, special = await create_tasks(
    database,
    [
      TaskForCreate(job_id=job.id),
      TaskForCreate(
        job_id=job.id, parameters={"x": [1, None]}, scheduled_at=later, priority=-5
      ),
    ],
  )
  task = await get_task(database, plain)
  assert (task.status, task.priority, task.max_retries) == (TaskStatus.PENDING, 2, 4)
  assert task.planned_at == task.scheduled_at == task.due_at == task.created_at
  assert task.completed_at is None
  task = await get_task(database, special)
  assert (task.parameters, task.priority) == ({"x": [1, None]}, -5)
  assert task.due_at == later
  with pytest.raises(NotFound):
    await get_task(database, TaskId(new_id()))


async def test_all_tasks_of_a_batch_are_made_or_none(database: Database) -> None:
  job = await make_job(database)
  off = await make_job(database, "off")
  await set_job_enabled(database, off.id, False)
  with pytest.raises(ProtocolError) as caught:
    await create_tasks(
      database,
      [TaskForCreate(job_id=job.id), TaskForCreate(job_id=JobId(new_id()))],
    )
  assert [path for path, _ in caught.value.issues] == ["$.items[1].job_id"]
  with pytest.raises(Conflict):
    await create_tasks(
      database, [TaskForCreate(job_id=job.id), TaskForCreate(job_id=off.id)]
    )
  assert await database.fetchval(COUNT) == 0


async def test_a_known_key_makes_no_second_task(database: Database) -> None:
  await make_namespace(database, "other")
  job = await make_job(database)
  elsewhere = await make_job(database, "b", namespace_id="other")

  def keyed(key: str, of: JobId = job.id) -> TaskForCreate:
    return TaskForCreate(job_id=of, idempotency_key=key)

  one, two, again = await create_tasks(database, [keyed("a"), keyed("b"), keyed("a")])
  assert again == one != two
  assert await create_tasks(database, [keyed("b"), keyed("a")]) == [two, one]
  [foreign] = await create_tasks(database, [keyed("a", elsewhere.id)])
  assert foreign != one
  assert await database.fetchval(COUNT) == 3


async def test_who_asks_at_once_with_one_key_gets_one_task(database: Database) -> None:
  job = await make_job(database)
  made: set[TaskId] = set()

  async def ask(reverse: bool) -> None:
    items = [
      TaskForCreate(job_id=job.id, idempotency_key=str(number)) for number in range(20)
    ]
    made.update(await create_tasks(database, items[::-1] if reverse else items))

  with trio.fail_after(20):
    async with trio.open_nursery() as nursery:
      for number in range(8):
        nursery.start_soon(ask, bool(number % 2))
  assert len(made) == await database.fetchval(COUNT) == 20


async def test_the_largest_batch_fits_into_the_time_a_statement_has(
  database: Database, dsn: str
) -> None:
  job = await make_job(database)
  items = [TaskForCreate(job_id=job.id, parameters={"n": 1})] * MAX_BATCH
  with trio.fail_after(60):
    async with open_storage(StorageSettings(dsn=dsn)) as usual:
      ids = await create_tasks(usual, items)
  assert len(set(ids)) == await database.fetchval(COUNT) == MAX_BATCH


async def test_tasks_come_in_pages_newest_first(database: Database) -> None:
  job, other = await make_job(database), await make_job(database, "other")
  ids = await make_tasks(database, job, 5)
  await make_tasks(database, other, 2)
  wanted = TaskFilter(job_id=job.id)
  first = await query_tasks(database, wanted, limit=3)
  rest = await query_tasks(database, wanted, limit=3, cursor=first[-1].id)
  assert [task.id for task in [*first, *rest]] == sorted(ids, reverse=True)
  await pause_task(database, ids[0])
  paused = TaskFilter(namespace_id="default", status=TaskStatus.PAUSED)
  assert [task.id for task in await query_tasks(database, paused, limit=9)] == [ids[0]]


async def test_a_task_changes_until_an_agent_has_it(database: Database) -> None:
  job = await make_job(database)
  [task_id] = await make_tasks(database, job)
  later = await read_clock(database) + timedelta(hours=1)
  await update_task(database, task_id, TaskForUpdate(parameters={"a": 1}))
  await update_task(database, task_id, TaskForUpdate(priority=7))
  task = await update_task(database, task_id, TaskForUpdate(scheduled_at=later))
  assert (task.parameters, task.priority) == ({"a": 1}, 7)
  assert task.scheduled_at == task.due_at == later
  rank = await database.fetchval(
    query("SELECT rank_at FROM sched_task WHERE id = $id"), id=task_id
  )
  assert rank == later - timedelta(minutes=7)
  [taken] = await make_tasks(database, job)
  await claim_one(database, job)
  with pytest.raises(Conflict, match="dispatched"):
    await update_task(database, taken, TaskForUpdate(priority=1))
  with pytest.raises(NotFound):
    await update_task(database, TaskId(new_id()), TaskForUpdate(priority=1))


async def test_operators_pause_resume_cancel_and_revive(database: Database) -> None:
  job = await make_job(database)
  [task_id] = await make_tasks(database, job)
  assert (await pause_task(database, task_id)).status is TaskStatus.PAUSED
  with pytest.raises(Conflict, match="paused"):
    await pause_task(database, task_id)
  assert (await resume_task(database, task_id)).status is TaskStatus.PENDING
  cancelled = await request_cancel(database, task_id)
  assert cancelled.status is TaskStatus.CANCELLED
  assert cancelled.completed_at is not None
  assert await request_cancel(database, task_id) == cancelled
  revived = await revive_task(database, task_id)
  assert (revived.status, revived.completed_at) == (TaskStatus.PENDING, None)
  assert revived.cancel_requested_at is None
  await claim_one(database, job)
  asked = await request_cancel(database, task_id)
  assert asked.status is TaskStatus.DISPATCHED
  assert asked.cancel_requested_at is not None
  for change in (pause_task, resume_task, revive_task, request_cancel):
    with pytest.raises(NotFound):
      await change(database, TaskId(new_id()))


async def test_of_two_changes_at_once_neither_undoes_the_other(
  database: Database,
) -> None:
  [task_id] = await make_tasks(database, await make_job(database))
  later = await read_clock(database) + timedelta(hours=1)
  with trio.fail_after(20):
    async with trio.open_nursery() as nursery, database.transaction() as first:
      await first.fetch(RAISE_PRIORITY, id=task_id)
      change = TaskForUpdate(scheduled_at=later)
      nursery.start_soon(update_task, database, task_id, change)
      while await database.fetchval(WAITING) == 0:
        await trio.lowlevel.checkpoint()
  task = await get_task(database, task_id)
  assert (task.priority, task.scheduled_at, task.due_at) == (7, later, later)
  assert await database.fetchval(RANK, id=task_id) == later - timedelta(minutes=7)


async def test_a_list_is_planned_for_its_filters_whatever_the_database_prefers(
  database: Database,
) -> None:
  async with database.connection() as connection:
    await connection.execute_script("SET plan_cache_mode = 'force_generic_plan'")
    await query_tasks(connection, TaskFilter(), limit=1)
    assert await connection.fetchval(GENERIC_PLANS) == 0


async def test_a_list_of_what_is_under_way_does_not_touch_history(
  database: Database,
) -> None:
  with trio.fail_after(20):
    async with database.transaction() as keeper:
      await keeper.execute_script(LOCK_HISTORY)
      wanted = TaskFilter(status=TaskStatus.RUNNING)
      assert await query_tasks(database, wanted, limit=1) == []


async def test_a_task_that_could_not_be_read_cannot_be_written(
  database: Database,
) -> None:
  job = await make_job(database)
  [task_id] = await create_tasks(database, [TaskForCreate(job_id=job.id)])
  with pytest.raises(Conflict, match="sched_task_parameters"):
    await database.fetch(
      query("UPDATE sched_task SET parameters = '[1]' WHERE id = $id"), id=task_id
    )
  assert [task.id for task in await query_tasks(database, TaskFilter(), limit=10)] == [
    task_id
  ]


async def test_a_task_that_is_refused_by_now_hides_no_other(database: Database) -> None:
  job = await make_job(database)
  wishes = [TaskForCreate(job_id=job.id) for _ in range(2)]
  whole, spoilt = await create_tasks(database, wishes)
  too_large = {"a": "x" * 5 * 1024**2}
  await database.fetch(
    query("""
      UPDATE sched_task SET priority = 99, max_retries = -1,
        parameters = $parameters::jsonb
      WHERE id = $id
    """),
    id=spoilt,
    parameters=too_large,
  )
  shown, other = await query_tasks(database, TaskFilter(), limit=10)
  assert (shown.id, shown.priority, other.id) == (spoilt, 99, whole)
  mended = await update_task(database, spoilt, TaskForUpdate(parameters={}))
  assert mended.parameters == {}
