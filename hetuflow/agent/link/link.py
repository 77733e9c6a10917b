"""The one session with a server, as the other parts of the agent see it.

Who runs it: ``connection`` opens and closes sessions; outbox, heartbeat, clock and puller
use whichever there is, each by ``each_session``. A session owns nothing of theirs: when
it ends, what they do with it is cancelled, and goes on with the next one. A message that
could not be sent is not an error: whoever needs an answer sends it again.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from hetuflow.errors import ProtocolError
from hetuflow.protocol import wire
from hetuflow.protocol.messages import AgentConfig, Envelope, MessageKind

__all__ = ["MAX_FRAME_BYTES", "Link", "Session"]

MAX_FRAME_BYTES = 32 * 1024 * 1024
COMPRESS_FROM_BYTES = 1024


class Session:
  """One registered connection.

  Args:
    socket: the WebSocket.
    config: how the server wants to be spoken to.
  """

  def __init__(self, socket: WebSocketConnection, config: AgentConfig) -> None:
    self.config = config
    self.ended = trio.Event()
    self._socket = socket
    self._scopes: set[trio.CancelScope] = set()

  async def send(
    self, kind: MessageKind, payload: object, *, message_id: UUID | None = None
  ) -> bool:
    """Send a message; False if the session has ended.

    Args:
      kind: what the payload is.
      payload: an object of the kind's class, or its JSON as ``msgspec.Raw``.
      message_id: of a message that is sent again, or whose ack is waited for.
    """
    frame = wire.encode_envelope(kind, payload, message_id=message_id)
    packs = self.config.compression and len(frame) > COMPRESS_FROM_BYTES
    try:
      await self._socket.send_message(wire.compress(frame) if packs else frame.decode())
    except ConnectionClosed:
      return False
    return True

  async def receive(self) -> Envelope:
    """Wait for the next message.

    Raises:
      ConnectionClosed: the session has ended.
      ProtocolError: the message is invalid; the next one may be better.
    """
    frame = await self._socket.get_message()
    if isinstance(frame, bytes):
      if not self.config.compression:
        raise ProtocolError([("$", "no binary frames were agreed upon")])
      frame = wire.decompress(frame, MAX_FRAME_BYTES)
    return wire.decode_envelope(frame)

  @contextmanager
  def bound(self) -> Iterator[None]:
    """Run a block that ends, quietly, with the session at the latest."""
    with trio.CancelScope() as scope:
      self._scopes.add(scope)
      if self.ended.is_set():
        scope.cancel()
      try:
        yield
      finally:
        self._scopes.discard(scope)

  def end(self) -> None:
    """End the session: everything bound to it stops, the connection closes."""
    self.ended.set()
    for scope in self._scopes:
      scope.cancel()


class Link:
  """Where the current session is found, if there is one."""

  def __init__(self) -> None:
    self.session: Session | None = None
    self._opened = trio.Event()

  @property
  def online(self) -> bool:
    """Whether there is a session."""
    return self.session is not None

  @contextmanager
  def offering(self, session: Session) -> Iterator[None]:
    """Let the parts of the agent use a session for the time of the block."""
    self.session = session
    self._opened.set()
    self._opened = trio.Event()
    try:
      yield
    finally:
      self.session = None
      session.end()

  async def wait_session(self) -> Session:
    """Wait until there is a session and return it."""
    while (session := self.session) is None:
      await self._opened.wait()
    return session

  async def each_session(self, use: Callable[[Session], Awaitable[None]]) -> None:
    """For ever: wait for a session, use it until it ends, and again.

    Args:
      use: called with each session; cancelled when it ends.
    """
    while True:
      session = await self.wait_session()
      with session.bound():
        await use(session)
      await session.ended.wait()
