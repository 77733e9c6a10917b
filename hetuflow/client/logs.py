"""The output of a task instance: in pages, or as server-sent events while it grows.

The event stream format is that of the HTML standard, section 9.2 ("Server-sent
events"); of its fields only ``event`` and ``data`` mean something here.
"""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import attrs
import msgspec

from hetuflow.client.call import Call, path_of
from hetuflow.errors import ProtocolError
from hetuflow.protocol import wire
from hetuflow.protocol.messages import Encoding
from hetuflow.protocol.states import LogStream, TaskInstanceStatus

__all__ = ["LogChunk", "LogEnd", "LogFollower", "LogPage", "log_page"]

EVENT_STREAM = "text/event-stream"
MAX_EVENT = 16 * 1024**2
"""Bytes one event may have; chunks are far smaller."""
ALL = "all"


@attrs.frozen(kw_only=True)
class LogChunk:
  """A piece of output, from byte ``offset`` of its stream on."""

  stream: LogStream
  offset: int
  data: bytes


@attrs.frozen(kw_only=True)
class LogPage:
  """Some output; ``next_offset`` asks for what follows.

  ``complete`` says that the instance has ended and nothing follows.
  """

  items: list[LogChunk]
  next_offset: int
  complete: bool


@attrs.frozen(kw_only=True)
class LogEnd:
  """How the instance ended; ``exit_code`` is None where no process ended by itself."""

  status: TaskInstanceStatus
  exit_code: int | None = None


@attrs.frozen(kw_only=True)
class _Piece:
  """A piece of output as the API writes it."""

  stream: LogStream
  offset: int
  data: str
  encoding: Encoding = Encoding.UTF8

  def unwrapped(self) -> LogChunk:
    """Take the bytes out."""
    data = wire.decode_data(self.data, self.encoding)
    return LogChunk(stream=self.stream, offset=self.offset, data=data)


@attrs.frozen(kw_only=True)
class _Page:
  """A page of output as the API writes it."""

  items: list[_Piece]
  next_offset: int
  complete: bool = False


def _read_page(value: Any) -> LogPage:
  """Read a page and unwrap its pieces."""
  page = wire.load(_Page, value)
  return LogPage(
    items=[piece.unwrapped() for piece in page.items],
    next_offset=page.next_offset,
    complete=page.complete,
  )


def log_page(
  instance_id: UUID, *, stream: LogStream | str = ALL, offset: int = 0
) -> Call[LogPage]:
  """Describe the call for a page of output.

  Args:
    instance_id: whose output.
    stream: ``stdout``, ``stderr`` or ``all`` as it came.
    offset: 0 or a page's ``next_offset``: bytes of one stream, or pieces of ``all``.
  """
  return Call(
    method="GET",
    path=path_of("task-instances", instance_id, "logs"),
    read=_read_page,
    query={"stream": stream, "offset": offset},
  )


class LogFollower:
  """Follows the output of one instance through any number of connections.

  It does no I/O: ``call()`` is the request for the next connection, ``feed()`` takes the
  bytes that arrive, and ``end`` is there once the instance has ended. A connection that
  breaks costs nothing: the next one begins behind the last whole event; ``heard`` counts
  events and keep-alives.
  """

  def __init__(
    self, instance_id: UUID, *, stream: LogStream | str = ALL, offset: int = 0
  ) -> None:
    self._instance_id = instance_id
    self._stream = stream
    self._offset = offset
    self._buffer = b""
    self.heard = 0
    self.end: LogEnd | None = None

  def call(self) -> Call[None]:
    """Describe the request for what has not been seen yet."""
    self._buffer = b""
    return Call(
      method="GET",
      path=path_of("task-instances", self._instance_id, "logs"),
      read=lambda _: None,
      query={"stream": self._stream, "offset": self._offset},
      accept=EVENT_STREAM,
    )

  def feed(self, data: bytes) -> Iterator[LogChunk]:
    """Take bytes of the event stream and yield the output in them.

    Raises:
      ProtocolError: an event is not what the server promises.
    """
    self._buffer = (self._buffer + data).replace(b"\r\n", b"\n")
    *events, self._buffer = self._buffer.split(b"\n\n")
    if len(self._buffer) > MAX_EVENT:
      raise ProtocolError([("$", f"expected events of at most {MAX_EVENT} bytes")])
    for event in events:
      self.heard += 1
      if self.end is None:
        yield from self._take(*_fields(event))

  def _take(self, name: str, data: bytes) -> Iterator[LogChunk]:
    """Act on one event; what is unknown here is left alone."""
    if name == "chunk":
      chunk = wire.load(_Piece, _json(data)).unwrapped()
      self._offset = (
        self._offset + 1 if self._stream == ALL else chunk.offset + len(chunk.data)
      )
      yield chunk
    elif name == "end":
      self.end = wire.load(LogEnd, _json(data))


def _fields(event: bytes) -> tuple[str, bytes]:
  """Return name and data of one event; lines that begin with a colon are comments."""
  name, data = "message", []
  for line in event.split(b"\n"):
    field, _, value = line.partition(b":")
    value = value.removeprefix(b" ")
    if field == b"event":
      name = value.decode("utf-8", "replace")
    elif field == b"data":
      data.append(value)
  return name, b"\n".join(data)


def _json(data: bytes) -> Any:
  """Parse the data of an event."""
  try:
    return msgspec.json.decode(data)
  except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
    raise ProtocolError([("$", f"not JSON: {error}")]) from None
