"""``/tasks``."""

from collections.abc import Sequence
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
)
from hetuflow.server.api import explain
from hetuflow.server.api.exchange import answer, created, page, read_body, read_query
from hetuflow.server.api.once import create_once
from hetuflow.server.api.operation import operation
from hetuflow.server.api.services import services
from hetuflow.storage import tasks, transitions
from hetuflow.storage.rows import Executor

__all__ = ["blueprint", "create_task", "revive"]

blueprint = Blueprint("tasks", __name__)
blueprint.get("/<uuid:task_id>/explain")(explain.explain_one)

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
  made = await create_once(lambda executor: create_task(executor, wish))
  services().wake("tasks", made["namespace_id"])
  return created(made, f"tasks/{made['id']}")


@blueprint.post("/batch")
@operation(TaskIds, status=201, body=TaskBatchForCreate, once=True)
async def create_batch() -> Response:
  """Make many tasks; all are made or none."""
  batch = await read_body(TaskBatchForCreate)
  made = await create_once(lambda executor: _create(executor, batch.items))
  return answer(made, 201)


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
  ids = await tasks.create_tasks(executor, items)
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
