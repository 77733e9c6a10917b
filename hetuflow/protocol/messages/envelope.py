"""What every message wears, and the two that answer others."""

from enum import StrEnum
from typing import Any
from uuid import UUID

import attrs

from hetuflow.protocol.model import (
  InstanceId,
)

__all__ = [
  "Ack",
  "AckOutcome",
  "AckResult",
  "Envelope",
  "ErrorMessage",
  "MessageKind",
]


class MessageKind(StrEnum):
  """The kind of a message, as it stands in its envelope."""

  ERROR = "error"
  ACK = "ack"
  AGENT_REGISTER_REQUEST = "agent_register_request"
  AGENT_REGISTER_RESPONSE = "agent_register_response"
  HEARTBEAT_REQUEST = "heartbeat_request"
  HEARTBEAT_RESPONSE = "heartbeat_response"
  AGENT_COMMAND = "agent_command"
  ACQUIRE_TASK_REQUEST = "acquire_task_request"
  DISPATCH_TASK_REQUEST = "dispatch_task_request"
  TASK_INSTANCE_UPDATE = "task_instance_update"
  TASK_LOG = "task_log"
  FILE_REQUEST = "file_request"
  FILE_CHUNK = "file_chunk"
  FILE_ACK = "file_ack"


class AckOutcome(StrEnum):
  """What became of one element of an acknowledged batch that was not simply accepted."""

  DUPLICATE = "duplicate"
  STALE = "stale"
  INVALID = "invalid"


@attrs.frozen(kw_only=True)
class Envelope:
  """What every message wears; ``timestamp`` is milliseconds since 1970.

  Example:
    {"message_id": "0190a8b4-7c00-7000-8000-000000000009", "timestamp": 1767225600000,
     "message_kind": "acquire_task_request", "payload": {"run": 4, "hold": 1000},
     "metadata": {}}
  """

  message_id: UUID
  timestamp: int
  message_kind: MessageKind
  payload: Any
  metadata: dict[str, str] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class ErrorMessage:
  """A message could not be taken; ``path`` names the field.

  Example:
    {"code": "invalid_message", "message": "Expected `int`, got `str`",
     "path": "$.payload.run", "message_id": "0190a8b4-7c00-7000-8000-000000000009"}
  """

  code: str
  message: str
  path: str = "$"
  message_id: UUID | None = None


@attrs.frozen(kw_only=True)
class AckResult:
  """What became of one element, where it was not simply accepted.

  Example:
    {"instance_id": "0190a8b4-7c00-7000-8000-000000000004", "outcome": "stale"}
  """

  instance_id: InstanceId
  outcome: AckOutcome


@attrs.frozen(kw_only=True)
class Ack:
  """The named message has been committed.

  Example:
    {"message_id": "0190a8b4-7c00-7000-8000-000000000009", "results": []}
  """

  message_id: UUID
  results: list[AckResult] = attrs.field(factory=list)
