"""The JSON that the docstrings show is what the classes take and give."""

import inspect
import json
from typing import Any

import attrs
import pytest
from protocol_classes import CLASSES, example_of

from hetuflow.protocol import messages, model, wire


def test_every_class_shows_an_example() -> None:
  silent = [cls.__name__ for cls in CLASSES if example_of(cls) is None]
  assert silent == []


def test_the_packages_define_no_class_beyond_these_modules() -> None:
  exported = {
    cls
    for package in (model, messages)
    for _, cls in inspect.getmembers(package, inspect.isclass)
    if attrs.has(cls)
  }
  assert exported <= set(CLASSES)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_an_example_is_taken_and_given_back(cls: type[Any]) -> None:
  text = example_of(cls)
  assert text is not None
  taken = wire.decode_body(cls, text.encode())
  assert isinstance(taken, cls)
  assert wire.load(cls, json.loads(text)) == taken
  assert wire.decode_body(cls, wire.encode(taken)) == taken
  assert wire.load(cls, wire.dump(taken), strict=True) == taken


@pytest.mark.parametrize("kind", messages.MessageKind)
def test_the_example_of_every_payload_travels_in_an_envelope(
  kind: messages.MessageKind,
) -> None:
  cls = messages.PAYLOADS[kind]
  text = example_of(cls)
  assert text is not None
  payload = wire.decode_body(cls, text.encode())
  received = wire.decode_envelope(
    wire.encode_envelope(kind, payload, metadata={"traceparent": "00-1-2-01"})
  )
  assert received.payload == payload
  assert received.message_kind is kind
  assert received.metadata == {"traceparent": "00-1-2-01"}
