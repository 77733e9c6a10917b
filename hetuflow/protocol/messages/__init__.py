"""What servers and agents say to each other over ``/ws``.

Every message is an envelope whose ``message_kind`` names the class of its payload:
``PAYLOADS`` is that table. Kinds that change state are batches, and are answered by an
``ack`` after the database has committed.
"""

from collections.abc import Mapping
from typing import Any

from hetuflow.protocol.messages.envelope import (
  Ack,
  AckOutcome,
  AckResult,
  Envelope,
  ErrorMessage,
  MessageKind,
)
from hetuflow.protocol.messages.files import (
  FileAck,
  FileChunk,
  FileRequest,
)
from hetuflow.protocol.messages.session import (
  PROTOCOL_VERSION,
  AgentCommand,
  AgentCommandKind,
  AgentConfig,
  AgentRegisterRequest,
  AgentRegisterResponse,
  HeartbeatRequest,
  HeartbeatResponse,
  HeldClaim,
)
from hetuflow.protocol.messages.work import (
  AcquireTaskRequest,
  DispatchedTask,
  DispatchTaskRequest,
  Encoding,
  LogChunk,
  NamedConfig,
  TaskInstanceUpdate,
  TaskInstanceUpdates,
  TaskLog,
)

__all__ = [
  "BATCHES",
  "PAYLOADS",
  "PROTOCOL_VERSION",
  "Ack",
  "AckOutcome",
  "AckResult",
  "AcquireTaskRequest",
  "AgentCommand",
  "AgentCommandKind",
  "AgentConfig",
  "AgentRegisterRequest",
  "AgentRegisterResponse",
  "DispatchTaskRequest",
  "DispatchedTask",
  "Encoding",
  "Envelope",
  "ErrorMessage",
  "FileAck",
  "FileChunk",
  "FileRequest",
  "HeartbeatRequest",
  "HeartbeatResponse",
  "HeldClaim",
  "LogChunk",
  "MessageKind",
  "NamedConfig",
  "TaskInstanceUpdate",
  "TaskInstanceUpdates",
  "TaskLog",
]

PAYLOADS: Mapping[MessageKind, type[Any]] = {
  MessageKind.ERROR: ErrorMessage,
  MessageKind.ACK: Ack,
  MessageKind.AGENT_REGISTER_REQUEST: AgentRegisterRequest,
  MessageKind.AGENT_REGISTER_RESPONSE: AgentRegisterResponse,
  MessageKind.HEARTBEAT_REQUEST: HeartbeatRequest,
  MessageKind.HEARTBEAT_RESPONSE: HeartbeatResponse,
  MessageKind.AGENT_COMMAND: AgentCommand,
  MessageKind.ACQUIRE_TASK_REQUEST: AcquireTaskRequest,
  MessageKind.DISPATCH_TASK_REQUEST: DispatchTaskRequest,
  MessageKind.TASK_INSTANCE_UPDATE: TaskInstanceUpdates,
  MessageKind.TASK_LOG: TaskLog,
  MessageKind.FILE_REQUEST: FileRequest,
  MessageKind.FILE_CHUNK: FileChunk,
  MessageKind.FILE_ACK: FileAck,
}
"""The class of each kind's payload."""

BATCHES = frozenset(
  {
    MessageKind.DISPATCH_TASK_REQUEST,
    MessageKind.TASK_INSTANCE_UPDATE,
    MessageKind.TASK_LOG,
    MessageKind.ACK,
  }
)
"""Kinds on the hot path: decoded by msgspec straight into the attrs classes."""
