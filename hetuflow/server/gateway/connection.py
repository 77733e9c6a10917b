"""One WebSocket connection from its upgrade to its end.

Run by: Hypercorn starts a task per connection, which ends in ``serve_connection``. It
owns the socket and one session. Its own mistakes never leave it: a handler that raises
would close with 1000 and tell nobody.

When the agent dies: the receive side ends, or no heartbeat comes for the time of a lease;
the session is struck off and marked offline; its claims stay until it registers again or
its lease ends. When the server dies: the agent finds the socket gone and registers with
another server.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from uuid import UUID

import attrs
import structlog
import trio

from hetuflow.errors import ProtocolError, Refused, Unavailable
from hetuflow.protocol import wire
from hetuflow.protocol.messages import (
  PROTOCOL_VERSION,
  Ack,
  AcquireTaskRequest,
  AgentConfig,
  AgentRegisterRequest,
  AgentRegisterResponse,
  Envelope,
  ErrorMessage,
  HeartbeatRequest,
  MessageKind,
  TaskInstanceUpdates,
  TaskLog,
)
from hetuflow.protocol.model import NamespaceId, ServerId
from hetuflow.server.gateway.presence import Presence
from hetuflow.server.scheduling.recorder import Recorder, Report
from hetuflow.server.sessions import Session, Sessions
from hetuflow.storage.agents import close_session, register_agent
from hetuflow.storage.connect import Database
from hetuflow.storage.dead_letters import bury
from hetuflow.storage.logs import LogWrite

__all__ = ["Doorkeeper", "Socket", "serve_connection"]

REGISTER_TIMEOUT = 10.0
"""Seconds a connection has to say who it is."""
CLOSE_TIMEOUT = 2.0
"""Seconds the clean-up of a connection may take."""
MAX_INVALID = 2
"""Invalid messages after which a connection is closed."""
COMPRESS_FROM = 1024
"""Bytes from which a frame is worth packing."""

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


class _Ended(Exception):
  """The connection is to be closed for a reason of ours."""

  def __init__(self, code: int, reason: str) -> None:
    self.code, self.reason = code, reason
    super().__init__(reason)


async def serve_connection(
  door: Doorkeeper, socket: Socket, allowed: list[NamespaceId]
) -> None:
  """Serve an accepted connection to its end.

  Args:
    door: what the server's connections share.
    socket: the accepted WebSocket.
    allowed: the namespaces the token is good for; ``*`` means all.
  """
  code, reason = 1011, "internal error"
  try:
    session = await _register(door, socket, allowed)
    try:
      code, reason = await _converse(door, socket, session)
    finally:
      door.sessions.remove(session)
      await _leave(door, session)
  except _Ended as end:
    code, reason = end.code, end.reason
  except Unavailable:
    reason = "the database is not available"
  except Exception:
    _log.exception("connection_crashed")
  with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
    await socket.close(code, reason)


async def _leave(door: Doorkeeper, session: Session) -> None:
  """Mark the agent offline; if the database is away its lease will tell."""
  _log.info("agent_disconnected", agent=session.name, agent_id=str(session.agent_id))
  with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
    try:
      await close_session(door.database, session.agent_id, session.id)
    except Unavailable as error:
      _log.debug("session_not_closed", error=str(error))


# ── registration ────────────────────────────────────────────────────────────────────


async def _register(
  door: Doorkeeper, socket: Socket, allowed: list[NamespaceId]
) -> Session:
  """Hear who it is and open its session.

  Raises:
    _Ended: it did not say, or is refused.
  """
  with trio.move_on_after(REGISTER_TIMEOUT) as limit:
    envelope = await _first_message(door, socket)
  if limit.cancelled_caught:
    raise _Ended(1008, "no registration in time")
  request: AgentRegisterRequest = envelope.payload
  await _check(socket, envelope.message_id, request, allowed)
  session = Session(
    agent_id=request.agent_id,
    name=request.name,
    epoch=request.epoch,
    namespace_ids=request.namespace_ids,
    labels=request.labels,
    capabilities=request.capabilities,
    compression=request.compression and door.compression,
  )
  try:
    registration = await register_agent(
      door.database,
      request,
      session_id=session.id,
      server_id=door.server_id,
      lease=door.session_lease,
    )
  except Refused as error:
    superseded = "later start" in str(error)
    code = "superseded" if superseded else "unknown_namespace"
    await _refuse(socket, envelope.message_id, code, str(error))
    raise _Ended(4003 if superseded else 1008, str(error)) from None
  session.labels = registration.labels
  session.send(
    MessageKind.AGENT_REGISTER_RESPONSE,
    AgentRegisterResponse(
      session_id=session.id,
      server_id=door.server_id,
      server_time=registration.server_time,
      config=AgentConfig(
        heartbeat_interval=door.heartbeat_interval,
        session_lease=door.session_lease,
        max_message_size=door.max_message_size,
        compression=session.compression,
      ),
      superseded=registration.superseded,
    ),
  )
  door.sessions.add(session)
  _log.info(
    "agent_connected",
    agent=session.name,
    agent_id=str(session.agent_id),
    epoch=session.epoch,
    held=len(request.held),
    released=registration.released,
    superseded=len(registration.superseded),
  )
  return session


async def _first_message(door: Doorkeeper, socket: Socket) -> Envelope:
  """Receive the registration, with some patience for invalid frames."""
  for _ in range(MAX_INVALID):
    frame = await socket.receive()
    try:
      envelope = _decode(frame, door.max_message_size, compression=False)
    except ProtocolError as error:
      await _complain(socket, error)
      continue
    if envelope.message_kind is not MessageKind.AGENT_REGISTER_REQUEST:
      await _refuse(
        socket, envelope.message_id, "not_registered", "expected agent_register_request"
      )
      raise _Ended(1008, "the first message must be agent_register_request")
    return envelope
  raise _Ended(1008, "invalid messages")


async def _check(
  socket: Socket,
  message_id: UUID,
  request: AgentRegisterRequest,
  allowed: list[NamespaceId],
) -> None:
  """Refuse a version we do not speak and namespaces the token is not good for."""
  if request.protocol_version != PROTOCOL_VERSION:
    text = (
      f"this server speaks protocol version {PROTOCOL_VERSION},"
      f" the agent {request.protocol_version}; upgrade the older one"
    )
    await _refuse(socket, message_id, "unsupported_version", text)
    raise _Ended(1008, text)
  if "*" not in allowed:
    wrong = sorted(set(request.namespace_ids) - set(allowed))
    if wrong:
      text = f"the token is not good for namespace {', '.join(wrong)}"
      await _refuse(socket, message_id, "forbidden_namespace", text)
      raise _Ended(1008, text)


async def _refuse(socket: Socket, message_id: UUID, code: str, text: str) -> None:
  """Say why, before the connection is closed."""
  _log.warning("agent_refused", code=code, reason=text)
  message = ErrorMessage(code=code, message=text, message_id=message_id)
  await socket.send(wire.encode_envelope(MessageKind.ERROR, message).decode())


async def _complain(socket: Socket, error: ProtocolError) -> None:
  """Answer an invalid frame before there is a session."""
  frame = wire.encode_envelope(MessageKind.ERROR, _invalid(error))
  await socket.send(frame.decode())


def _invalid(error: ProtocolError) -> ErrorMessage:
  """Make the answer to an invalid message, and its one line in the log."""
  path, message = error.issues[0]
  _log.warning("message_invalid", path=path, error=message)
  return ErrorMessage(code="invalid_message", message=message, path=path)


# ── conversation ────────────────────────────────────────────────────────────────────


async def _converse(
  door: Doorkeeper, socket: Socket, session: Session
) -> tuple[int, str]:
  """Receive, send and watch until one is done; return the code to close with."""
  outcome = (1000, "")

  async def until_done(part: Callable[..., Awaitable[None]]) -> None:
    """Run one direction; its end is the end of both."""
    nonlocal outcome
    try:
      await part(door, socket, session)
    except _Ended as end:
      outcome = (end.code, end.reason)
    except Unavailable:
      outcome = (1011, "the database is not available")
    nursery.cancel_scope.cancel()

  async with trio.open_nursery() as nursery:
    nursery.start_soon(until_done, _receive)
    nursery.start_soon(until_done, _send)
    nursery.start_soon(until_done, _watch)
  return outcome


async def _watch(door: Doorkeeper, socket: Socket, session: Session) -> None:
  """End a session whose agent is silent, and one whose last words cannot be sent."""
  while session.closing is None:
    with trio.move_on_at(session.heard_at + door.session_lease):
      await session.closed.wait()
    if trio.current_time() >= session.heard_at + door.session_lease:
      session.close(4001, "no heartbeat came in time")
  await trio.sleep(CLOSE_TIMEOUT)
  # Where Hypercorn is stuck in sending, what follows has to wait for the kernel.
  door.sessions.remove(session)
  raise _Ended(*session.closing)


async def _send(door: Doorkeeper, socket: Socket, session: Session) -> None:
  """Send what waits, repeat what is not acknowledged, and close when asked to."""
  while True:
    while session.frames:
      frame = session.frames.popleft()
      session.sent += 1
      if session.compression and len(frame) >= COMPRESS_FROM:
        await socket.send(wire.compress(frame))
      else:
        await socket.send(frame.decode())
    if session.closing is not None:
      raise _Ended(*session.closing)
    overdue = session.repeat_overdue(door.ack_retries)
    if overdue is not None:
      await bury(
        door.database,
        kind=overdue.kind,
        agent_id=session.agent_id,
        reason=f"not acknowledged after {overdue.tries} tries",
        payload=overdue.payload,
      )
      raise _Ended(4001, "messages are not acknowledged")
    if not session.frames:
      await session.wakeup.wait(
        max(0.0, session.next_retry_at() - trio.current_time())
        if session.unacknowledged
        else None
      )


async def _receive(door: Doorkeeper, socket: Socket, session: Session) -> None:
  """Take the agent's messages."""
  invalid = 0
  while True:
    frame = await socket.receive()
    session.received += 1
    try:
      envelope = _decode(frame, door.max_message_size, compression=session.compression)
      _take(door, session, envelope)
    except ProtocolError as error:
      invalid += 1
      session.send(MessageKind.ERROR, _invalid(error))
      if invalid >= MAX_INVALID:
        session.close(1008, "invalid messages")
        await trio.sleep_forever()  # the sender says it and ends both


