"""The way to a server: connect, register, hand on what comes, and again.

Who runs it: the first child of the agent's tree. It owns the WebSocket, and runs the
intake, whose work must not hold up the reading of answers. Nothing waits for it: the
agent fires what it holds and keeps what it has to report while no server is there.

When the other side goes away it is looked for again, with full jitter between 0.1 s and
5 s, for ever. When it refuses us for good (token, version, namespace) ``Refused`` ends
the program; when a newer session of this very agent took our place, ``Replaced`` does.
"""

import random as randomness
from collections.abc import Awaitable, Callable, Mapping

import structlog
import trio
from trio_websocket import CloseReason, ConnectionClosed, WebSocketConnection

from hetuflow.agent.link.endpoints import Endpoint, Endpoints
from hetuflow.agent.link.link import Link, Session
from hetuflow.agent.link.registration import Registration
from hetuflow.agent.link.websocket import (
  GOODBYE_SECONDS,
  Offline,
  Rejected,
  open_websocket,
)
from hetuflow.errors import HetuflowError, ProtocolError, Refused
from hetuflow.nursery import Backoff
from hetuflow.protocol.messages import Envelope, ErrorMessage, MessageKind

__all__ = ["Connection", "Handler", "Replaced"]

REGISTER_SECONDS = 10.0
SETTLED_SECONDS = 10.0
GOING_AWAY, KICKED, REPLACED = 1001, 4002, 4003
KICKED_PAUSE_SECONDS = 5.0

Handler = Callable[[Envelope], None]

_log = structlog.get_logger()


class Replaced(HetuflowError):
  """A newer session of this agent has taken our place; there must be one only."""


class Connection:
  """Keeps one session with a server.

  Args:
    link: offers the session to the other parts.
    endpoints: where to connect.
    registration: introduces this agent.
    intake: runs beside the sessions; takes in what is dispatched.
    handlers: what to do with each kind of message; they must not block.
    backoff: between attempts.
    random: the source of jitter.
  """

  def __init__(
    self,
    *,
    link: Link,
    endpoints: Endpoints,
    registration: Registration,
    intake: Callable[[], Awaitable[None]],
    handlers: Mapping[MessageKind, Handler],
    backoff: Backoff | None = None,
    random: randomness.Random | None = None,
  ) -> None:
    self._link = link
    self._endpoints = endpoints
    self._registration = registration
    self._intake = intake
    self._handlers = handlers
    self._backoff = backoff or Backoff(initial=0.1, maximum=5.0)
    self._random = random or randomness.Random()  # noqa: S311 - jitter, not a secret
    self._leaving = False
    self._gone = trio.Event()
    self._offline_logged = False

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Keep a session for ever; started at once, as nothing depends on a server.

    Raises:
      Refused: the server does not want this agent.
      Replaced: a newer session of this agent exists.
    """
    async with trio.open_nursery() as nursery:
      nursery.start_soon(self._intake)
      task_status.started()
      await self._keep_connected()

  async def drain(self) -> None:
    """Say goodbye: end the session and do not come back."""
    self._leaving = True
    if (session := self._link.session) is not None:
      session.end()
      with trio.move_on_after(GOODBYE_SECONDS):
        await self._gone.wait()

  async def _keep_connected(self) -> None:
    """Have one session after the other."""
    attempt = 0
    while not self._leaving:
      since = trio.current_time()
      pause = await self.session_once()
      attempt = 0 if trio.current_time() - since > SETTLED_SECONDS else attempt + 1
      if not self._leaving:
        delay = self._backoff.delay(max(0, attempt - 1), self._random)
        await trio.sleep(max(pause, delay))
    self._gone.set()
    await trio.sleep_forever()

  async def session_once(self) -> float:
    """Try to connect, and if that works have one session until it ends.

    Returns:
      Seconds to wait at least before the next attempt.

    Raises:
      Refused: the server does not want this agent.
      Replaced: a newer session of this agent exists.
    """
    try:
      endpoint = self._endpoints.next()
      if endpoint is None:
        self._note_offline("there is no token yet, or no server for it")
        return 0.0
      async with open_websocket(endpoint) as socket:
        return await self._converse(socket, endpoint)
    except Rejected as rejection:
      if rejection.status in (401, 403):
        raise Refused(f"the server refuses the token ({rejection})") from None
      self._note_offline(str(rejection))
    except Offline as error:
      self._note_offline(str(error))
    return 0.0

  async def _converse(self, socket: WebSocketConnection, endpoint: Endpoint) -> float:
    """Register, then read until the session ends; return the pause asked for."""
    try:
      with trio.fail_after(REGISTER_SECONDS):
        session = await self._registration.register(socket)
      _log.info("session_opened", url=endpoint.url)
      self._offline_logged = False
      with self._link.offering(session), session.bound():
        await self._read(session)
    except trio.TooSlowError:
      self._note_offline("no answer to the registration")
      return 0.0
    except ConnectionClosed as closed:
      return self._judge(closed.reason)
    _log.info("session_closed")
    if self._leaving:
      with trio.move_on_after(GOODBYE_SECONDS):
        await socket.aclose(code=GOING_AWAY, reason="the agent shuts down")
    return 0.0

  async def _read(self, session: Session) -> None:
    """Hand each message to whom it concerns."""
    while True:
      try:
        envelope = await session.receive()
      except ProtocolError as error:
        path, message = error.issues[0]
        _log.warning("message_invalid", path=path, problem=message)
        answer = ErrorMessage(code="invalid_message", message=message, path=path)
        await session.send(MessageKind.ERROR, answer)
        continue
      self._hand_on(envelope)

  def _hand_on(self, envelope: Envelope) -> None:
    """Hand a message to whom it concerns; complaints about ours are for people."""
    handler = self._handlers.get(envelope.message_kind)
    if handler is not None:
      handler(envelope)
    elif isinstance(error := envelope.payload, ErrorMessage):
      _log.error(
        "server_complains", code=error.code, reason=error.message, path=error.path
      )
    else:
      _log.warning("message_unexpected", kind=envelope.message_kind.value)

  def _judge(self, reason: CloseReason | None) -> float:
    """Decide what the end of a session means; return the pause before the next."""
    code = reason.code if reason else None
    words = (reason.reason if reason else None) or ""
    if code == REPLACED:
      raise Replaced(f"replaced by a newer session of this agent {words}".rstrip())
    _log.warning("session_lost", code=code, reason=words)
    return KICKED_PAUSE_SECONDS if code == KICKED else 0.0

  def _note_offline(self, why: str) -> None:
    """Log that no server can be reached, once until one could."""
    if not self._offline_logged:
      self._offline_logged = True
      _log.warning("server_unreachable", reason=why)
