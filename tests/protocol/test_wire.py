"""Frames and bytes: envelopes, compression, output in JSON strings."""

import zlib
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetuflow.errors import ProtocolError
from hetuflow.protocol import wire
from hetuflow.protocol.messages import (
  AcquireTaskRequest,
  Encoding,
  MessageKind,
)

MESSAGE = UUID("0190a8b4-7c00-7000-8000-000000000009")


def issues_of(error: pytest.ExceptionInfo[ProtocolError]) -> dict[str, str]:
  """Return what is wrong by path."""
  return dict(error.value.issues)


@given(st.binary())
def test_output_survives_its_way_through_a_json_string(data: bytes) -> None:
  text, encoding = wire.encode_data(data)
  assert wire.decode_data(text, encoding) == data


def test_clean_text_stays_readable() -> None:
  assert wire.encode_data("grün\n".encode()) == ("grün\n", Encoding.UTF8)


def test_zero_bytes_and_broken_text_are_wrapped() -> None:
  assert wire.encode_data(b"a\0") == ("YQA=", Encoding.BASE64)
  assert wire.encode_data(b"\xff") == ("/w==", Encoding.BASE64)


@pytest.mark.parametrize("text", ["YQA", "YQA=\n", "é", "****"])
def test_what_is_not_base64_is_refused_with_its_path(text: str) -> None:
  with pytest.raises(ProtocolError) as error:
    wire.decode_data(text, Encoding.BASE64, "$.chunks[2].data")
  assert issues_of(error) == {"$.chunks[2].data": "expected base64"}


@given(st.binary(max_size=2_000))
def test_a_frame_is_unpacked_as_it_was_packed(frame: bytes) -> None:
  assert wire.decompress(wire.compress(frame), len(frame)) == frame


def test_a_frame_may_have_just_the_greatest_size() -> None:
  assert wire.decompress(wire.compress(b"x" * 100), 100) == b"x" * 100
  with pytest.raises(ProtocolError, match="at most 99 bytes"):
    wire.decompress(wire.compress(b"x" * 100), 99)


def test_a_bomb_is_refused_before_it_grows() -> None:
  bomb = zlib.compress(b"\0" * 200_000_000, 9)
  with pytest.raises(ProtocolError, match="at most 1000 bytes"):
    wire.decompress(bomb, 1_000)


@pytest.mark.parametrize(
  "frame",
  [
    wire.compress(b"{}" * 100)[:-1],
    wire.compress(b"{}") + b"more",
    wire.compress(b"{}") * 2,
    b"",
  ],
  ids=["cut short", "garbage behind", "two streams", "empty"],
)
def test_a_frame_is_one_whole_stream(frame: bytes) -> None:
  with pytest.raises(ProtocolError, match="exactly one"):
    wire.decompress(frame, 1_000)


def test_noise_is_no_frame() -> None:
  with pytest.raises(ProtocolError, match="zlib-compressed"):
    wire.decompress(b"\x01noise", 1_000)


def test_a_message_sent_again_keeps_its_id() -> None:
  frame = wire.encode_envelope(
    MessageKind.ACQUIRE_TASK_REQUEST, AcquireTaskRequest(run=1), message_id=MESSAGE
  )
  assert wire.decode_envelope(frame).message_id == MESSAGE


def test_each_new_message_has_an_id_of_its_own_in_the_order_of_making() -> None:
  frames = [
    wire.encode_envelope(MessageKind.ACQUIRE_TASK_REQUEST, AcquireTaskRequest())
    for _ in range(3)
  ]
  ids = [wire.decode_envelope(frame).message_id for frame in frames]
  assert sorted(set(ids)) == ids
  assert {id.version for id in ids} == {7}


@pytest.mark.parametrize(
  ("frame", "path"),
  [
    (b"", "$"),
    (b"[]", "$"),
    (b"{", "$"),
    (b"\xff\xfe", "$"),
    ("\ud800", "$"),
    (b'{"message_id":"x"}', "$.message_id"),
    (
      b'{"message_id":"%s","timestamp":1,"message_kind":"gossip","payload":{}}'
      % str(MESSAGE).encode(),
      "$.message_kind",
    ),
    (
      b'{"message_id":"%s","timestamp":1,"message_kind":"ack"}' % str(MESSAGE).encode(),
      "$.payload",
    ),
  ],
)
def test_a_frame_that_is_no_envelope_is_refused(frame: bytes | str, path: str) -> None:
  with pytest.raises(ProtocolError) as error:
    wire.decode_envelope(frame)
  assert list(issues_of(error)) == [path]
