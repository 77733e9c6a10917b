"""The life of a session: registration, heartbeats, commands."""

from enum import StrEnum
from uuid import UUID

import attrs

from hetuflow.protocol.checks import at_least, length
from hetuflow.protocol.model import (
  AgentCapabilities,
  AgentId,
  AgentMetrics,
  InstanceId,
  Instant,
  NamespaceId,
  ServerId,
)

__all__ = [
  "PROTOCOL_VERSION",
  "AgentCommand",
  "AgentCommandKind",
  "AgentConfig",
  "AgentRegisterRequest",
  "AgentRegisterResponse",
  "HeartbeatRequest",
  "HeartbeatResponse",
  "HeldClaim",
]

PROTOCOL_VERSION = 1


class AgentCommandKind(StrEnum):
  """What a server may tell an agent to do."""

  CANCEL = "cancel"
  KILL = "kill"
  DRAIN = "drain"
  RESUME = "resume"
  SHUTDOWN = "shutdown"


@attrs.frozen(kw_only=True)
class HeldClaim:
  """A claim that the agent still has when it registers.

  Example:
    {"instance_id": "0190a8b4-7c00-7000-8000-000000000004", "namespace_id": "default",
     "claim_token": "0190a8b4-7c00-4000-8000-000000000007"}
  """

  instance_id: InstanceId
  namespace_id: NamespaceId
  claim_token: UUID


@attrs.frozen(kw_only=True)
class AgentRegisterRequest:
  """An agent introduces itself and says what it holds.

  ``epoch`` is higher at each start of the agent, ``session_number`` at each registration
  of one start. Of two sessions of one agent the one with the higher epoch, then with the
  higher number, wins; of equals the one that came last. An agent with many claims says
  it in several messages: all but the last have ``more``, what they hold adds up, and for
  the rest the last one counts.

  Example:
    {"protocol_version": 1, "agent_id": "0190a8b4-7c00-7000-8000-000000000005",
     "epoch": 3, "session_number": 1, "name": "web-1", "namespace_ids": ["default"],
     "version": "0.1.0", "labels": {"disk": "ssd"},
     "capabilities": {"executors": ["process"]}, "compression": true, "held": [],
     "more": false}
  """

  protocol_version: int
  agent_id: AgentId
  epoch: int = attrs.field(validator=at_least(1))
  name: str = attrs.field(validator=length(1, 255))
  namespace_ids: list[NamespaceId] = attrs.field(validator=length(1, 1_000))
  version: str = attrs.field(default="", validator=length(0, 64))
  labels: dict[str, str] = attrs.field(factory=dict, validator=length(0, 64))
  capabilities: AgentCapabilities = attrs.field(factory=AgentCapabilities)
  compression: bool = False
  held: list[HeldClaim] = attrs.field(factory=list)
  more: bool = False
  session_number: int = attrs.field(default=0, validator=at_least(0))


@attrs.frozen(kw_only=True)
class AgentConfig:
  """How the server wants to be spoken to; durations in seconds, sizes in bytes.

  Example:
    {"heartbeat_interval": 5.0, "session_lease": 30.0, "max_message_size": 8388608,
     "compression": false}
  """

  heartbeat_interval: float
  session_lease: float
  max_message_size: int
  compression: bool = False


@attrs.frozen(kw_only=True)
class AgentRegisterResponse:
  """The server takes the agent; ``superseded`` claims must be dropped or killed.

  Example:
    {"session_id": "0190a8b4-7c00-7000-8000-00000000000a",
     "server_id": "0190a8b4-7c00-7000-8000-000000000006",
     "server_time": "2026-01-01T00:00:00Z",
     "config": {"heartbeat_interval": 5.0, "session_lease": 30.0,
                "max_message_size": 8388608},
     "superseded": []}
  """

  session_id: UUID
  server_id: ServerId
  server_time: Instant
  config: AgentConfig
  superseded: list[InstanceId] = attrs.field(factory=list)


@attrs.frozen(kw_only=True)
class HeartbeatRequest:
  """The agent is alive; ``sent_at`` is its own monotonic clock and comes back as it is.

  Example:
    {"sent_at": 1234.5, "metrics": {"running": 2}, "clock_offset_ms": 0.3}
  """

  sent_at: float
  metrics: AgentMetrics = attrs.field(factory=AgentMetrics)
  clock_offset_ms: float | None = None
  capabilities: AgentCapabilities | None = None


@attrs.frozen(kw_only=True)
class HeartbeatResponse:
  """The session's lease runs ``session_lease`` seconds from when the request was sent.

  ``clock_error`` is by how many seconds ``server_time`` may be off the database's.

  Example:
    {"sent_at": 1234.5, "server_time": "2026-01-01T00:00:00Z", "session_lease": 30.0,
     "clock_error": 0.002}
  """

  sent_at: float
  server_time: Instant
  session_lease: float
  clock_error: float = attrs.field(default=0.0, validator=at_least(0))


@attrs.frozen(kw_only=True)
class AgentCommand:
  """The server asks the agent to do something with itself or with instances.

  Example:
    {"command": "cancel", "instance_ids": ["0190a8b4-7c00-7000-8000-000000000004"],
     "reason": "asked by a user"}
  """

  command: AgentCommandKind
  instance_ids: list[InstanceId] = attrs.field(factory=list)
  reason: str = ""
