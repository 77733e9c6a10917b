"""The HTTP server: Hypercorn's connections, each on its own.

Run by: the gateway, a task for each connection. A connection owns its socket and the
request on it. When the peer dies its connection ends; when a connection meets a mistake,
of Hypercorn's or ours, it alone ends: Hypercorn itself would end the whole server.

Of Hypercorn's protocols only HTTP/1.1 and WebSockets over it are spoken. An upgrade to
HTTP/2 is not offered without TLS (RFC 9113 has dropped it), and would be a second parser
open to everybody.
"""

from collections.abc import Awaitable, Callable

import h11
import structlog
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState, LifespanState
from hypercorn.utils import parse_socket_addr, wrap_app

__all__ = ["serve"]

_log = structlog.get_logger()


async def serve(
  app: Callable[..., Awaitable[None]],
  config: Config,
  listener: trio.SocketListener,
  *,
  task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
  """Serve an ASGI application until cancelled.

  Args:
    app: the application.
    config: Hypercorn's; what it says of sockets is not used.
    listener: where connections come from.
  """
  wrapped = wrap_app(app, config.wsgi_max_body_size, "asgi")
  state: LifespanState = {}
  lifespan = Lifespan(wrapped, config, state)
  context = WorkerContext(None)

  async def converse(stream: trio.SocketStream) -> None:
    """Serve one connection; its mistakes end here."""
    try:
      await _Connection(wrapped, config, context, state, stream).run()  # type: ignore[arg-type]  # Hypercorn takes both kinds of stream
    except* Exception as errors:
      _log.warning("connection_failed", exc_info=errors)

  async with trio.open_nursery() as nursery:
    await nursery.start(lifespan.handle_lifespan)
    await lifespan.wait_for_startup()
    try:
      await nursery.start(trio.serve_listeners, converse, [listener])
      task_status.started()
      await trio.sleep_forever()
    finally:
      await context.terminated.set()


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
