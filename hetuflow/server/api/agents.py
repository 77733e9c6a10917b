"""``/agents``."""

from uuid import UUID

from quart import Blueprint, Response

from hetuflow.errors import Conflict
from hetuflow.protocol.model import (
  Agent,
  AgentFilter,
  AgentForUpdate,
  AgentId,
  AgentOrder,
)
from hetuflow.server.api.exchange import answer, page, read_body, read_query
from hetuflow.server.api.operation import operation
from hetuflow.server.api.services import services
from hetuflow.storage import agents
from hetuflow.storage.orders import order_agents

__all__ = ["blueprint"]

blueprint = Blueprint("agents", __name__)


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


@blueprint.post("/<uuid:agent_id>/drain")
@operation(Agent)
async def drain_agent(agent_id: UUID) -> Response:
  """Let an agent finish what it has and take nothing new, until it is resumed."""
  return answer(await _order(agent_id, AgentOrder.DRAIN))


@blueprint.post("/<uuid:agent_id>/resume")
@operation(Agent)
async def resume_agent(agent_id: UUID) -> Response:
  """Let a drained agent take work again."""
  return answer(await _order(agent_id, AgentOrder.RESUME))


@blueprint.post("/<uuid:agent_id>/disconnect")
@operation(Agent, status=202)
async def disconnect_agent(agent_id: UUID) -> Response:
  """End the session of an agent, whatever server it is connected to."""
  return answer(await _order(agent_id, AgentOrder.DISCONNECT), 202)


async def _order(agent_id: UUID, order: AgentOrder) -> Agent:
  """Say what is wanted of an agent, and read it."""
  database = services().database
  agent = await agents.get_agent(database, AgentId(agent_id))
  if not await order_agents(database, order, agent_ids=[agent.id]):
    raise Conflict(f"the agent {agent.name!r} is not connected")
  services().wake("agents", "")
  return await agents.get_agent(database, agent.id)
