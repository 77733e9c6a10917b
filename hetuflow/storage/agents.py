"""Agents: who may claim, until when, and what they have.

A session is the one live connection of an agent. ``register_agent`` opens it and brings
both sides to one view of the claims (state sync): what the server thinks the agent has
and it has not goes back to the queue at once.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from uuid import UUID

import attrs

from hetuflow.errors import Conflict, Refused, Unavailable
from hetuflow.protocol.messages import (
  AgentRegisterRequest,
  HeartbeatRequest,
  HeldClaim,
  TaskInstanceUpdate,
)
from hetuflow.protocol.model import (
  Agent,
  AgentFilter,
  AgentForCreate,
  AgentForUpdate,
  AgentId,
  InstanceId,
  NamespaceId,
  ServerId,
  UnsetType,
)
from hetuflow.protocol.states import AgentStatus, TaskInstanceStatus
from hetuflow.storage.connect import Connection, Database, Record
from hetuflow.storage.failures import repeatable
from hetuflow.storage.rows import criteria, found, from_row
from hetuflow.storage.sql import load_queries
from hetuflow.storage.transitions import record_updates

__all__ = [
  "Heartbeat",
  "Registration",
  "Renewal",
  "close_session",
  "create_agent",
  "delete_agent",
  "get_agent",
  "list_cancels",
  "query_agents",
  "register_agent",
  "renew_sessions",
  "update_agent",
]

_sql = load_queries("agents")

ALL_NAMESPACES = NamespaceId("*")
"""In a token: every namespace."""

RELEASE_LIMIT = 1_000
"""Claims given back in one statement, which has little time."""
REGISTER_TRIES = 3
"""How often a registration is tried at once that others got in the way of."""


@attrs.frozen(kw_only=True)
class Registration:
  """A session that was opened: when, with which labels, and which claims must go."""

  server_time: datetime
  labels: dict[str, str]
  superseded: list[InstanceId]
  released: int


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
  """A session that is the live one: its agent's labels, and whether its token is good."""

  labels: dict[str, str]
  admitted: bool


async def register_agent(
  database: Database,
  request: AgentRegisterRequest,
  *,
  session_id: UUID,
  server_id: ServerId,
  lease: float,
  allowed: Sequence[NamespaceId] = (ALL_NAMESPACES,),
) -> Registration:
  """Open a session and settle who has which claim, in one transaction.

  Args:
    database: where to write.
    request: what the agent says of itself and holds.
    session_id: of the connection.
    server_id: of this server.
    lease: how long the session is good for without a heartbeat, in seconds.
    allowed: the namespaces that its token is good for; an agent of others is not taken
      over, whoever knows its id.

  Raises:
    Refused: a namespace does not exist, the agent has been started or has registered
      again since, or is of a namespace that is not allowed.
    Unavailable: the database is away.
  """
  opening = partial(
    _register_once, database, request, session_id, server_id, lease, allowed
  )
  # A report of the session before may end what is being settled here.
  for _ in range(REGISTER_TRIES - 1):
    try:
      return await opening()
    except Unavailable as error:
      if not repeatable(error):
        raise
  return await opening()


async def _register_once(
  database: Database,
  request: AgentRegisterRequest,
  session_id: UUID,
  server_id: ServerId,
  lease: float,
  allowed: Sequence[NamespaceId],
) -> Registration:
  """Open a session unless others change the claims of the agent meanwhile."""
  async with database.transaction() as connection:
    missing = await connection.fetch(
      _sql.find_missing_namespaces, namespace_ids=request.namespace_ids
    )
    if missing:
      names = ", ".join(row["name"] for row in missing)
      raise Refused(f"there is no namespace {names}", code="unknown_namespace")
    row = await connection.fetchrow(
      _sql.register_agent,
      id=request.agent_id,
      namespace_ids=request.namespace_ids,
      name=request.name,
      labels=request.labels,
      capabilities=request.capabilities,
      version=request.version,
      epoch=request.epoch,
      session_number=request.session_number,
      session_id=session_id,
      server_id=server_id,
      lease=lease,
      allowed=list(allowed),
    )
    if row is None:
      raise await _reason(connection, request.agent_id, allowed)
    claims = await connection.fetch(_sql.list_claims, agent_id=request.agent_id)
    released = await _release_unheld(connection, claims, request.held)
  return Registration(
    server_time=row["server_time"],
    labels=row["labels"],
    superseded=_superseded(claims, request.held),
    released=released,
  )


async def _reason(
  connection: Connection, id: AgentId, allowed: Sequence[NamespaceId]
) -> Refused:
  """Say why an agent was not let in."""
  if ALL_NAMESPACES not in allowed:
    forbidden = await connection.fetch(
      _sql.find_forbidden_namespaces, id=id, allowed=list(allowed)
    )
    if forbidden:
      names = ", ".join(row["name"] for row in forbidden)
      return Refused(
        f"this agent is known in namespace {names}, which the token is not good for;"
        " use a token for both, or another data folder",
        code="forbidden_namespace",
      )
  return Refused(
    "a later start or session of this agent has registered", code="superseded"
  )


def _superseded(
  claims: Sequence[Record], held: Sequence[HeldClaim]
) -> list[InstanceId]:
  """Find what the agent holds by a claim that is not, or no longer, its own."""
  current = {(row["id"], row["claim_token"]) for row in claims}
  return [
    claim.instance_id
    for claim in held
    if (claim.instance_id, claim.claim_token) not in current
  ]


async def _release_unheld(
  connection: Connection, claims: Sequence[Record], held: Sequence[HeldClaim]
) -> int:
  """Send back to the queue what the agent does not have; what it had begun is lost."""
  kept = {claim.instance_id for claim in held}
  by_namespace: dict[NamespaceId, list[TaskInstanceUpdate]] = {}
  for row in claims:
    if row["id"] in kept:
      continue
    begun = row["status"] == TaskInstanceStatus.RUNNING
    update = TaskInstanceUpdate(
      instance_id=row["id"],
      namespace_id=row["namespace_id"],
      claim_token=row["claim_token"],
      status=TaskInstanceStatus.LOST if begun else TaskInstanceStatus.RELEASED,
      reason="the agent does not have it",
    )
    by_namespace.setdefault(row["namespace_id"], []).append(update)
  for namespace_id, updates in by_namespace.items():
    for start in range(0, len(updates), RELEASE_LIMIT):
      part = updates[start : start + RELEASE_LIMIT]
      await record_updates(connection, namespace_id, part)
  return sum(map(len, by_namespace.values()))


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
    row["session_id"]: Renewal(labels=row["labels"], admitted=row["admitted"])
    for row in rows
  }


async def close_session(
  executor: Database | Connection, agent_id: AgentId, session_id: UUID
) -> None:
  """Mark an agent as not connected, if this session is its live one."""
  await executor.fetchrow(_sql.close_session, id=agent_id, session_id=session_id)


async def list_cancels(
  executor: Database | Connection, agent_ids: Sequence[AgentId]
) -> dict[AgentId, list[InstanceId]]:
  """Find what these agents should be told to cancel."""
  rows = await executor.fetch(_sql.list_cancels, agent_ids=agent_ids)
  cancels: dict[AgentId, list[InstanceId]] = {}
  for row in rows:
    cancels.setdefault(AgentId(row["agent_id"]), []).append(InstanceId(row["id"]))
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
