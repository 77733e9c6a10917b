"""Tasks: made, read and, until an agent has them, changed."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from hetuflow.errors import Conflict, ProtocolError
from hetuflow.protocol.model import (
  Task,
  TaskFilter,
  TaskForCreate,
  TaskForUpdate,
  TaskId,
  UnsetType,
  new_id,
)
from hetuflow.protocol.states import TASK_FINAL, TaskStatus
from hetuflow.storage.connect import Connection, Database, Record
from hetuflow.storage.lanes import key_problem, lane_of, reason_of
from hetuflow.storage.rows import criteria, fetch_page, found, from_row, repeated
from hetuflow.storage.sql import load_queries

__all__ = ["create_tasks", "get_task", "query_tasks", "update_task"]

_sql = load_queries("tasks")


async def create_tasks(
  database: Database | Connection, items: Sequence[TaskForCreate]
) -> list[TaskId]:
  """Make all of the tasks or none.

  Args:
    database: where to make them; a connection may be in a transaction of its own.
    items: what they are; one with a known idempotency key is not made again.

  Returns:
    The ids, in the order of the items.

  Raises:
    ProtocolError: a job does not exist; the path names the item.
    Conflict: a job is disabled.
  """
  async with database.transaction() as connection:
    jobs = await _share_jobs(connection, items)
    lanes = _find_lanes(items, jobs)
    namespaces = {job_id: job["namespace_id"] for job_id, job in jobs.items()}
    ids, fresh = await _take_keys(connection, items, namespaces)
    made = [
      each
      for position, each in enumerate(zip(ids, items, lanes, strict=True))
      if position in fresh
    ]
    await connection.fetch(
      _sql.insert_tasks,
      ids=[task_id for task_id, _, _ in made],
      job_ids=[item.job_id for _, item, _ in made],
      times=[item.scheduled_at for _, item, _ in made],
      priorities=[item.priority for _, item, _ in made],
      parameters=[item.parameters for _, item, _ in made],
      lanes=[lane for _, _, lane in made],
      reasons=[None if lane is None else reason_of(lane) for _, _, lane in made],
    )
  return ids


def _find_lanes(
  items: Sequence[TaskForCreate], jobs: Mapping[UUID, Record]
) -> list[str | None]:
  """Say for each item whose limit it waits for.

  Raises:
    ProtocolError: it lacks a parameter that its job's concurrency_key needs.
  """
  missing = [
    (f"$.items[{position}].parameters", problem)
    for position, item in enumerate(items)
    if (problem := key_problem(jobs[item.job_id], item.parameters)) is not None
  ]
  if missing:
    raise ProtocolError(missing)
  return [
    lane_of(job, job["max_running"], item.parameters)
    for item in items
    for job in [jobs[item.job_id]]
  ]


async def _share_jobs(
  connection: Connection, items: Sequence[TaskForCreate]
) -> dict[UUID, Record]:
  """Lock the jobs of the items against change and read what limits them."""
  rows = await connection.fetch(
    _sql.share_jobs, ids=sorted({item.job_id for item in items})
  )
  jobs = {row["id"]: row for row in rows}
  missing = [
    (f"$.items[{position}].job_id", "there is no such job")
    for position, item in enumerate(items)
    if item.job_id not in jobs
  ]
  if missing:
    raise ProtocolError(missing)
  for row in rows:
    if row["status"] != "enabled":
      raise Conflict(f"the job {row['id']} is {row['status']}")
  return jobs


async def _take_keys(
  connection: Connection,
  items: Sequence[TaskForCreate],
  namespaces: dict[UUID, str],
) -> tuple[list[TaskId], set[int]]:
  """Give each item its id, a known one where its key is taken; say which are new."""
  ids = [TaskId(new_id()) for _ in items]
  first: dict[tuple[str, str], int] = {}
  for position, item in enumerate(items):
    if item.idempotency_key is not None:
      first.setdefault((namespaces[item.job_id], item.idempotency_key), position)
  if not first:
    return ids, set(range(len(items)))
  rows = await connection.fetch(
    _sql.insert_task_keys,
    namespace_ids=[namespace_id for namespace_id, _ in first],
    keys=[key for _, key in first],
    task_ids=[ids[position] for position in first.values()],
  )
  owners = {
    (row["namespace_id"], row["key"]): TaskId(UUID(row["task_id"])) for row in rows
  }
  fresh = set()
  for position, item in enumerate(items):
    if item.idempotency_key is None:
      fresh.add(position)
      continue
    key = (namespaces[item.job_id], item.idempotency_key)
    if owners[key] == ids[position]:
      fresh.add(position)
    ids[position] = owners[key]
  return ids, fresh


async def get_task(executor: Database | Connection, task_id: TaskId) -> Task:
  """Read one task.

  Raises:
    NotFound: there is no such task.
  """
  row = await executor.fetchrow(_sql.get_task, id=task_id)
  return from_row(Task, found(row, "task", task_id))


async def query_tasks(
  executor: Database | Connection,
  filter: TaskFilter,
  *,
  limit: int,
  cursor: UUID | None = None,
) -> list[Task]:
  """Read a page of tasks, newest first.

  Args:
    executor: where to read.
    filter: which ones.
    limit: how many at most.
    cursor: the id of the last one of the page before.
  """
  live = None if filter.status is None else filter.status not in TASK_FINAL
  rows = await fetch_page(
    executor,
    _sql.query_tasks,
    **criteria(filter),
    live=live,
    limit=limit,
    cursor=cursor,
  )
  return [from_row(Task, row) for row in rows]


@repeated
async def update_task(
  database: Database, task_id: TaskId, change: TaskForUpdate
) -> Task:
  """Change a task that no agent has yet; if it has a limit it is judged anew.

  Raises:
    NotFound: there is no such task.
    ProtocolError: it lacks a parameter that its job's concurrency_key needs.
    Conflict: an agent has it, it has ended, or it is to be retried in the place of another
      concurrency_key.
  """
  async with database.transaction() as connection:
    # The job before the task, as whoever edits it locks them.
    await connection.fetch(_sql.share_job_of, id=task_id)
    row = await connection.fetchrow(_sql.lock_task, id=task_id)
    lane = None if row is None else _new_lane(row, change)
    changed = await connection.fetchrow(
      _sql.update_task,
      id=task_id,
      set_parameters=not isinstance(change.parameters, UnsetType),
      parameters=_given(change.parameters),
      priority=_given(change.priority),
      scheduled_at=_given(change.scheduled_at),
      lane=lane,
      blocked=None if lane is None else reason_of(lane),
    )
    task = await get_task(connection, task_id)
  if changed is None:
    raise Conflict(f"a task that is {task.status} cannot be changed")
  return task


def _new_lane(row: Record, change: TaskForUpdate) -> str | None:
  """Say whose limit a task waits for after a change.

  Raises:
    ProtocolError: it lacks a parameter that its job's concurrency_key needs.
    Conflict: it has a place elsewhere.
  """
  lane: str | None = row["lane"]
  if isinstance(change.parameters, UnsetType) or row["concurrency_key"] is None:
    return lane
  if problem := key_problem(row, change.parameters):
    raise ProtocolError([("$.parameters", problem)])
  new = lane_of(row, row["max_running"], change.parameters)
  if row["status"] == TaskStatus.WAITING_RETRY and new != lane:
    raise Conflict("a task that is to be retried keeps its concurrency_key")
  return new


def _given(value: Any) -> Any:
  """Return a value that was given, or None."""
  return None if isinstance(value, UnsetType) else value
