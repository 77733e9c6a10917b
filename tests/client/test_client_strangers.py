"""Whatever answers, the client ends with one of its own errors."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from socket import create_server
from uuid import UUID

import pytest
import trio

from hetuflow.client import (
  ApiError,
  AsyncClient,
  Client,
  LogFollower,
  Place,
  ServerUnreachable,
)
from hetuflow.client.calls import jobs

ID = UUID(int=1)


@contextmanager
def stranger(body: bytes, headers: str = "") -> Iterator[Place]:
  """Answer every request with a body, in a thread."""
  head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
  with closing(create_server(("127.0.0.1", 0))) as listener:

    def serve() -> None:
      """Answer until the listener is closed."""
      with suppress(OSError):
        while True:
          peer, _ = listener.accept()
          with peer, suppress(ConnectionError):
            peer.recv(65_536)
            peer.sendall(head.encode() + body)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
      yield Place(url=f"http://127.0.0.1:{listener.getsockname()[1]}", key="k")
    finally:
      listener.shutdown(2)
      thread.join()


@pytest.mark.parametrize(
  ("body", "headers"),
  [
    (b'{"id":"\xff"}', ""),
    (b"[" * 50_000, ""),
    (b"no gzip", "Content-Encoding: gzip\r\n"),
    (b"<html>", ""),
  ],
)
def test_an_answer_of_a_stranger_is_an_error_of_ours(body: bytes, headers: str) -> None:
  refused = pytest.raises((ApiError, ServerUnreachable))
  with stranger(body, headers) as place, Client(place) as client, refused:
    client.send(jobs.run_job(ID))


async def test_a_stream_without_events_is_not_opened_for_ever() -> None:
  with stranger(b"<html>welcome</html>") as place, trio.fail_after(60):
    with Client(place) as client, pytest.raises(ServerUnreachable):
      list(client.follow(LogFollower(ID)))
    async with AsyncClient(place) as other:
      with pytest.raises(ServerUnreachable):
        [chunk async for chunk in other.follow(LogFollower(ID))]
