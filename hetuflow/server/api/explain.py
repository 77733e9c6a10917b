"""``/tasks/{id}/explain``."""

from uuid import UUID

from quart import Response

from hetuflow.protocol.model import Explanation, TaskId
from hetuflow.server.api.exchange import answer
from hetuflow.server.api.operation import operation
from hetuflow.server.api.services import services
from hetuflow.server.explaining import explain_task

__all__ = ["explain_one"]


@operation(Explanation)
async def explain_one(task_id: UUID) -> Response:
  """Say why a task is not running, why it runs, or why it ended so."""
  free = {each.agent_id: each.run for each in services().gateway.connections()}
  return answer(await explain_task(services().database, TaskId(task_id), free=free))
