"""``/gateway``: the sessions of agents with this server."""

from typing import Any

import attrs
from quart import Blueprint, Response

from hetuflow.server.api.exchange import answer
from hetuflow.server.api.operation import operation
from hetuflow.server.api.services import services

__all__ = ["blueprint"]

blueprint = Blueprint("gateway", __name__)


@attrs.frozen(kw_only=True)
class Connections:
  """All sessions of this server."""

  items: list[dict[str, Any]]
  next_cursor: str | None = None


@blueprint.get("/connections")
@operation(Connections)
async def list_connections() -> Response:
  """List the agents that are connected to this server."""
  return answer(Connections(items=services().gateway.connections()))


@blueprint.get("/stats")
@operation(dict[str, Any])
async def get_statistics() -> Response:
  """Read the counters of this server's gateway."""
  return answer(services().gateway.statistics())
