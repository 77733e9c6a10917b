"""The sessions of agents with one server, and what operators want of agents."""

from enum import StrEnum
from uuid import UUID

import attrs

from hetuflow.protocol.checks import length
from hetuflow.protocol.model.ids import AgentId, Instant, NamespaceId

__all__ = ["AgentOrder", "Broadcast", "Connection", "GatewayStatistics", "Ordered"]


class AgentOrder(StrEnum):
  """What operators may want of agents, wherever they are connected.

  ``drain`` lasts, over reconnects and restarts, until ``resume``. ``disconnect`` ends the
  session of now; ``shutdown`` the agent, once what it runs has ended.
  """

  DRAIN = "drain"
  RESUME = "resume"
  DISCONNECT = "disconnect"
  SHUTDOWN = "shutdown"


@attrs.frozen(kw_only=True)
class Connection:
  """One session of an agent with the server that was asked.

  ``run`` and ``hold`` are places that it has granted and not got tasks for; ``silence`` is
  how many seconds ago it gave its last sign of life, ``ack_ms`` how long it took to
  acknowledge the last batch of tasks. Bytes are those on the wire.

  Example:
    {"session_id": "0190a8b4-7c00-7000-8000-00000000000a",
     "agent_id": "0190a8b4-7c00-7000-8000-000000000005", "name": "web-1",
     "namespace_ids": ["default"], "epoch": 3, "compression": true, "draining": false,
     "connected_at": "2026-01-01T00:00:00Z", "silence": 1.5, "ack_ms": 2.5,
     "run": 4, "hold": 1000, "unacknowledged": 0, "waiting_frames": 0,
     "frames_received": 12, "frames_sent": 9, "bytes_received": 4096,
     "bytes_sent": 2048, "received": {"heartbeat_request": 10},
     "sent": {"heartbeat_response": 9}}
  """

  session_id: UUID
  agent_id: AgentId
  name: str
  namespace_ids: list[NamespaceId]
  epoch: int
  compression: bool
  draining: bool
  connected_at: Instant
  silence: float
  ack_ms: float | None
  run: int
  hold: int
  unacknowledged: int
  waiting_frames: int
  frames_received: int
  frames_sent: int
  bytes_received: int
  bytes_sent: int
  received: dict[str, int]
  sent: dict[str, int]


@attrs.frozen(kw_only=True)
class GatewayStatistics:
  """What has passed the agents' door of one server since it started.

  Example:
    {"connections": 1, "opened": 4, "refused": 0, "run": 4, "hold": 1000,
     "unacknowledged": 0, "waiting_frames": 0, "frames_received": 12, "frames_sent": 9,
     "bytes_received": 4096, "bytes_sent": 2048, "received": {"heartbeat_request": 10},
     "sent": {"heartbeat_response": 9}}
  """

  connections: int
  opened: int
  refused: int
  run: int
  hold: int
  unacknowledged: int
  waiting_frames: int
  frames_received: int
  frames_sent: int
  bytes_received: int
  bytes_sent: int
  received: dict[str, int]
  sent: dict[str, int]


@attrs.frozen(kw_only=True)
class Broadcast:
  """What is wanted of all agents, or of those of a namespace, or with some labels.

  Example:
    {"command": "drain", "namespace_id": "default", "labels": {"rack": "7"}}
  """

  command: AgentOrder
  namespace_id: NamespaceId | None = None
  labels: dict[str, str] = attrs.field(factory=dict, validator=length(0, 64))


@attrs.frozen(kw_only=True)
class Ordered:
  """How many agents a broadcast was for; each is told by the server it is connected to.

  Example:
    {"agents": 12}
  """

  agents: int
