"""``/task-instances/{id}/logs``: a page, the plain bytes, or a live stream of events.

Events are those of the HTML standard, section 9.2 "Server-sent events": ``chunk`` with a
piece of output, ``end`` with how the instance ended, and a comment now and then to keep
the connection open. The stream is read from the database as it grows, at most 0.2 s
late; it ends when the caller leaves, the key is revoked or the server drains, and goes
on elsewhere with ``offset``. A server has a bounded number of them, for each asks the
database several times a second.
"""

from collections.abc import AsyncIterator
from uuid import UUID

import attrs
import trio
from quart import Response, g, request

from hetuflow.errors import NotFound, ProtocolError, Unavailable
from hetuflow.protocol import wire
from hetuflow.protocol.messages import Encoding
from hetuflow.protocol.model import InstanceId
from hetuflow.protocol.states import LogStream, TaskInstanceStatus
from hetuflow.server.api.exchange import answer, read_number, single
from hetuflow.server.api.operation import operation
from hetuflow.server.api.problems import TooBusy
from hetuflow.server.api.services import ApiServices, services
from hetuflow.storage.access import authenticate_key
from hetuflow.storage.instances import get_instance
from hetuflow.storage.logs import LogPiece, read_log

__all__ = ["LogView", "read_logs"]

JSON = "application/json"
TEXT = "text/plain"
EVENTS = "text/event-stream"
BOTH = "all"
PAGE_BYTES = 1024**2
POLL_SECONDS = 0.2
KEEP_ALIVE_SECONDS = 15.0
OUTAGE_SECONDS = 1.0
MAX_OFFSET = 2**62


@attrs.frozen(kw_only=True)
class LogItem:
  """A piece of output from byte ``offset`` of its stream on."""

  stream: LogStream
  offset: int
  data: str
  encoding: Encoding


@attrs.frozen(kw_only=True)
class LogView:
  """A page of output; ``complete`` says that nothing follows any more."""

  items: list[LogItem]
  next_offset: int
  complete: bool


@attrs.frozen(kw_only=True)
class LogEnd:
  """How an instance ended."""

  status: TaskInstanceStatus
  exit_code: int | None


@attrs.frozen(kw_only=True)
class _Wanted:
  """Which output is wanted; ``stream`` None means both as they came."""

  instance_id: InstanceId
  stream: LogStream | None
  offset: int


@operation(
  LogView,
  media_types=(JSON, TEXT, EVENTS),
  query={
    "stream": {"enum": [BOTH, *LogStream], "default": BOTH},
    "offset": {"type": "integer", "minimum": 0, "default": 0},
  },
)
async def read_logs(instance_id: UUID) -> Response:
  """Read the output of a task instance.

  ``offset`` counts bytes of one stream, or pieces where ``stream`` is ``all``; the
  ``next_offset`` of a page asks for what follows. With ``Accept: text/plain`` the answer
  is the bytes themselves; with ``text/event-stream`` it follows the output as it grows.
  """
  wanted = _read_wanted(InstanceId(instance_id))
  context = services()
  # Also tells that there is such an instance, before anything is sent.
  view = await _read_view(context, wanted)
  kind = request.accept_mimetypes.best_match([JSON, TEXT, EVENTS], JSON)
  if kind == EVENTS:
    if len(context.followers) >= context.max_followers:
      raise TooBusy("too many follow output here; ask for pages, or try again")
    response = Response(_follow(context, wanted, g.key), content_type=EVENTS)
    response.timeout = None
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    return response
  if kind == TEXT:
    return Response(_plain(context, wanted), content_type=f"{TEXT}; charset=utf-8")
  return answer(view)


def _read_wanted(instance_id: InstanceId) -> _Wanted:
  """Read the query."""
  values = {name: single(name) for name in request.args}
  stream = values.pop("stream", BOTH)
  offset = values.pop("offset", "0")
  if values:
    raise ProtocolError([(f"$.{name}", "unknown key") for name in sorted(values)])
  if stream not in (BOTH, *LogStream):
    raise ProtocolError([("$.stream", "expected one of all, stdout, stderr")])
  return _Wanted(
    instance_id=instance_id,
    stream=None if stream == BOTH else LogStream(stream),
    offset=read_number("offset", offset, 0, MAX_OFFSET),
  )


async def _read_view(context: ApiServices, wanted: _Wanted) -> LogView:
  """Read one page."""
  instance = await get_instance(context.database, wanted.instance_id)
  pieces, next_offset = await _read(context, wanted)
  rest = attrs.evolve(wanted, offset=next_offset)
  ended = instance.completed_at is not None
  return LogView(
    items=[_item(piece) for piece in pieces],
    next_offset=next_offset,
    complete=ended and not (await _read(context, rest))[0],
  )


async def _read(context: ApiServices, wanted: _Wanted) -> tuple[list[LogPiece], int]:
  """Read some pieces and where to go on."""
  found = await read_log(
    context.database,
    wanted.instance_id,
    stream=wanted.stream,
    offset=wanted.offset,
    limit_bytes=PAGE_BYTES,
  )
  return found.chunks, found.next_offset


async def _plain(context: ApiServices, wanted: _Wanted) -> AsyncIterator[bytes]:
  """Yield the output that is there, as it came."""
  while True:
    pieces, next_offset = await _read(context, wanted)
    if not pieces:
      return
    yield b"".join(piece.data for piece in pieces)
    wanted = attrs.evolve(wanted, offset=next_offset)


async def _follow(
  context: ApiServices, wanted: _Wanted, key: str
) -> AsyncIterator[bytes]:
  """Follow the output, counted among those who do."""
  follower = object()
  context.followers.add(follower)
  try:
    async for events in _events(context, wanted, key):
      yield events
  finally:
    context.followers.discard(follower)


async def _events(
  context: ApiServices, wanted: _Wanted, key: str
) -> AsyncIterator[bytes]:
  """Yield the output as events until the instance has ended and all of it is sent."""
  quiet_since = trio.current_time()
  while not context.draining.is_set():
    pause = POLL_SECONDS
    try:
      if await authenticate_key(context.database, key) is None:
        return
      # The instance first: what is written after its end is not waited for.
      instance = await get_instance(context.database, wanted.instance_id)
      pieces, next_offset = await _read(context, wanted)
    except NotFound:  # its retention has ended
      return
    except Unavailable:
      pieces, pause = [], OUTAGE_SECONDS
    else:
      if pieces:
        yield b"".join(_event("chunk", _item(piece)) for piece in pieces)
        wanted = attrs.evolve(wanted, offset=next_offset)
        quiet_since = trio.current_time()
        continue
      if instance.completed_at is not None:
        end = LogEnd(status=instance.status, exit_code=instance.exit_code)
        yield _event("end", end)
        return
    if trio.current_time() - quiet_since >= KEEP_ALIVE_SECONDS:
      yield b": keep-alive\n\n"
      quiet_since = trio.current_time()
    with trio.move_on_after(pause):
      await context.draining.wait()


def _event(name: str, value: object) -> bytes:
  """Write one event; JSON has no line breaks of its own."""
  return b"event: %s\ndata: %s\n\n" % (name.encode(), wire.encode(value))


def _item(piece: LogPiece) -> LogItem:
  """Write a piece as the API shows it."""
  data, encoding = wire.encode_data(piece.data)
  return LogItem(stream=piece.stream, offset=piece.offset, data=data, encoding=encoding)
