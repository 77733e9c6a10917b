"""``/gateway``: the sessions of agents with this server, and orders for agents of all."""

import attrs
from quart import Blueprint, Response

from hetuflow.protocol.model import Broadcast, Connection, GatewayStatistics, Ordered
from hetuflow.server.api.exchange import answer, read_body
from hetuflow.server.api.operation import operation
from hetuflow.server.api.services import services
from hetuflow.storage.orders import order_agents

__all__ = ["blueprint"]

blueprint = Blueprint("gateway", __name__)


@attrs.frozen(kw_only=True)
class Connections:
  """All sessions of this server."""

  items: list[Connection]
  next_cursor: str | None = None


@blueprint.get("/connections")
@operation(Connections)
async def list_connections() -> Response:
  """List the agents that are connected to this server."""
  return answer(Connections(items=services().gateway.connections()))


@blueprint.get("/stats")
@operation(GatewayStatistics)
async def get_statistics() -> Response:
  """Read the counters of this server's gateway."""
  return answer(services().gateway.statistics())


@blueprint.post("/broadcast")
@operation(Ordered, status=202, body=Broadcast)
async def broadcast() -> Response:
  """Tell all agents, or some, what they are to do, whatever server they are connected to."""
  wish = await read_body(Broadcast)
  count = await order_agents(
    services().database,
    wish.command,
    namespace_id=wish.namespace_id,
    labels=wish.labels,
  )
  services().wake("agents", "")
  return answer(Ordered(agents=count), 202)
