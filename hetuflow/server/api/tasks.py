"""``/tasks``."""

from collections.abc import Sequence
from datetime import datetime
from typing import cast
from uuid import UUID

import attrs
from quart import Blueprint, Response

from hetuflow.errors import ProtocolError
from hetuflow.protocol.model import (
  Task,
  TaskBatchForCreate,
  TaskFilter,
  TaskForCreate,
  TaskForUpdate,
  TaskId,
  UnsetType,
)
from hetuflow.server.api.exchange import answer, created, page, read_body, read_query
from hetuflow.server.api.once import create_once
from hetuflow.server.api.operation import operation
from hetuflow.server.api.services import services
from hetuflow.storage import tasks, transitions
from hetuflow.storage.connect import Database
from hetuflow.storage.rows import Executor

__all__ = ["blueprint", "check_time", "create_task", "revive"]

blueprint = Blueprint("tasks", __name__)

FIRST_YEAR = 1900
LAST_YEAR = 9998

_ITEM = "$.items[0]"


@attrs.frozen(kw_only=True)
class TaskIds:
  """The ids of new tasks, in the order of the items."""

  ids: list[UUID]


@blueprint.get("")
@operation(Task, filter=TaskFilter)
async def list_tasks() -> Response:
  """List tasks, newest first."""
  paging = read_query(TaskFilter)
  found = await tasks.query_tasks(
    services().database, paging.filter, limit=paging.limit + 1, cursor=paging.after
  )
  return page(found, paging.limit)


@blueprint.post("")
@operation(Task, status=201, body=TaskForCreate, once=True)
async def create_one() -> Response:
  """Make a task, due now or at ``scheduled_at``."""
  wish = await read_body(TaskForCreate)
  check_time("$.scheduled_at", wish.scheduled_at)
  made = await create_once(lambda executor: create_task(executor, wish))
  services().wake("tasks", made["namespace_id"])
  return created(made, f"tasks/{made['id']}")


@blueprint.post("/batch")
@operation(TaskIds, status=201, body=TaskBatchForCreate, once=True)
async def create_batch() -> Response:
  """Make many tasks; all are made or none."""
  batch = await read_body(TaskBatchForCreate)
  for position, item in enumerate(batch.items):
    check_time(f"$.items[{position}].scheduled_at", item.scheduled_at)
  made = await create_once(lambda executor: _create(executor, batch.items))
  return answer(made, 201)


def check_time(path: str, moment: datetime | None) -> None:
  """Refuse a moment at the edge of the calendar, where the driver sees infinity."""
  if moment is not None and not FIRST_YEAR <= moment.year <= LAST_YEAR:
    message = f"expected a time between the years {FIRST_YEAR} and {LAST_YEAR}"
    raise ProtocolError([(path, message)])


async def create_task(executor: Executor, wish: TaskForCreate) -> Task:
  """Make one task and read it.

  Raises:
    ProtocolError: there is no such job.
    Conflict: the job is disabled.
  """
  try:
    made = await _create(executor, [wish])
  except ProtocolError as error:
    issues = [(path.replace(_ITEM, "$"), message) for path, message in error.issues]
    raise ProtocolError(issues) from error
  return await tasks.get_task(executor, TaskId(made.ids[0]))


async def _create(executor: Executor, items: Sequence[TaskForCreate]) -> TaskIds:
  """Make tasks and return their ids."""
  # A connection can do all that create_tasks asks of a database: open a transaction.
  ids = await tasks.create_tasks(cast(Database, executor), items)
  return TaskIds(ids=list(ids))


@blueprint.get("/<uuid:task_id>")
@operation(Task)
async def get_task(task_id: UUID) -> Response:
  """Read a task."""
  return answer(await tasks.get_task(services().database, TaskId(task_id)))


@blueprint.patch("/<uuid:task_id>")
@operation(Task, body=TaskForUpdate)
async def update_task(task_id: UUID) -> Response:
  """Change a task that no agent has taken yet."""
  update = await read_body(TaskForUpdate)
  if not isinstance(update.scheduled_at, UnsetType):
    check_time("$.scheduled_at", update.scheduled_at)
  task = await tasks.update_task(services().database, TaskId(task_id), update)
  services().wake("tasks", task.namespace_id)
  return answer(task)


@blueprint.delete("/<uuid:task_id>")
@operation(Task, status=202)
async def delete_task(task_id: UUID) -> Response:
  """Cancel a task, as POST …/cancel does; it stays readable."""
  return await _cancel(task_id)


@blueprint.post("/<uuid:task_id>/cancel")
@operation(Task, status=202)
async def cancel_task(task_id: UUID) -> Response:
  """Cancel a task; one that an agent has ends when the agent says so."""
  return await _cancel(task_id)


async def _cancel(task_id: UUID) -> Response:
  """Ask for a cancel."""
  task = await transitions.request_cancel(services().database, TaskId(task_id))
  services().wake("cancels", task.namespace_id)
  return answer(task, 202)


@blueprint.post("/<uuid:task_id>/pause")
@operation(Task)
async def pause_task(task_id: UUID) -> Response:
  """Keep a waiting task from being taken."""
  return answer(await transitions.pause_task(services().database, TaskId(task_id)))


@blueprint.post("/<uuid:task_id>/resume")
@operation(Task)
async def resume_task(task_id: UUID) -> Response:
  """Let a paused task be taken again."""
  task = await transitions.resume_task(services().database, TaskId(task_id))
  services().wake("tasks", task.namespace_id)
  return answer(task)


@blueprint.post("/<uuid:task_id>/retry")
@operation(Task)
async def retry_task(task_id: UUID) -> Response:
  """Give a task that has ended one more attempt, now."""
  return answer(await revive(TaskId(task_id)))


async def revive(task_id: TaskId) -> Task:
  """Let a task that has ended run again, and hint."""
  task = await transitions.revive_task(services().database, task_id)
  services().wake("tasks", task.namespace_id)
  return task