def _decode(frame: Any, limit: int, *, compression: bool) -> Envelope:
  """Read a frame; a binary one only where compression was agreed on."""
  if isinstance(frame, str):
    return wire.decode_envelope(frame)
  if not compression:
    raise ProtocolError([("$", "expected a text frame")])
  return wire.decode_envelope(wire.decompress(bytes(frame), limit))


def _take(door: Doorkeeper, session: Session, envelope: Envelope) -> None:
  """Hand a message to whoever deals with its kind."""
  match envelope.payload:
    case HeartbeatRequest() as heartbeat:
      session.heard_at = trio.current_time()
      door.presence.submit(session, heartbeat)
    case AcquireTaskRequest(draining=True):
      session.withdraw()
    case AcquireTaskRequest(run=run, hold=hold):
      session.grant(run, min(hold, max(0, door.max_hold - session.hold)))
      door.wake()
    case TaskInstanceUpdates(updates=updates):
      for number, update in enumerate(updates):
        _check_namespace(session, update.namespace_id, f"updates[{number}]")
      door.recorder.submit(
        Report(session=session, message_id=envelope.message_id, updates=updates)
      )
    case TaskLog() as log:
      door.recorder.submit(
        Report(
          session=session, message_id=envelope.message_id, chunks=_chunks(session, log)
        )
      )
    case Ack(message_id=message_id):
      session.acknowledge(message_id)
    case ErrorMessage() as error:
      _log.warning(
        "agent_complained", agent=session.name, path=error.path, error=error.message
      )
    case _:
      raise ProtocolError(
        [("$.message_kind", f"{envelope.message_kind} is not for servers")]
      )


def _chunks(session: Session, log: TaskLog) -> list[tuple[NamespaceId, LogWrite]]:
  """Unpack pieces of output."""
  pieces = []
  for number, chunk in enumerate(log.chunks):
    path = f"chunks[{number}]"
    _check_namespace(session, chunk.namespace_id, path)
    write = LogWrite(
      instance_id=chunk.instance_id,
      claim_token=chunk.claim_token,
      stream=chunk.stream,
      offset=chunk.offset,
      data=wire.decode_data(chunk.data, chunk.encoding, f"$.payload.{path}.data"),
    )
    pieces.append((chunk.namespace_id, write))
  return pieces


def _check_namespace(session: Session, namespace_id: NamespaceId, path: str) -> None:
  """Refuse a report of a namespace the session is not registered for."""
  if namespace_id not in session.namespace_ids:
    raise ProtocolError(
      [(f"$.payload.{path}.namespace_id", "the session is not registered for it")]
    )
