"""What the connections of a server share: the door, the socket, the frames."""

from collections.abc import Callable
from typing import Any, Protocol
from uuid import UUID

import attrs
import structlog

from hetuflow.errors import ProtocolError
from hetuflow.protocol import wire
from hetuflow.protocol.messages import Envelope, ErrorMessage, MessageKind
from hetuflow.protocol.model import ServerId
from hetuflow.server.gateway.presence import Presence
from hetuflow.server.scheduling.recorder import Recorder
from hetuflow.server.sessions import Sessions
from hetuflow.storage.connect import Database

__all__ = [
  "MAX_INVALID",
  "Doorkeeper",
  "Ended",
  "Socket",
  "complain",
  "decode_frame",
  "note_invalid",
  "refuse",
  "size_of",
]

MAX_INVALID = 2
"""Invalid messages after which a connection is closed."""

_log = structlog.get_logger()


class Socket(Protocol):
  """What a connection needs of a WebSocket."""

  async def receive(self) -> Any:
    """Receive a text or binary frame."""

  async def send(self, data: str | bytes) -> None:
    """Send a frame."""

  async def close(self, code: int, reason: str = "") -> None:
    """Close with a code and a reason."""


@attrs.frozen(kw_only=True)
class Doorkeeper:
  """What every connection of a server shares.

  ``wake`` is called when an agent can take more; durations are seconds, sizes bytes.
  """

  database: Database
  server_id: ServerId
  sessions: Sessions
  recorder: Recorder
  presence: Presence
  wake: Callable[[], None]
  heartbeat_interval: float
  session_lease: float
  max_message_size: int
  max_hold: int
  ack_retries: int
  compression: bool


class Ended(Exception):
  """The connection is to be closed for a reason of ours."""

  def __init__(self, code: int, reason: str) -> None:
    self.code, self.reason = code, reason
    super().__init__(reason)


def decode_frame(frame: Any, limit: int, *, compression: bool) -> Envelope:
  """Read a frame; a binary one only where compression was agreed on.

  Args:
    frame: text or bytes; None stands for an empty binary frame.
    limit: the largest message, in bytes.
    compression: whether it was agreed on.

  Raises:
    ProtocolError: the frame is not a message.
    Ended: it is larger than was agreed on.
  """
  if frame is None:  # Quart's reading of a binary frame with nothing in it
    frame = b""
  size = size_of(frame)
  if size > limit:
    _log.warning("message_too_large", size=size, limit=limit)
    raise Ended(1009, f"expected at most {limit} bytes")
  if isinstance(frame, str):
    return wire.decode_envelope(frame)
  if not compression:
    raise ProtocolError([("$", "expected a text frame")])
  return wire.decode_envelope(wire.decompress(bytes(frame), limit))


def size_of(frame: str | bytes | None) -> int:
  """Count the bytes of a frame as they came."""
  if frame is None:
    return 0
  if isinstance(frame, str) and not frame.isascii():
    return len(frame.encode())
  return len(frame)


async def refuse(socket: Socket, message_id: UUID, code: str, text: str) -> None:
  """Say why, before the connection is closed."""
  _log.warning("agent_refused", code=code, reason=text)
  message = ErrorMessage(code=code, message=text, message_id=message_id)
  await socket.send(wire.encode_envelope(MessageKind.ERROR, message).decode())


async def complain(socket: Socket, error: ProtocolError) -> None:
  """Answer an invalid frame before there is a session."""
  frame = wire.encode_envelope(MessageKind.ERROR, note_invalid(error))
  await socket.send(frame.decode())


def note_invalid(error: ProtocolError) -> ErrorMessage:
  """Make the answer to an invalid message, and its one line in the log."""
  path, message = error.issues[0]
  _log.warning("message_invalid", path=path, error=message)
  return ErrorMessage(code="invalid_message", message=message, path=path)
