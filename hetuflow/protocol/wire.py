"""JSON in and out: the one converter, and the one error for every bad input.

Two ways lead from bytes to attrs objects. Bodies and rare messages go through cattrs,
which runs strict hooks and reports every mistake at once. Batches of the hot path are
decoded by ``msgspec.json.Decoder`` straight into the same classes (500 updates in well
under a millisecond). Both end in ``ProtocolError`` with paths such as
``$.updates[3].status``. Over HTTP unknown keys are refused; over the wire they are
ignored, so that servers and agents of different versions can talk.
"""

import base64
import binascii
import re
import time
import zlib
from collections.abc import Mapping
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from hetuflow.errors import ProtocolError
from hetuflow.protocol.checks import FieldError
from hetuflow.protocol.converter import load
from hetuflow.protocol.messages import (
  BATCHES,
  PAYLOADS,
  Encoding,
  Envelope,
  MessageKind,
)
from hetuflow.protocol.model.ids import new_id
from hetuflow.protocol.values import MAX_DEPTH_ERROR, NUL_ERROR, holds_nul

__all__ = [
  "compress",
  "decode_body",
  "decode_data",
  "decode_envelope",
  "decompress",
  "dump",
  "encode",
  "encode_data",
  "encode_envelope",
  "load",
]

T = TypeVar("T")
NUL = b"\\u0000"
_MSGSPEC_PATH = re.compile(r"^(?P<message>.*?)(?: - at `(?P<path>\$[^`]*)`)?$", re.S)

_MISSING = re.compile(r"^Object missing required field `(?P<field>[^`]*)`$")


# ── encoding ────────────────────────────────────────────────────────────────────────


def encode(value: object) -> bytes:
  """Write any model, message or plain value as JSON; UNSET fields are left out."""
  return msgspec.json.encode(value)


def dump(value: object) -> Any:
  """Turn a model into plain JSON types (for JSON columns and tables)."""
  return msgspec.to_builtins(value)


def encode_envelope(
  kind: MessageKind,
  payload: object,
  *,
  message_id: UUID | None = None,
  metadata: Mapping[str, str] | None = None,
) -> bytes:
  """Put a payload into a fresh envelope and write it as JSON.

  Args:
    kind: what the payload is; its class is ``PAYLOADS[kind]``.
    payload: an object of that class, or ``msgspec.Raw`` with its JSON.
    message_id: of a message that is sent again; else a new one is made.
    metadata: such as ``traceparent``.
  """
  return msgspec.json.encode(
    Envelope(
      message_id=message_id or new_id(),
      timestamp=int(time.time() * 1000),
      message_kind=kind,
      payload=payload,
      metadata=dict(metadata or {}),
    )
  )


def encode_data(data: bytes) -> tuple[str, Encoding]:
  """Put bytes into a JSON string: as text where they are clean UTF-8, else base64."""
  if 0 not in data:
    try:
      return data.decode("utf-8"), Encoding.UTF8
    except UnicodeDecodeError:
      pass
  return base64.b64encode(data).decode("ascii"), Encoding.BASE64


def decode_data(data: str, encoding: Encoding, path: str = "$.data") -> bytes:
  """Take bytes out of a JSON string; the reverse of ``encode_data``.

  Raises:
    ProtocolError: the string is not base64 though it says so.
  """
  if encoding is Encoding.UTF8:
    return data.encode("utf-8")
  try:
    return base64.b64decode(data, validate=True)
  except (binascii.Error, ValueError):
    raise ProtocolError([(path, "expected base64")]) from None


def compress(frame: bytes) -> bytes:
  """Pack an encoded envelope for a binary frame (zlib, RFC 1950, level 1)."""
  return zlib.compress(frame, 1)


def decompress(frame: bytes, limit: int) -> bytes:
  """Unpack a binary frame into at most ``limit`` bytes.

  Raises:
    ProtocolError: it is not one whole zlib stream, or would grow beyond the limit.
  """
  unpacker = zlib.decompressobj()
  try:
    data = unpacker.decompress(frame, limit + 1)
  except zlib.error:
    raise ProtocolError([("$", "expected a zlib-compressed frame")]) from None
  if len(data) > limit:
    raise ProtocolError([("$", f"expected at most {limit} bytes when unpacked")])
  if not unpacker.eof or unpacker.unused_data:
    raise ProtocolError([("$", "expected exactly one zlib-compressed frame")])
  return data


# ── decoding ────────────────────────────────────────────────────────────────────────


class _RawEnvelope(msgspec.Struct):
  """An envelope whose payload has not been looked at yet."""

  message_id: UUID
  timestamp: int
  message_kind: MessageKind
  payload: msgspec.Raw
  metadata: dict[str, str] = msgspec.field(default_factory=dict)


_envelopes = msgspec.json.Decoder(_RawEnvelope)
_batches = {kind: msgspec.json.Decoder(PAYLOADS[kind]) for kind in BATCHES}


def decode_envelope(frame: bytes | str) -> Envelope:
  """Read one message with its payload.

  Raises:
    ProtocolError: it is not JSON, of unknown kind, or a field is wrong.
  """
  raw = _guard(_envelopes.decode, frame)
  kind = raw.message_kind
  try:
    if kind in BATCHES:
      payload = _guard(_batches[kind].decode, raw.payload)
      if NUL in bytes(raw.payload) and _guard(_json_holds_nul, raw.payload):
        raise ProtocolError([("$", NUL_ERROR)])
    else:
      payload = load(PAYLOADS[kind], _guard(msgspec.json.decode, raw.payload))
  except ProtocolError as error:
    nested = [("$.payload" + path[1:], message) for path, message in error.issues]
    raise ProtocolError(nested) from None
  return Envelope(
    message_id=raw.message_id,
    timestamp=raw.timestamp,
    message_kind=kind,
    payload=payload,
    metadata=raw.metadata,
  )


def decode_body(cls: type[T], body: bytes) -> T:
  """Read an HTTP body as ``cls``; unknown keys are refused.

  Raises:
    ProtocolError: with every mistake and its path.
  """
  return load(cls, _guard(msgspec.json.decode, body), strict=True)


def _json_holds_nul(text: Any) -> bool:
  """Tell whether any string of a JSON text holds U+0000."""
  return holds_nul(msgspec.json.decode(text))


def _guard(decode: Any, data: Any) -> Any:
  """Run a msgspec decoder; every failure becomes a ProtocolError with its path."""
  try:
    return decode(data)
  except msgspec.ValidationError as error:
    raise ProtocolError([_issue(error)]) from None
  except (msgspec.DecodeError, UnicodeError) as error:
    raise ProtocolError([("$", f"not JSON: {error}")]) from None
  except RecursionError:
    raise ProtocolError([("$", MAX_DEPTH_ERROR)]) from None


def _issue(error: msgspec.ValidationError) -> tuple[str, str]:
  """Read path and message out of msgspec's text, worded as ``load`` words them."""
  match = _MSGSPEC_PATH.match(str(error))
  message, path = match.group("message", "path") if match else (str(error), None)
  path = path or "$"
  if isinstance(error.__cause__, FieldError):
    return f"{path}.{error.__cause__.field}", error.__cause__.message
  if missing := _MISSING.match(message):
    return f"{path}.{missing['field']}", "required"
  return path, message
