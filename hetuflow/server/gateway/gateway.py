"""HTTP and ``/ws`` on one port, served by Hypercorn.

Run by: one child of each server. Owns the listening socket's connections. On a drain the
sessions are closed first, with 1001, so that agents go elsewhere at once; requests under
way are waited for and new ones refused. What is left when the gateway is cancelled ends
with it.
"""

import resource
import socket as sockets
from collections.abc import Callable
from typing import Any

import attrs
import trio
from hypercorn.config import Config
from quart import websocket
from quart_trio import QuartTrio

from hetuflow.errors import Unavailable
from hetuflow.protocol.model import Connection, GatewayStatistics
from hetuflow.server.api.problems import RETRY_AFTER, answer_problem
from hetuflow.server.gateway.asgi import finish_answers, refuse_malformed
from hetuflow.server.gateway.connection import serve_connection
from hetuflow.server.gateway.door import Doorkeeper
from hetuflow.server.gateway.http import serve
from hetuflow.server.gateway.turnstile import Turnstile
from hetuflow.server.sessions import Sessions
from hetuflow.storage.access import authenticate_token

__all__ = ["SUBPROTOCOL", "Gateway", "open_listener"]

SUBPROTOCOL = "hetuflow.v1"
BACKLOG = 1024
CLOSE_PATIENCE = 5.0
"""Seconds agents have to see their sessions closed."""
PING_INTERVAL = 20.0
SPARE_FILES = 128
"""Open files that are not for connections: the database, logs, what is started."""
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="hetuflow agents"'}
UNSENT_TIMEOUT = 30.0
"""Seconds after which a peer that takes no data counts as gone. Hypercorn waits for ever
and cannot be interrupted in that, so the kernel has to end it."""


def open_listener(host: str, port: int) -> sockets.socket:
  """Bind the port, so that the address is known before anything is started.

  Args:
    host: name or address.
    port: 0 takes any free one.

  Raises:
    OSError: the address cannot be had.
  """
  family = sockets.AF_INET6 if ":" in host else sockets.AF_INET
  listener = sockets.socket(family, sockets.SOCK_STREAM)
  try:
    listener.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
    if hasattr(sockets, "TCP_USER_TIMEOUT"):  # accepted sockets inherit it
      milliseconds = int(UNSENT_TIMEOUT * 1_000)
      listener.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_USER_TIMEOUT, milliseconds)
    listener.bind((host, port))
    listener.listen(BACKLOG)
  except BaseException:
    listener.close()
    raise
  return listener


class Gateway:
  """The HTTP server with the agents' door in it.

  Args:
    listener: the bound socket.
    door: what the connections share.
    make_app: makes the application; called with this gateway at each start.
    max_connections: connections at the same time, of agents and callers.
    max_requests: requests under way at the same time.
  """

  def __init__(
    self,
    listener: sockets.socket,
    door: Doorkeeper,
    make_app: Callable[["Gateway"], QuartTrio],
    *,
    max_connections: int,
    max_requests: int,
  ) -> None:
    self._listener = listener
    self._door = door
    self._make_app = make_app
    self._max_connections = max_connections
    self.turnstile = Turnstile(max_requests)
    self.sessions: Sessions = door.sessions
    self.draining = trio.Event()
    self.refused = 0

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Serve until cancelled."""
    app = self.turnstile.guard(refuse_malformed(self._make_app(self)))
    # A duplicate, for it is closed at the end and the gateway may be started again.
    socket = trio.socket.from_stdlib_socket(self._listener.dup())
    async with trio.SocketListener(socket) as listener:
      await serve(
        finish_answers(app),
        _config(self._door),
        listener,
        limit=_room(self._max_connections),
        task_status=task_status,
      )

  async def drain(self) -> None:
    """End the streams, send every agent elsewhere and wait until all are gone."""
    self.draining.set()
    self.turnstile.close()
    self.sessions.close_all(1001, "the server is going away")
    with trio.move_on_after(CLOSE_PATIENCE):
      await self.sessions.wait_empty()
    await self.turnstile.wait_empty()

  async def serve_websocket(self) -> Any:
    """Serve the WebSocket of the current request, or answer why not."""
    if self.sessions.ended is not None:
      return answer_problem(503, "the server is going away", headers=RETRY_AFTER)
    token = _token()
    try:
      database = self._door.database
      grant = await authenticate_token(database, token) if token else None
    except Unavailable:
      return answer_problem(503, "the database is not available", headers=RETRY_AFTER)
    if grant is None:
      self.refused += 1
      what = "wrong" if token else "missing"
      return answer_problem(401, f"the agent token is {what}", headers=CHALLENGE)
    if SUBPROTOCOL not in websocket.requested_subprotocols:
      return answer_problem(400, f"expected the subprotocol {SUBPROTOCOL}")
    await websocket.accept(subprotocol=SUBPROTOCOL)
    current = websocket._get_current_object()  # type: ignore[attr-defined]  # the proxy's target outlives no other way
    await serve_connection(self._door, current, grant)
    return None

  def connections(self) -> list[Connection]:
    """Describe the connected agents."""
    return [session.describe() for session in self.sessions]

  def statistics(self) -> GatewayStatistics:
    """Count what has happened at the door."""
    return GatewayStatistics(
      connections=len(self.sessions),
      opened=self.sessions.opened,
      refused=self.refused,
      run=sum(session.run for session in self.sessions),
      hold=sum(session.hold for session in self.sessions),
      unacknowledged=sum(len(s.unacknowledged) for s in self.sessions),
      waiting_frames=sum(len(s.frames) for s in self.sessions),
      **attrs.asdict(self.sessions.traffic()),
    )


def _config(door: Doorkeeper) -> Config:
  """Make Hypercorn's configuration."""
  config = Config()
  config.keep_alive_timeout = 75
  # We say ourselves what is too large; Hypercorn stops what is far beyond.
  config.websocket_max_message_size = 2 * door.max_message_size
  config.websocket_ping_interval = PING_INTERVAL
  config.include_server_header = False
  config.accesslog = None
  config.errorlog = None
  return config


def _room(wanted: int) -> int:
  """Return how many connections there are open files for, at most as many as wanted."""
  usual, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
  if usual == resource.RLIM_INFINITY:
    return wanted
  return max(1, min(wanted, usual - SPARE_FILES))


def _token() -> str | None:
  """Find the agent's token in the header, or in the query for simple tools."""
  scheme, _, token = websocket.headers.get("Authorization", "").partition(" ")
  if scheme.lower() == "bearer" and token:
    return token.strip()
  return websocket.args.get("token")
