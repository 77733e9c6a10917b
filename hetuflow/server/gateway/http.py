"""The HTTP server: Hypercorn's connections, each on its own.

Run by: the gateway, a task for each connection. A connection owns its socket and the
request on it. When the peer dies its connection ends; when a connection meets a mistake,
of Hypercorn's or ours, it alone ends: Hypercorn itself would end the whole server.

Of Hypercorn's protocols only HTTP/1.1 and WebSockets over it are spoken. An upgrade to
HTTP/2 is not offered without TLS (RFC 9113 has dropped it), and would be a second parser
open to everybody.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus

import h11
import structlog
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Response
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState, LifespanState
from hypercorn.utils import parse_socket_addr, wrap_app

from hetuflow.server.gateway.asgi import make_problem

__all__ = ["serve"]

BARE = [(b"content-length", b"0"), (b"connection", b"close")]
"""The headers of what Hypercorn answers by itself."""
REASONS = {
  HTTPStatus.BAD_REQUEST: "expected a request of HTTP/1.1, or a WebSocket of version 13",
  HTTPStatus.INTERNAL_SERVER_ERROR: "unexpected",
}
GOODBYE_TIMEOUT = 1.0
"""Seconds a peer that is turned away has to take the answer."""

_log = structlog.get_logger()


async def serve(
  app: Callable[..., Awaitable[None]],
  config: Config,
  listener: trio.SocketListener,
  *,
  limit: int,
  task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
  """Serve an ASGI application until cancelled.

  Args:
    app: the application.
    config: Hypercorn's; what it says of sockets is not used.
    listener: where connections come from.
    limit: connections at the same time; more are told to come again.
  """
  wrapped = wrap_app(app, config.wsgi_max_body_size, "asgi")
  state: LifespanState = {}
  lifespan = Lifespan(wrapped, config, state)
  context = WorkerContext(None)
  open_connections = 0

  async def converse(stream: trio.SocketStream) -> None:
    """Serve one connection, if there is room; its mistakes end here."""
    nonlocal open_connections
    if open_connections >= limit:
      await _turn_away(stream)
      return
    open_connections += 1
    try:
      await _Connection(wrapped, config, context, state, stream).run()  # type: ignore[arg-type]  # Hypercorn takes both kinds of stream
    except* Exception as errors:
      _log.warning("connection_failed", exc_info=errors)
    finally:
      open_connections -= 1

  async with trio.open_nursery() as nursery:
    await nursery.start(lifespan.handle_lifespan)
    await lifespan.wait_for_startup()
    try:
      await nursery.start(trio.serve_listeners, converse, [listener])
      task_status.started()
      await trio.sleep_forever()
    finally:
      await context.terminated.set()


async def _turn_away(stream: trio.SocketStream) -> None:
  """Tell a peer that there is no room, whatever it would have asked."""
  status = HTTPStatus.SERVICE_UNAVAILABLE
  headers, body = make_problem(status, "too many connections are open; try again")
  lines = [b"%s: %s" % header for header in [*headers, (b"retry-after", b"1")]]
  head = b"HTTP/1.1 %d %s" % (status, status.phrase.encode())
  with trio.move_on_after(GOODBYE_TIMEOUT), suppress(trio.BrokenResourceError):
    await stream.send_all(b"\r\n".join([head, *lines, b"", body]))
    # What is closed before it was read is reset, and the answer may be lost.
    await stream.receive_some(MAX_RECV)
  await trio.aclose_forcefully(stream)


class _Connection(TCPServer):
  """One connection of a peer."""

  async def run(self) -> None:
    """Serve it to its end."""
    try:
      socket = self.stream.socket  # there is no TLS here
      client = parse_socket_addr(socket.family, socket.getpeername())
      server = parse_socket_addr(socket.family, socket.getsockname())
      async with TaskGroup() as self._task_group:
        self.protocol = _Http11(  # type: ignore[assignment]  # what Hypercorn's wrapper wraps
          self.app,
          self.config,
          self.context,
          self._task_group,
          ConnectionState(self.state),
          False,
          client,
          server,
          self.protocol_send,
        )
        await self.idle_task.restart(self._task_group, self._idle_timeout)
        await self._read_data()
        # Hypercorn would keep the socket for as long as an idle peer is waited for.
        await self.idle_task.stop()
    except OSError:
      pass  # gone before it was looked at
    finally:
      await self._close()


class _Http11(H11Protocol):
  """HTTP/1.1 and WebSockets."""

  async def _check_protocol(self, event: h11.Request) -> None:
    """Leave a request as it is, whatever it would like to be upgraded to."""

  async def handle(self, event: Event) -> None:
    """Act on what the peer sent; close where a WebSocket has been refused.

    Hypercorn answers a wrong handshake and then keeps the connection for ever.
    """
    await super().handle(event)
    if isinstance(self.stream, WSStream) and self.stream.closed:
      await self.send(Closed())

  async def stream_send(self, event: StreamEvent) -> None:
    """Pass an answer on; what Hypercorn refuses itself, without a word, gets a body."""
    if (
      isinstance(event, Response) and event.headers == BARE and self.stream is not None
    ):
      await self._send_problem(event.status_code, str(self.stream.scope.get("method")))
    else:
      await super().stream_send(event)

  async def _send_error_response(self, status_code: int) -> None:
    """Refuse what is no HTTP."""
    await self._send_problem(status_code, "GET")
    await self._send_h11_event(h11.EndOfMessage())

  async def _send_problem(self, status_code: int, method: str) -> None:
    """Send the problem of a request that has not reached the application."""
    status = HTTPStatus(status_code)
    headers, body = make_problem(status, REASONS.get(status, status.description))
    await self._send_h11_event(h11.Response(headers=headers, status_code=status_code))
    if method != "HEAD":
      await self._send_h11_event(h11.Data(data=body))
