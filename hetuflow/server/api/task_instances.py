"""``/task-instances``."""

from uuid import UUID

from quart import Blueprint, Response

from hetuflow.protocol.model import (
  InstanceId,
  Task,
  TaskInstance,
  TaskInstanceFilter,
)
from hetuflow.server.api import logs
from hetuflow.server.api.exchange import answer, page, read_query
from hetuflow.server.api.operation import operation
from hetuflow.server.api.services import services
from hetuflow.server.api.tasks import revive
from hetuflow.storage import instances

__all__ = ["blueprint"]

blueprint = Blueprint("task-instances", __name__)
blueprint.get("/<uuid:instance_id>/logs")(logs.read_logs)


@blueprint.get("")
@operation(TaskInstance, filter=TaskInstanceFilter)
async def list_instances() -> Response:
  """List task instances, newest first."""
  paging = read_query(TaskInstanceFilter)
  found = await instances.query_instances(
    services().database, paging.filter, limit=paging.limit + 1, cursor=paging.after
  )
  return page(found, paging.limit)


@blueprint.get("/<uuid:instance_id>")
@operation(TaskInstance)
async def get_instance(instance_id: UUID) -> Response:
  """Read a task instance."""
  database = services().database
  return answer(await instances.get_instance(database, InstanceId(instance_id)))


@blueprint.post("/<uuid:instance_id>/kill")
@operation(TaskInstance, status=202)
async def kill_instance(instance_id: UUID) -> Response:
  """Kill what runs, without time to clean up, and cancel its task.

  It has ended when the agent says so, or its lease is over.
  """
  database = services().database
  instance = await instances.request_kill(database, InstanceId(instance_id))
  services().wake("cancels", instance.namespace_id)
  return answer(instance, 202)


@blueprint.post("/<uuid:instance_id>/retry")
@operation(Task)
async def retry_instance(instance_id: UUID) -> Response:
  """Give the task of an instance one more attempt, now."""
  database = services().database
  instance = await instances.get_instance(database, InstanceId(instance_id))
  return answer(await revive(instance.task_id))
