"""The plain values of JSON, taken strictly: one hook of cattrs for each type.

What is taken can be stored by PostgreSQL and written as JSON again: nothing is guessed,
``"5"`` is no number and 1 is not true.
"""

import math
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, cast
from uuid import UUID

import msgspec

__all__ = ["HOOKS", "MAX_DEPTH_ERROR", "NUL_ERROR", "holds_nul", "take_json"]

NUL = b"\\u0000"
UUID_LENGTH = 36
MAX_DEPTH = 100
"""How deeply a JSON object of the user's may nest objects and arrays."""
FIRST_YEAR, LAST_YEAR = 1900, 9998
MAX_DEPTH_ERROR = "nested too deeply"
NUL_ERROR = "U+0000 is not allowed"
SURROGATE_ERROR = "lone surrogates are not allowed"


def _text(value: Any, _: Any) -> str:
  """Take a string; what PostgreSQL cannot store (U+0000, surrogates) is refused."""
  if type(value) is not str:
    raise ValueError("expected a string")
  if "\x00" in value:
    raise ValueError(NUL_ERROR)
  if not value.isascii():
    try:
      value.encode("utf-8")
    except UnicodeEncodeError:
      raise ValueError(SURROGATE_ERROR) from None
  return value


def _flag(value: Any, _: Any) -> bool:
  """Take true or false and nothing that merely looks like it."""
  if type(value) is not bool:
    raise ValueError("expected true or false")
  return value


def _integer(value: Any, _: Any) -> int:
  """Take an integer that PostgreSQL can hold."""
  if type(value) is not int:
    raise ValueError("expected an integer")
  if not -(2**63) <= value < 2**63:
    raise ValueError("expected an integer of at most 64 bits")
  return value


def _number(value: Any, _: Any) -> float:
  """Take a finite number."""
  with suppress(OverflowError):
    if type(value) in (int, float) and math.isfinite(value):
      return float(value)
  raise ValueError("expected a number")


def _uuid(value: Any, _: Any) -> UUID:
  """Take a UUID in its text form (RFC 9562, section 4); UUID() knows more spellings."""
  if isinstance(value, UUID):
    return value
  if isinstance(value, str) and len(value) == UUID_LENGTH:
    try:
      return UUID(value)
    except ValueError:
      pass
  raise ValueError("expected a UUID")


def _instant(value: Any, _: Any) -> datetime:
  """Take an RFC 3339 time with its offset and bring it to UTC."""
  if not isinstance(value, datetime):
    try:
      value = msgspec.convert(value, datetime)
    except msgspec.ValidationError:
      raise ValueError("expected an RFC 3339 time") from None
  if value.tzinfo is None:
    raise ValueError("expected a time with its offset, such as 2026-01-01T00:00:00Z")
  try:
    moment = cast(datetime, value).astimezone(UTC)
  except OverflowError:
    moment = datetime.max.replace(tzinfo=UTC)
  # Beyond lie moments that the database driver takes for infinity.
  if not FIRST_YEAR <= moment.year <= LAST_YEAR:
    raise ValueError(f"expected a time between the years {FIRST_YEAR} and {LAST_YEAR}")
  return moment


def _enumeration(value: Any, cls: Any) -> Any:
  """Take one of the values of an enumeration."""
  try:
    return cls(value)
  except ValueError:
    expected = ", ".join(str(member.value) for member in cls)
    raise ValueError(f"expected one of {expected}") from None


def take_json(value: Any, _: Any) -> dict[str, Any]:
  """Take a JSON object whose inside is the user's, if it can be stored and sent on.

  The depth is bounded here: what was parsed on a shallow stack could otherwise fail to
  be written on a deeper one.
  """
  if type(value) is not dict:
    raise ValueError("expected an object")
  try:
    text = msgspec.json.encode(value)
  except UnicodeEncodeError:
    raise ValueError(SURROGATE_ERROR) from None
  if text.count(b"[") + text.count(b"{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
    raise ValueError(MAX_DEPTH_ERROR)
  if NUL in text and holds_nul(value):
    raise ValueError(NUL_ERROR)
  return value


def _depth(value: Any) -> int:
  """Count how deeply objects and arrays are nested, without recursion."""
  depth = 0
  level = [value]
  while level := [item for item in level if isinstance(item, dict | list)]:
    depth += 1
    level = [
      inner
      for item in level
      for inner in (item.values() if isinstance(item, dict) else item)
    ]
  return depth


def holds_nul(value: Any) -> bool:
  """Tell whether any string inside holds U+0000."""
  if isinstance(value, str):
    return "\x00" in value
  if isinstance(value, dict):
    return any(holds_nul(key) or holds_nul(item) for key, item in value.items())
  return isinstance(value, list) and any(map(holds_nul, value))


HOOKS: dict[Any, Any] = {
  str: _text,
  bool: _flag,
  int: _integer,
  float: _number,
  UUID: _uuid,
  datetime: _instant,
  # Every enumeration of the protocol is a StrEnum, which comes before str.
  StrEnum: _enumeration,
}
"""For each type what takes a value of it, or raises ValueError."""
