"""Registration: who may claim from now on, and one view of what it has.

``register_agent`` opens an agent's session, the one live connection it has, and brings
both sides to one view of the claims (state sync): what the server thinks the agent has
and it has not goes back to the queue at once; what was given up as lost and is still there
is taken up again, unless somebody else has it by now.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import attrs

from hetuflow.errors import Refused
from hetuflow.protocol.messages import (
  AckOutcome,
  AgentRegisterRequest,
  HeldClaim,
  TaskInstanceUpdate,
)
from hetuflow.protocol.model import AgentId, InstanceId, NamespaceId, ServerId
from hetuflow.protocol.model.ids import ALL_NAMESPACES
from hetuflow.protocol.states import TaskInstanceStatus
from hetuflow.storage.connect import Connection, Database, Record
from hetuflow.storage.rows import repeated
from hetuflow.storage.sql import load_queries
from hetuflow.storage.transitions import record_updates

__all__ = ["Registration", "register_agent"]

_sql = load_queries("registration")

RECORD_LIMIT = 1_000
"""Claims settled in one statement, which has little time."""
STALE = AckOutcome.STALE


@attrs.frozen(kw_only=True)
class Registration:
  """A session that was opened: when, with which labels, and what became of its claims.

  ``superseded`` must go, so many were ``released``, and ``found`` again after a loss.
  ``drained`` is that operators want the agent to take nothing new.
  """

  server_time: datetime
  labels: dict[str, str]
  superseded: list[InstanceId]
  released: int
  found: int = 0
  drained: bool = False


@repeated  # a report of the session before may end what is being settled here
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
    held = {claim.instance_id for claim in request.held}
    current = [row for row in claims if row["current"]]
    unheld = [_unheld(row) for row in current if row["id"] not in held]
    found = [_found(row) for row in current if row["lost"] and row["id"] in held]
    await _record(connection, unheld)
    gone = await _record(connection, found)
  return Registration(
    server_time=row["server_time"],
    labels=row["labels"],
    superseded=_superseded(
      [row for row in current if row["id"] not in gone], request.held
    ),
    released=len(unheld),
    found=len(found) - len(gone),
    drained=row["drained"],
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


def _unheld(row: Record) -> TaskInstanceUpdate:
  """Say of a claim that the agent does not have it; what it had begun is lost."""
  return TaskInstanceUpdate(
    instance_id=row["id"],
    namespace_id=row["namespace_id"],
    claim_token=row["claim_token"],
    status=TaskInstanceStatus.LOST if row["begun"] else TaskInstanceStatus.RELEASED,
    reason="the agent does not have it",
  )


def _found(row: Record) -> TaskInstanceUpdate:
  """Say of a lost claim that the agent has it after all."""
  return TaskInstanceUpdate(
    instance_id=row["id"],
    namespace_id=row["namespace_id"],
    claim_token=row["claim_token"],
    status=(
      TaskInstanceStatus.RUNNING if row["begun"] else TaskInstanceStatus.DISPATCHED
    ),
  )


async def _record(
  connection: Connection, updates: Sequence[TaskInstanceUpdate]
) -> set[InstanceId]:
  """Write what was settled; return of which instances it is not true any more."""
  by_namespace: dict[NamespaceId, list[TaskInstanceUpdate]] = {}
  for update in updates:
    by_namespace.setdefault(update.namespace_id, []).append(update)
  stale: set[InstanceId] = set()
  for namespace_id, those in by_namespace.items():
    for start in range(0, len(those), RECORD_LIMIT):
      part = those[start : start + RECORD_LIMIT]
      outcomes = await record_updates(connection, namespace_id, part)
      stale |= {InstanceId(id) for id, outcome in outcomes.items() if outcome is STALE}
  return stale
