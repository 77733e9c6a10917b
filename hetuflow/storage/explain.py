"""What is known of one task, read to say why it is as it is.

Read one after the other and without a lock: what is told was so a moment ago.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import attrs

from hetuflow.protocol.model import (
  AgentId,
  InstanceId,
  JobId,
  JsonObject,
  NamespaceId,
  ServerId,
  Task,
  TaskId,
)
from hetuflow.protocol.states import (
  AgentStatus,
  JobStatus,
  OverlapPolicy,
  TaskInstanceStatus,
  TaskStatus,
)
from hetuflow.storage.rows import Executor, found, from_row
from hetuflow.storage.sql import load_queries

__all__ = [
  "AgentFact",
  "Attempt",
  "Child",
  "Circumstances",
  "Holder",
  "Place",
  "find_circumstances",
  "list_agents",
  "list_attempts",
  "list_children",
  "list_holders",
  "read_place",
]

_sql = load_queries("explain")

COUNTED = 10_000
"""How far places in a queue, and places that are taken, are counted."""
SHOWN = 20
"""How many holders, agents, attempts and parts are shown of more."""


@attrs.frozen(kw_only=True)
class Circumstances:
  """A task with what decides over it; ``now`` is when it was read."""

  task: Task
  now: datetime
  lane: str | None
  rank_at: datetime
  route_id: int
  lost_attempts: int
  job_name: str
  job_status: JobStatus
  overlap: OverlapPolicy
  max_concurrent: int | None
  concurrency_key: str | None
  rate_count: int | None
  rate_seconds: float | None
  arrival_at: datetime | None
  selector: JsonObject | None
  lead: float
  max_running: int | None
  schedule_name: str | None
  jitter_seconds: float | None
  server_id: ServerId | None
  server_name: str | None
  server_seen_at: datetime | None
  server_alive: bool


@attrs.frozen(kw_only=True)
class Attempt:
  """One attempt of a task, with what is known of its agent by now."""

  id: InstanceId
  attempt: int
  status: TaskInstanceStatus
  reason: str | None
  exit_code: int | None
  error_message: str | None
  due_at: datetime
  dispatched_at: datetime
  started_at: datetime | None
  start_error_ms: float | None
  completed_at: datetime | None
  agent_id: AgentId
  agent_name: str | None
  connected: bool
  lease_until: datetime | None
  last_heartbeat_at: datetime | None
  clock_offset_ms: float | None


@attrs.frozen(kw_only=True)
class Place:
  """How many come before a task, and how many places are taken; none beyond 10,000.

  ``blocked`` and ``holders`` are those of its lane, ``claimable`` those of its route,
  ``running`` all of its namespace that a limit concerns.
  """

  blocked: int
  claimable: int
  holders: int
  running: int


@attrs.frozen(kw_only=True)
class Holder:
  """A task that holds a place; the agent is that of its attempt, if there is one."""

  task_id: TaskId
  job_id: JobId
  status: TaskStatus
  since: datetime
  instance_id: InstanceId | None
  agent_id: AgentId | None
  agent_name: str | None
  started_at: datetime | None


@attrs.frozen(kw_only=True)
class AgentFact:
  """An agent and what it lacks of what a task asks for.

  ``agents`` is how many there are in the namespace; ``serving`` how many lack nothing and
  are connected, ``slots`` how many attempts those take at a time.
  """

  id: AgentId
  name: str
  server_id: ServerId | None
  last_heartbeat_at: datetime | None
  status: AgentStatus
  running: int
  max_concurrent: int
  lacks_executor: bool
  lacks_function: bool
  lacks_identity: bool
  lacks_labels: list[str]
  lacking: int
  agents: int
  serving: int
  slots: int | None


@attrs.frozen(kw_only=True)
class Child:
  """The part of one agent of a broadcast; ``live`` of all ``children`` go on."""

  id: TaskId
  status: TaskStatus
  reason: str | None
  completed_at: datetime | None
  agent_id: AgentId | None
  agent_name: str | None
  children: int
  live: int


async def find_circumstances(executor: Executor, task_id: TaskId) -> Circumstances:
  """Read a task with what decides over it.

  Raises:
    NotFound: there is no such task.
  """
  row = await executor.fetchrow(_sql.find_circumstances, id=task_id)
  row = found(row, "task", task_id)
  return from_row(Circumstances, row, task=dict(row))


async def list_attempts(executor: Executor, task_id: TaskId) -> list[Attempt]:
  """Read the last attempts of a task, the newest first."""
  rows = await executor.fetch(_sql.list_attempts, task_id=task_id, limit=SHOWN)
  return [from_row(Attempt, row) for row in rows]


async def read_place(executor: Executor, facts: Circumstances) -> Place:
  """Count who comes before a task, and who holds the places it may wait for."""
  row = await executor.fetchrow(
    _sql.count_ahead,
    namespace_id=facts.task.namespace_id,
    lane=facts.lane,
    route_id=facts.route_id,
    rank_at=facts.rank_at,
    limit=COUNTED,
  )
  return from_row(Place, found(row, "task", facts.task.id))


async def list_holders(
  executor: Executor, namespace_id: NamespaceId, lane: str | None
) -> list[Holder]:
  """Read who holds places, those first that have had them for longest.

  Args:
    executor: where to read.
    namespace_id: of which namespace.
    lane: of which lane; None means of all.
  """
  rows = await executor.fetch(
    _sql.list_holders, namespace_id=namespace_id, lane=lane, limit=SHOWN
  )
  return [from_row(Holder, row) for row in rows]


async def list_agents(
  executor: Executor, namespace_id: NamespaceId, selector: JsonObject
) -> Sequence[AgentFact]:
  """Read the agents that come nearest to what a selector asks for, the nearest first."""
  rows = await executor.fetch(
    _sql.list_agents, namespace_id=namespace_id, selector=selector, limit=SHOWN
  )
  return [from_row(AgentFact, row) for row in rows]


async def list_children(executor: Executor, task_id: UUID) -> list[Child]:
  """Read the parts of a broadcast, those that go on first."""
  rows = await executor.fetch(
    _sql.list_children, task_id=task_id, limit=COUNTED, shown=SHOWN
  )
  return [from_row(Child, row) for row in rows]
