"""Task instances: the attempts, read and annotated; their statuses move elsewhere."""

from uuid import UUID

from hetuflow.errors import Conflict
from hetuflow.protocol.model import (
  InstanceId,
  TaskInstance,
  TaskInstanceFilter,
  TaskInstanceForCreate,
  TaskInstanceForUpdate,
  new_id,
)
from hetuflow.protocol.states import INSTANCE_LIVE, TaskInstanceStatus
from hetuflow.storage.connect import Connection, Database
from hetuflow.storage.rows import changes, criteria, fetch_page, found, from_row
from hetuflow.storage.sql import load_queries
from hetuflow.storage.tasks import get_task

__all__ = [
  "create_instance",
  "delete_instance",
  "get_instance",
  "query_instances",
  "request_kill",
  "update_instance",
]

_sql = load_queries("instances")


async def create_instance(
  executor: Database | Connection, instance: TaskInstanceForCreate
) -> TaskInstance:
  """Claim one task for one agent.

  Raises:
    NotFound: there is no such task.
    Conflict: the task is not waiting to be claimed.
  """
  row = await executor.fetchrow(
    _sql.create_instance,
    id=new_id(),
    task_id=instance.task_id,
    agent_id=instance.agent_id,
  )
  if row is None:
    task = await get_task(executor, instance.task_id)
    raise Conflict(f"a task that is {task.status} cannot be claimed")
  return await get_instance(executor, InstanceId(row["id"]))


async def get_instance(
  executor: Database | Connection, instance_id: InstanceId
) -> TaskInstance:
  """Read one task instance.

  Raises:
    NotFound: there is no such instance.
  """
  row = await executor.fetchrow(_sql.get_instance, id=instance_id)
  return from_row(TaskInstance, found(row, "task instance", instance_id))


async def query_instances(
  executor: Database | Connection,
  filter: TaskInstanceFilter,
  *,
  limit: int,
  cursor: UUID | None = None,
) -> list[TaskInstance]:
  """Read a page of task instances, newest first.

  Args:
    executor: where to read.
    filter: which ones.
    limit: how many at most.
    cursor: the id of the last one of the page before.
  """
  live: bool | None = filter.status in INSTANCE_LIVE
  if filter.status in (None, TaskInstanceStatus.LOST):
    live = None  # a lost one may still be waited for
  rows = await fetch_page(
    executor,
    _sql.query_instances,
    **criteria(filter),
    live=live,
    limit=limit,
    cursor=cursor,
  )
  return [from_row(TaskInstance, row) for row in rows]


async def update_instance(
  executor: Database | Connection,
  instance_id: InstanceId,
  change: TaskInstanceForUpdate,
) -> TaskInstance:
  """Note something on an attempt.

  Raises:
    NotFound: there is no such instance.
  """
  await executor.fetchrow(_sql.update_instance, id=instance_id, **changes(change))
  return await get_instance(executor, instance_id)


async def delete_instance(
  executor: Database | Connection, instance_id: InstanceId
) -> None:
  """Forget an attempt that has ended.

  Raises:
    NotFound: there is no such instance.
    Conflict: it is still under way.
  """
  row = await executor.fetchrow(_sql.delete_instance, id=instance_id)
  if row is None:
    instance = await get_instance(executor, instance_id)
    raise Conflict(f"an instance that is {instance.status} cannot be deleted")


async def request_kill(database: Database, instance_id: InstanceId) -> TaskInstance:
  """Have an attempt killed, without time to clean up, and its task cancelled with it.

  Raises:
    NotFound: there is no such instance.
    Conflict: it has ended, or there is a newer attempt.
  """
  asked = await database.fetchrow(_sql.request_kill, id=instance_id)
  instance = await get_instance(database, instance_id)
  if asked is None:
    raise Conflict(f"the instance has already ended: {instance.status}")
  return instance
