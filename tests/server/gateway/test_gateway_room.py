"""How much a server takes on at once, and what of it a stopping server finishes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from gateway_scene import Scene, open_gateway
from structlog.testing import capture_logs
from support.programs import wait_until
from trio.testing import wait_all_tasks_blocked

from hetuflow.storage.connect import Database

LIMIT_S = 30.0
HEAD = (
  b"POST /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 4\r\n\r\n"
)
HEALTH = b"GET /api/v1/system/health HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


@asynccontextmanager
async def slow_request(scene: Scene) -> AsyncIterator[trio.SocketStream]:
  """Send half of a request and wait until it is under way."""
  before = scene.gateway.turnstile.under_way
  async with await trio.open_tcp_stream("127.0.0.1", scene.port) as stream:
    await stream.send_all(HEAD + b"sl")
    await wait_until(lambda: scene.gateway.turnstile.under_way > before)
    yield stream


async def read_all(stream: trio.SocketStream) -> bytes:
  """Read until the server closes."""
  return b"".join([piece async for piece in stream])


async def exchange(scene: Scene, request: bytes) -> bytes:
  """Send a request on a connection of its own and return the answer."""
  async with await trio.open_tcp_stream("127.0.0.1", scene.port) as stream:
    await stream.send_all(request)
    return await read_all(stream)


def check_refusal(answer: bytes) -> None:
  """Demand the problem of a server that has no room now."""
  head, _, body = answer.partition(b"\r\n\r\n")
  assert head.startswith(b"HTTP/1.1 503 ")
  assert b"application/problem+json" in head
  assert b"retry-after: 1" in head.lower()
  assert b'"status":503' in body


async def test_a_drain_waits_for_requests_under_way_and_refuses_new_ones(
  database: Database,
) -> None:
  with trio.fail_after(LIMIT_S):
    async with open_gateway(database) as scene, trio.open_nursery() as nursery:
      drained = trio.Event()

      async def drain() -> None:
        """Drain the gateway and say so."""
        await scene.gateway.drain()
        drained.set()

      async with slow_request(scene) as stream:
        nursery.start_soon(drain)
        await wait_all_tasks_blocked()
        check_refusal(await exchange(scene, HEAD + b"late"))
        assert (await exchange(scene, HEALTH)).startswith(b"HTTP/1.1 404")
        assert not drained.is_set()
        await stream.send_all(b"ow")
        assert (await read_all(stream)).endswith(b"\r\n\r\nslow")
      await drained.wait()


async def test_a_drain_does_not_wait_for_a_caller_who_has_left(
  database: Database,
) -> None:
  with trio.fail_after(LIMIT_S):
    async with open_gateway(database) as scene:
      async with slow_request(scene):
        pass
      await scene.gateway.drain()


async def test_more_requests_than_a_server_takes_are_refused(
  database: Database,
) -> None:
  with trio.fail_after(LIMIT_S):
    async with open_gateway(database, max_requests=1) as scene:
      async with slow_request(scene) as stream:
        with capture_logs() as lines:
          check_refusal(await exchange(scene, HEAD + b"more"))
        assert [line["event"] for line in lines] == ["request_refused"]
        assert (await exchange(scene, HEALTH)).startswith(b"HTTP/1.1 404")
        await stream.send_all(b"ow")
        assert (await read_all(stream)).endswith(b"slow")
      await wait_until(lambda: scene.gateway.turnstile.under_way == 0)
      assert (await exchange(scene, HEAD + b"more")).endswith(b"more")


async def test_more_connections_than_a_server_takes_are_turned_away(
  database: Database,
) -> None:
  with trio.fail_after(LIMIT_S):
    async with open_gateway(database, max_connections=1) as scene:
      async with slow_request(scene) as stream:
        with capture_logs() as lines:
          check_refusal(await exchange(scene, HEALTH))
          async with await trio.open_tcp_stream("127.0.0.1", scene.port) as mute:
            check_refusal(await read_all(mute))
        assert [line["event"] for line in lines] == ["request_refused"] * 2
        await stream.send_all(b"ow")
        assert (await read_all(stream)).endswith(b"slow")

      async def is_let_in() -> bool:
        """Tell whether a connection is served now."""
        return (await exchange(scene, HEAD + b"more")).endswith(b"more")

      await wait_until(is_let_in)
