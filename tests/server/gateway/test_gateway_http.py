"""What strangers send to the port, through real sockets."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import trio
from gateway_scene import Scene, open_gateway
from structlog.testing import capture_logs

from hetuflow.protocol.messages import HeartbeatRequest, HeartbeatResponse, MessageKind
from hetuflow.protocol.model import new_id
from hetuflow.storage.connect import Database

HELLO = "GET /nothing HTTP/1.1\r\nHost: h\r\n"
UPGRADE = (
  "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
TO_HTTP2 = "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n"


@pytest.fixture
async def scene(database: Database) -> AsyncIterator[Scene]:
  with trio.fail_after(60):
    async with open_gateway(database) as running:
      yield running


async def exchange(scene: Scene, request: bytes) -> bytes:
  """Send bytes and return all that comes until the server closes."""
  stream = await trio.open_tcp_stream("127.0.0.1", scene.port)
  async with stream:
    await stream.send_all(request)
    return b"".join([piece async for piece in stream])


@pytest.mark.parametrize(
  "request_",
  [
    f"{HELLO}{TO_HTTP2}HTTP2-Settings: A\r\n\r\n".encode(),
    f"{HELLO}{TO_HTTP2}HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n".encode(),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 1_000,
    b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(100),
    f"{UPGRADE}Sec-WebSocket-Version: 13\r\n\r\n".encode() + b"\xff" * 1_000,
    b"\0" * 100_000,
    f"{HELLO}{'X: y' * 50_000}\r\n\r\n".encode(),
  ],
)
async def test_what_one_stranger_sends_ends_nobody_elses_session(
  scene: Scene, request_: bytes
) -> None:
  async with scene.connect() as peer:
    await peer.register()
    await exchange(scene, request_)
    await peer.send(MessageKind.HEARTBEAT_REQUEST, HeartbeatRequest(sent_at=1.0))
    assert isinstance((await peer.receive()).payload, HeartbeatResponse)


async def test_http2_is_not_spoken(scene: Scene) -> None:
  settings = "HTTP2-Settings: AAMAAABkAAQAAP__\r\nAccept: */*\r\n\r\n"
  answer = await exchange(scene, f"{HELLO}{TO_HTTP2}{settings}".encode())
  assert answer.startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize(
  ("target", "headers"),
  [
    ("?", "Host: h"),
    ("/", f"Host: {'h' * 64}"),
    ("/", "Host: a b"),
    ("/", "Host: a..b"),
    ("/", "Host: [::1"),
    ("/", "Host: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked"),
  ],
)
@pytest.mark.parametrize("upgrade", [False, True])
async def test_a_malformed_request_is_answered_by_a_problem_and_logged_once(
  scene: Scene, target: str, headers: str, upgrade: bool
) -> None:
  more = UPGRADE.partition("Host: h\r\n")[2] + "Sec-WebSocket-Version: 13\r\n"
  text = f"GET {target} HTTP/1.1\r\n{headers}\r\n{more if upgrade else ''}\r\n"
  with capture_logs() as lines:
    head, _, body = (await exchange(scene, text.encode())).partition(b"\r\n\r\n")
  assert head.startswith(b"HTTP/1.1 400")
  assert b"application/problem+json" in head
  [line] = [line for line in lines if line["event"] == "request_refused"]
  problem = json.loads(body)
  assert (problem["status"], problem["detail"]) == (400, line["reason"])
  assert problem["trace_id"] == line["trace_id"]


@pytest.mark.parametrize(
  "host", ["h", "h:8080", "a-b_c.example.", "127.0.0.1", "[::1]:80"]
)
async def test_names_and_addresses_of_hosts_are_taken(scene: Scene, host: str) -> None:
  text = f"GET /{new_id()} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
  assert (await exchange(scene, text.encode())).startswith(b"HTTP/1.1 404")


def check_refusal(answer: bytes, lines: Sequence[Any], status: int) -> None:
  """Demand a problem with a status that has one line in the log."""
  head, _, body = answer.partition(b"\r\n\r\n")
  assert head.startswith(f"HTTP/1.1 {status} ".encode())
  assert b"application/problem+json" in head
  problem = json.loads(body)
  [line] = [line for line in lines if line["event"] == "request_refused"]
  assert problem["status"] == line["status"] == status
  assert problem["detail"] == line["reason"]
  assert problem["trace_id"] == line["trace_id"]


@pytest.mark.parametrize(
  ("request_", "status"),
  [
    (b"\0\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/9.9 \r\n\r\n", 400),
    (f"{HELLO}{'X: y' * 50_000}\r\n\r\n".encode(), 431),
  ],
)
async def test_what_is_no_http_is_answered_by_a_problem_and_logged_once(
  scene: Scene, request_: bytes, status: int
) -> None:
  with capture_logs() as lines:
    answer = await exchange(scene, request_)
  check_refusal(answer, lines, status)


@pytest.mark.parametrize("version", ["", "Sec-WebSocket-Version: 99\r\n"])
async def test_a_wrong_handshake_is_answered_and_its_connection_closed(
  scene: Scene, version: str
) -> None:
  with capture_logs() as lines:
    answer = await exchange(scene, f"{UPGRADE}{version}\r\n".encode())
  check_refusal(answer, lines, 400)


async def test_the_socket_of_a_peer_that_has_gone_is_not_kept(scene: Scene) -> None:
  stream = await trio.open_tcp_stream("127.0.0.1", scene.port)
  async with stream:
    await stream.send_all(f"{HELLO}\r\n".encode())
    await stream.receive_some(1)
    await stream.send_eof()
    with trio.fail_after(10):
      assert [piece async for piece in stream]
