"""Agents: until when their sessions are good, and what operators do with them.

A session is the one live connection of an agent; ``registration`` opens it.
"""

from collections.abc import Mapping, Sequence
from uuid import UUID

import attrs

from hetuflow.errors import Conflict
from hetuflow.protocol.messages import HeartbeatRequest
from hetuflow.protocol.model import (
  Agent,
  AgentFilter,
  AgentForCreate,
  AgentForUpdate,
  AgentId,
  InstanceId,
  UnsetType,
)
from hetuflow.protocol.states import AgentStatus
from hetuflow.storage.connect import Connection, Database
from hetuflow.storage.orders import Order
from hetuflow.storage.rows import criteria, found, from_row
from hetuflow.storage.sql import load_queries

__all__ = [
  "Cancel",
  "Heartbeat",
  "Renewal",
  "close_session",
  "create_agent",
  "delete_agent",
  "find_expired",
  "forget_agents",
  "get_agent",
  "list_cancels",
  "query_agents",
  "renew_sessions",
  "update_agent",
]

_sql = load_queries("agents")


@attrs.frozen(kw_only=True)
class Heartbeat:
  """What one session, let in by a token, has to say in a batch of renewals."""

  agent_id: AgentId
  session_id: UUID
  token_id: UUID | None = None
  status: AgentStatus
  request: HeartbeatRequest


@attrs.frozen(kw_only=True)
class Renewal:
  """A session that is the live one: its agent's labels, and whether its token is good.

  ``order`` is what operators want of the agent.
  """

  labels: dict[str, str]
  admitted: bool
  order: Order


@attrs.frozen(kw_only=True)
class Cancel:
  """An attempt that is to end; to be killed, where it gets no time to clean up."""

  instance_id: InstanceId
  kill: bool = False


async def renew_sessions(
  executor: Database | Connection, heartbeats: Sequence[Heartbeat], *, lease: float
) -> dict[UUID, Renewal]:
  """Write many heartbeats in one statement.

  Args:
    executor: where to write.
    heartbeats: at most one per session.
    lease: seconds for which each session is good from now.

  Returns:
    The sessions that are still the live ones of their agents, each with what is known of
    it by now.
  """
  heartbeats = sorted(heartbeats, key=lambda beat: beat.agent_id)
  rows = await executor.fetch(
    _sql.renew_sessions,
    ids=[beat.agent_id for beat in heartbeats],
    sessions=[beat.session_id for beat in heartbeats],
    statuses=[beat.status for beat in heartbeats],
    metrics=[beat.request.metrics for beat in heartbeats],
    clock_offsets=[beat.request.clock_offset_ms for beat in heartbeats],
    capabilities=[beat.request.capabilities for beat in heartbeats],
    tokens=[beat.token_id for beat in heartbeats],
    lease=lease,
  )
  return {
    row["session_id"]: Renewal(
      labels=row["labels"],
      admitted=row["admitted"],
      order=Order(drained=row["drained"], kind=row["order_kind"]),
    )
    for row in rows
  }


async def find_expired(
  executor: Database | Connection, sessions: Mapping[UUID, AgentId]
) -> set[UUID]:
  """Of sessions that are not live any more, find those that no other has replaced.

  Args:
    executor: where to read.
    sessions: with the agents that they are of.
  """
  rows = await executor.fetch(
    _sql.find_expired, ids=list(sessions.values()), sessions=list(sessions)
  )
  return {row["session_id"] for row in rows}


async def close_session(
  executor: Database | Connection, agent_id: AgentId, session_id: UUID
) -> None:
  """Mark an agent as not connected, if this session is its live one."""
  await executor.fetchrow(_sql.close_session, id=agent_id, session_id=session_id)


async def list_cancels(
  executor: Database | Connection, agent_ids: Sequence[AgentId]
) -> dict[AgentId, list[Cancel]]:
  """Find what these agents should be told to cancel or kill."""
  rows = await executor.fetch(_sql.list_cancels, agent_ids=agent_ids)
  cancels: dict[AgentId, list[Cancel]] = {}
  for row in rows:
    cancel = Cancel(instance_id=InstanceId(row["id"]), kill=row["kill"])
    cancels.setdefault(AgentId(row["agent_id"]), []).append(cancel)
  return cancels


async def create_agent(executor: Database | Connection, agent: AgentForCreate) -> Agent:
  """Make an agent that has not connected yet.

  Raises:
    Conflict: there is one with this id.
  """
  await executor.fetch(
    _sql.create_agent,
    id=agent.id,
    namespace_ids=agent.namespace_ids,
    name=agent.name,
    labels=agent.labels,
    capabilities=agent.capabilities,
    version=agent.version,
  )
  return await get_agent(executor, agent.id)


async def get_agent(executor: Database | Connection, agent_id: AgentId) -> Agent:
  """Read one agent.

  Raises:
    NotFound: there is no such agent.
  """
  row = await executor.fetchrow(_sql.get_agent, id=agent_id)
  return from_row(Agent, found(row, "agent", agent_id))


async def query_agents(
  executor: Database | Connection,
  filter: AgentFilter,
  *,
  limit: int,
  cursor: UUID | None = None,
) -> list[Agent]:
  """Read a page of agents, newest first.

  Args:
    executor: where to read.
    filter: which ones.
    limit: how many at most.
    cursor: the id of the last one of the page before.
  """
  rows = await executor.fetch(
    _sql.query_agents, **criteria(filter), limit=limit, cursor=cursor
  )
  return [from_row(Agent, row) for row in rows]


async def update_agent(
  executor: Database | Connection, agent_id: AgentId, change: AgentForUpdate
) -> Agent:
  """Change what an operator may say of an agent.

  Raises:
    NotFound: there is no such agent.
  """
  await executor.fetchrow(
    _sql.update_agent,
    id=agent_id,
    name=None if isinstance(change.name, UnsetType) else change.name,
    labels=None if isinstance(change.labels, UnsetType) else change.labels,
  )
  return await get_agent(executor, agent_id)


async def delete_agent(executor: Database | Connection, agent_id: AgentId) -> None:
  """Forget an agent.

  Raises:
    NotFound: there is no such agent.
    Conflict: it is connected, or has claims.
  """
  row = await executor.fetchrow(_sql.delete_agent, id=agent_id)
  if row is None:
    agent = await get_agent(executor, agent_id)
    raise Conflict(f"the agent {agent.name} is connected or has work under way")


async def forget_agents(database: Database, *, days: int, limit: int) -> int:
  """Remove agents that have been gone for so many days; return how many were.

  Args:
    database: where.
    days: since their lease ended and anything was changed of them.
    limit: how many at most; those with work under way stay, and are not counted.
  """
  count: int = await database.fetchval(_sql.delete_gone, days=days, limit=limit)
  return count
