"""The sessions of agents, and what operators want of agents."""

from typing import Any
from uuid import UUID

from hetuflow.client.call import Call, Page, get, listing, post
from hetuflow.protocol.model import (
  Agent,
  Broadcast,
  Connection,
  GatewayStatistics,
  Ordered,
)

__all__ = [
  "broadcast",
  "disconnect_agent",
  "drain_agent",
  "get_gateway_statistics",
  "list_connections",
  "resume_agent",
]


def list_connections() -> Call[Page[Connection]]:
  """Describe the list of the agents that are connected to the server that is asked."""
  return listing(Connection, "gateway", "connections", query={})


def get_gateway_statistics() -> Call[GatewayStatistics]:
  """Describe the reading of what has passed the door of the server that is asked."""
  return get(GatewayStatistics, "gateway", "stats")


def broadcast(order: Broadcast | dict[str, Any]) -> Call[Ordered]:
  """Describe what all agents, or some, are to do."""
  return post(Ordered, "gateway", "broadcast", body=order)


def drain_agent(agent_id: UUID) -> Call[Agent]:
  """Describe that an agent is to take nothing new until it is resumed."""
  return post(Agent, "agents", agent_id, "drain")


def resume_agent(agent_id: UUID) -> Call[Agent]:
  """Describe that a drained agent is to take work again."""
  return post(Agent, "agents", agent_id, "resume")


def disconnect_agent(agent_id: UUID) -> Call[Agent]:
  """Describe that the session of an agent is to end; it connects anew."""
  return post(Agent, "agents", agent_id, "disconnect")
