"""The WebSocket of a session: opened, closed, and nothing left of it.

trio-websocket forgets to close the TCP stream when the server refuses the upgrade or
closes first, so the stream is ours. Its own errors and those of the network become
``Offline``, apart from a refused upgrade, whose status means something.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import trio
from trio_websocket import (
  ConnectionClosed,
  ConnectionRejected,
  HandshakeError,
  WebSocketConnection,
  wrap_client_stream,
)

from hetuflow.agent.link.endpoints import Endpoint
from hetuflow.agent.link.link import MAX_FRAME_BYTES
from hetuflow.nursery.groups import sole_leaf

__all__ = ["GOODBYE_SECONDS", "Offline", "Rejected", "open_websocket"]

SUBPROTOCOL = "hetuflow.v1"
CONNECT_SECONDS = 5.0
GOODBYE_SECONDS = 2.0
QUEUE_MESSAGES = 64
RECEIVE_BYTES = 256 * 1024

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]
PORTS = {"ws": 80, "wss": 443}


class Offline(Exception):
  """No server can be reached there now; says why in words."""


class Rejected(Exception):
  """The server answered the upgrade with something else.

  Args:
    status: the HTTP status.
  """

  def __init__(self, status: int) -> None:
    self.status = status
    super().__init__(f"HTTP {status}")


@asynccontextmanager
async def open_websocket(endpoint: Endpoint) -> AsyncIterator[WebSocketConnection]:
  """Connect to a gateway for the block.

  Args:
    endpoint: where, and with which token.

  Raises:
    Offline: there is no gateway, or it does not answer in time.
    Rejected: it does not want us.
  """
  stream = await _connect(endpoint.url)
  problem: BaseException | None = None
  try:
    async with trio.open_nursery() as nursery:
      socket = await _upgrade(nursery, stream, endpoint)
      yield socket
      with trio.move_on_after(GOODBYE_SECONDS):
        await socket.aclose()
      nursery.cancel_scope.cancel()
  except BaseExceptionGroup as group:
    problem = sole_leaf(group)
  finally:
    await trio.aclose_forcefully(stream)
  match problem:
    case None:
      return
    case ConnectionRejected(status_code=status):  # raised by the library's own task
      raise Rejected(status)
    case HandshakeError():
      raise Offline(f"the upgrade failed: {problem!r}") from problem
  raise problem


async def _connect(address: str) -> Stream:
  """Open the TCP stream, encrypted if the URL says so."""
  try:
    url = urlsplit(address)
    host, port = url.hostname or "", url.port or PORTS[url.scheme]
    with trio.fail_after(CONNECT_SECONDS):
      if url.scheme == "ws":
        return await trio.open_tcp_stream(host, port)
      return await _encrypted(await trio.open_tcp_stream(host, port), host)
  except trio.TooSlowError:
    raise Offline("nobody answers") from None
  except trio.BrokenResourceError as error:
    raise Offline(f"no TLS connection: {error.__cause__ or error}") from error
  except (OSError, ValueError) as error:  # the second of what is no address at all
    raise Offline(str(error)) from error


async def _encrypted(
  stream: trio.SocketStream, host: str
) -> trio.SSLStream[trio.SocketStream]:
  """Agree on encryption at once: later nobody would say why it cannot be had."""
  try:
    secure = trio.SSLStream(
      stream, ssl.create_default_context(), server_hostname=host, https_compatible=True
    )
    await secure.do_handshake()
  except BaseException:
    await trio.aclose_forcefully(stream)
    raise
  return secure


async def _upgrade(
  nursery: trio.Nursery, stream: Stream, endpoint: Endpoint
) -> WebSocketConnection:
  """Ask for the WebSocket."""
  url = urlsplit(endpoint.url)
  query = f"?{url.query}" if url.query else ""
  try:
    with trio.fail_after(CONNECT_SECONDS):
      return await wrap_client_stream(
        nursery,
        stream,
        url.netloc.rpartition("@")[2],
        (url.path or "/") + query,
        subprotocols=[SUBPROTOCOL],
        extra_headers=[(b"Authorization", b"Bearer " + endpoint.token.encode())],
        message_queue_size=QUEUE_MESSAGES,
        max_message_size=MAX_FRAME_BYTES,
        receive_buffer_size=RECEIVE_BYTES,
      )
  except trio.TooSlowError:
    raise Offline("the server does not answer the upgrade") from None
  except ConnectionClosed as error:
    raise Offline(f"the upgrade failed: {error!r}") from error
