"""``/agents``."""

from uuid import UUID

from quart import Blueprint, Response

from hetuflow.errors import Conflict
from hetuflow.protocol.model import Agent, AgentFilter, AgentForUpdate, AgentId
from hetuflow.server.api.exchange import answer, page, read_body, read_query
from hetuflow.server.api.operation import operation
from hetuflow.server.api.services import services
from hetuflow.storage import agents

__all__ = ["blueprint"]

blueprint = Blueprint("agents", __name__)

_KICKED = "disconnected by an operator"


@blueprint.get("")
@operation(Agent, filter=AgentFilter)
async def list_agents() -> Response:
  """List agents, newest first."""
  paging = read_query(AgentFilter)
  found = await agents.query_agents(
    services().database, paging.filter, limit=paging.limit + 1, cursor=paging.after
  )
  return page(found, paging.limit)


@blueprint.get("/<uuid:agent_id>")
@operation(Agent)
async def get_agent(agent_id: UUID) -> Response:
  """Read an agent."""
  return answer(await agents.get_agent(services().database, AgentId(agent_id)))


@blueprint.patch("/<uuid:agent_id>")
@operation(Agent, body=AgentForUpdate)
async def update_agent(agent_id: UUID) -> Response:
  """Change what an operator may say of an agent."""
  update = await read_body(AgentForUpdate)
  database = services().database
  return answer(await agents.update_agent(database, AgentId(agent_id), update))


@blueprint.post("/<uuid:agent_id>/disconnect")
@operation(Agent, status=202)
async def disconnect_agent(agent_id: UUID) -> Response:
  """End the session of an agent that is connected to this server."""
  agent = await agents.get_agent(services().database, AgentId(agent_id))
  if not services().gateway.disconnect(agent.id, _KICKED):
    raise Conflict(f"the agent {agent.name!r} is not connected to this server")
  return answer(agent, 202)
