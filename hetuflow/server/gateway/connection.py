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

import structlog
import trio

from hetuflow.errors import ProtocolError, Unavailable
from hetuflow.protocol import wire
from hetuflow.protocol.messages import MessageKind
from hetuflow.server.gateway.door import (
  MAX_INVALID,
  Doorkeeper,
  Ended,
  Socket,
  decode_frame,
  note_invalid,
  size_of,
)
from hetuflow.server.gateway.inbox import take_message
from hetuflow.server.gateway.registration import register
from hetuflow.server.session import Session
from hetuflow.storage.access import TokenGrant
from hetuflow.storage.agents import close_session
from hetuflow.storage.dead_letters import bury

__all__ = ["serve_connection"]

CLOSE_TIMEOUT = 2.0
"""Seconds the clean-up of a connection may take."""
COMPRESS_FROM = 1024
"""Bytes from which a frame is worth packing."""

_log = structlog.get_logger()


async def serve_connection(door: Doorkeeper, socket: Socket, grant: TokenGrant) -> None:
  """Serve an accepted connection to its end.

  Args:
    door: what the server's connections share.
    socket: the accepted WebSocket.
    grant: where the agent's token lets it in.
  """
  code, reason = 1011, "internal error"
  try:
    session = await register(door, socket, grant)
    try:
      code, reason = await _converse(door, socket, session)
    finally:
      door.sessions.remove(session)
      await _leave(door, session)
  except Ended as end:
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
    except Ended as end:
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
  raise Ended(*session.closing)


async def _send(door: Doorkeeper, socket: Socket, session: Session) -> None:
  """Send what waits, repeat what is not acknowledged, and close when asked to."""
  while True:
    while session.frames:
      frame = session.frames.popleft()
      packed = session.compression and len(frame) >= COMPRESS_FROM
      data = wire.compress(frame) if packed else frame
      session.traffic.note_sent(len(data))
      await socket.send(data if packed else data.decode())
    if session.closing is not None:
      raise Ended(*session.closing)
    overdue = session.repeat_overdue(door.ack_retries)
    if overdue is not None:
      await bury(
        door.database,
        kind=overdue.kind,
        agent_id=session.agent_id,
        reason=f"not acknowledged after {overdue.tries} tries",
        payload=overdue.payload,
      )
      raise Ended(4001, "messages are not acknowledged")
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
    session.traffic.note_received(size_of(frame))
    try:
      envelope = decode_frame(
        frame, door.max_message_size, compression=session.compression
      )
      session.traffic.received[envelope.message_kind] += 1
      take_message(door, session, envelope)
    except ProtocolError as error:
      invalid += 1
      session.send(MessageKind.ERROR, note_invalid(error))
      if invalid >= MAX_INVALID:
        session.close(1008, "invalid messages")
        await trio.sleep_forever()  # the sender says it and ends both
