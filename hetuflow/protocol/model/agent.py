"""Agents and servers: the programs that run and that plan."""

import attrs

from hetuflow.protocol.checks import at_least, between, length
from hetuflow.protocol.model.ids import (
  UNSET,
  AgentId,
  Instant,
  NamespaceId,
  ServerId,
  UnsetType,
)
from hetuflow.protocol.states import AgentStatus

__all__ = [
  "Agent",
  "AgentCapabilities",
  "AgentFilter",
  "AgentForCreate",
  "AgentForUpdate",
  "AgentMetrics",
  "Server",
  "ServerFilter",
  "ServerForCreate",
  "ServerForUpdate",
]


@attrs.frozen(kw_only=True)
class AgentCapabilities:
  """What an agent can do.

  Example:
    {"executors": ["process", "shell", "python"], "functions": ["hetuflow.noop"],
     "max_concurrent": 16, "hold": 1000, "cpus": 4, "memory_mb": 16000.0}
  """

  executors: list[str] = attrs.field(factory=list, validator=length(0, 64))
  functions: list[str] = attrs.field(factory=list, validator=length(0, 10_000))
  max_concurrent: int = attrs.field(default=1, validator=at_least(1))
  hold: int = attrs.field(default=1_000, validator=at_least(0))
  cpus: int = 1
  memory_mb: float = 0.0


@attrs.frozen(kw_only=True)
class AgentMetrics:
  """How an agent fares: load in percent of all cpus, memory in percent.

  Example:
    {"cpu_percent": 12.5, "memory_percent": 40.0, "running": 3, "held": 120,
     "outbox": 0}
  """

  cpu_percent: float = 0.0
  memory_percent: float = 0.0
  running: int = 0
  held: int = 0
  outbox: int = 0


@attrs.frozen(kw_only=True)
class Agent:
  """An agent as it is read.

  Example:
    {"id": "0190a8b4-7c00-7000-8000-000000000005", "namespace_ids": ["default"],
     "name": "web-1", "status": "online", "labels": {"disk": "ssd"},
     "capabilities": {"executors": ["process"]}, "metrics": {"running": 1},
     "version": "0.1.0", "connected_at": "2026-01-01T00:00:00Z",
     "last_heartbeat_at": "2026-01-01T00:00:05Z", "server_id": null,
     "clock_offset_ms": 0.4, "created_at": "2026-01-01T00:00:00Z",
     "updated_at": "2026-01-01T00:00:05Z"}
  """

  id: AgentId
  namespace_ids: list[NamespaceId]
  name: str
  status: AgentStatus
  labels: dict[str, str]
  capabilities: AgentCapabilities
  metrics: AgentMetrics
  version: str
  connected_at: Instant | None
  last_heartbeat_at: Instant | None
  server_id: ServerId | None
  clock_offset_ms: float | None
  created_at: Instant
  updated_at: Instant


@attrs.frozen(kw_only=True)
class AgentForCreate:
  """An agent as it introduces itself.

  Example:
    {"id": "0190a8b4-7c00-7000-8000-000000000005", "namespace_ids": ["default"],
     "name": "web-1"}
  """

  id: AgentId
  namespace_ids: list[NamespaceId] = attrs.field(validator=length(1, 1_000))
  name: str = attrs.field(validator=length(1, 255))
  labels: dict[str, str] = attrs.field(factory=dict, validator=length(0, 64))
  capabilities: AgentCapabilities = attrs.field(factory=AgentCapabilities)
  version: str = attrs.field(default="", validator=length(0, 64))


@attrs.frozen(kw_only=True)
class AgentForUpdate:
  """What an operator may change of an agent; what is left out stays.

  Example:
    {"labels": {"disk": "hdd"}}
  """

  name: str | UnsetType = attrs.field(default=UNSET, validator=length(1, 255))
  labels: dict[str, str] | UnsetType = attrs.field(
    default=UNSET, validator=length(0, 64)
  )


@attrs.frozen(kw_only=True)
class AgentFilter:
  """Which agents to list; what is None does not matter.

  Example:
    {"status": "online"}
  """

  namespace_id: str | None = None
  name: str | None = None
  status: AgentStatus | None = None


@attrs.frozen(kw_only=True)
class Server:
  """A server as it is read.

  ``weight`` is its share of the namespaces, ``namespaces`` the number that it plans for,
  ``load`` how busy it is from 0 to 1, ``leader`` whether it is the one that binds them.

  Example:
    {"id": "0190a8b4-7c00-7000-8000-000000000006", "name": "host-1",
     "url": "http://127.0.0.1:8080", "version": "0.1.0",
     "started_at": "2026-01-01T00:00:00Z", "heartbeat_at": "2026-01-01T00:00:01Z",
     "alive": true, "weight": 1, "load": 0.0, "namespaces": 1, "leader": true,
     "created_at": "2026-01-01T00:00:00Z",
     "updated_at": "2026-01-01T00:00:01Z"}
  """

  id: ServerId
  name: str
  url: str
  version: str
  started_at: Instant
  heartbeat_at: Instant
  alive: bool
  weight: int
  load: float
  namespaces: int
  leader: bool
  created_at: Instant
  updated_at: Instant


@attrs.frozen(kw_only=True)
class ServerForCreate:
  """A server as it introduces itself.

  Example:
    {"id": "0190a8b4-7c00-7000-8000-000000000006", "name": "host-1",
     "url": "http://127.0.0.1:8080", "version": "0.1.0"}
  """

  id: ServerId
  name: str = attrs.field(validator=length(1, 255))
  url: str = attrs.field(validator=length(1, 2_048))
  version: str = attrs.field(validator=length(1, 64))
  weight: int = attrs.field(default=1, validator=between(0, 1_000))


@attrs.frozen(kw_only=True)
class ServerForUpdate:
  """What may be changed of a server's row.

  Example:
    {"name": "host-2"}
  """

  name: str | UnsetType = attrs.field(default=UNSET, validator=length(1, 255))


@attrs.frozen(kw_only=True)
class ServerFilter:
  """Which servers to list; what is None does not matter.

  Example:
    {"alive": true}
  """

  alive: bool | None = None
