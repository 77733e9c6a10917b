"""Output that is followed arrives whole, whatever the connections do."""

import json
from uuid import UUID

import pytest

from hetuflow.client import LogFollower
from hetuflow.client.logs import LogPage, log_page
from hetuflow.errors import ProtocolError
from hetuflow.protocol.states import LogStream, TaskInstanceStatus

ID = UUID("0190a8b4-7c00-7000-8000-000000000004")


def chunk(stream: str, offset: int, data: str, encoding: str = "utf8") -> bytes:
  """Write an event with a piece of output."""
  said = {"stream": stream, "offset": offset, "data": data, "encoding": encoding}
  return f"event: chunk\ndata: {json.dumps(said)}\n\n".encode()


END = b'event: end\ndata: {"status": "failed", "exit_code": 3}\n\n'


def test_a_stream_may_be_cut_anywhere() -> None:
  text = (
    b": hello\n\n"
    + chunk("stdout", 0, "grün\n")
    + chunk("stderr", 0, "/w==", "base64")
    + END
  )
  for size in (1, 2, 7, len(text)):
    follower = LogFollower(ID)
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    seen = [piece for data in pieces for piece in follower.feed(data)]
    assert [(each.stream, each.data) for each in seen] == [
      (LogStream.STDOUT, "grün\n".encode()),
      (LogStream.STDERR, b"\xff"),
    ]
    assert follower.end is not None
    assert follower.end.status is TaskInstanceStatus.FAILED
    assert follower.end.exit_code == 3


def test_lines_may_end_with_carriage_returns() -> None:
  follower = LogFollower(ID)
  text = (chunk("stdout", 0, "a") + END).replace(b"\n", b"\r\n")
  seen = [piece for byte in text for piece in follower.feed(bytes([byte]))]
  assert [each.data for each in seen] == [b"a"]
  assert follower.end is not None


def test_a_new_connection_goes_on_behind_the_last_whole_piece() -> None:
  follower = LogFollower(ID, stream=LogStream.STDOUT)
  list(follower.feed(chunk("stdout", 0, "grün") + chunk("stdout", 5, "lost")[:-1]))
  assert follower.call().parameters() == {"stream": "stdout", "offset": "5"}
  assert [each.data for each in follower.feed(chunk("stdout", 5, "lost"))] == [b"lost"]


def test_of_both_streams_the_pieces_are_counted() -> None:
  follower = LogFollower(ID)
  list(follower.feed(chunk("stdout", 0, "abc") + chunk("stderr", 0, "de")))
  assert follower.call().parameters() == {"stream": "all", "offset": "2"}
  assert follower.call().headers()["Accept"].startswith("text/event-stream")


def test_events_of_a_newer_server_are_left_alone() -> None:
  follower = LogFollower(ID)
  assert list(follower.feed(b"event: weather\ndata: fine\nid: 5\n\n")) == []
  assert follower.end is None


@pytest.mark.parametrize(
  "event", [b"event: chunk\ndata: {\n\n", b'event: end\ndata: {"status": "fine"}\n\n']
)
def test_an_event_that_breaks_the_promise_is_an_error(event: bytes) -> None:
  with pytest.raises(ProtocolError):
    list(LogFollower(ID).feed(event))


def test_a_page_unwraps_its_pieces() -> None:
  body = {
    "items": [{"stream": "stdout", "offset": 2, "data": "aGkK", "encoding": "base64"}],
    "next_offset": 5,
    "complete": True,
  }
  page = log_page(ID, stream=LogStream.STDOUT, offset=2).result(
    200, json.dumps(body).encode()
  )
  assert isinstance(page, LogPage)
  assert page.items[0].data == b"hi\n"
  assert (page.next_offset, page.complete) == (5, True)
