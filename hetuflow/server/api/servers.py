"""``/servers``."""

from uuid import UUID

from quart import Blueprint, Response

from hetuflow.protocol.model import Server, ServerFilter
from hetuflow.server.api.exchange import answer, page, read_query
from hetuflow.server.api.operation import operation
from hetuflow.server.api.services import services
from hetuflow.storage import servers

__all__ = ["blueprint"]

blueprint = Blueprint("servers", __name__)


@blueprint.get("")
@operation(Server, filter=ServerFilter)
async def list_servers() -> Response:
  """List servers, the last started first."""
  paging = read_query(ServerFilter)
  found = await servers.query_servers(
    services().database, paging.filter, limit=paging.limit + 1, cursor=paging.after
  )
  return page(found, paging.limit)


@blueprint.get("/<uuid:server_id>")
@operation(Server)
async def get_server(server_id: UUID) -> Response:
  """Read a server."""
  return answer(await servers.get_server(services().database, server_id))
