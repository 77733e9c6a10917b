"""Validators for attrs fields that name the field they refuse.

cattrs reports an error raised inside ``__init__`` against the whole class;
``FieldError`` carries the field's name so that ``wire`` can report ``$.field``.
"""

import json
import re
from collections.abc import Callable
from typing import Any

import attrs
import msgspec
from msgspec import UNSET

__all__ = [
  "FieldError",
  "at_least",
  "between",
  "check",
  "fits_a_message",
  "length",
  "matching",
]

MAX_JSON_MIB = 4
"""MiB of JSON for a configuration and for parameters: a dispatch carries one of each, and
an agent reads no message beyond 32 MiB."""
_EXPONENT = re.compile(rb"[0-9]e[0-9]")

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]


class FieldError(ValueError):
  """A field holds a value of the right type that is out of bounds.

  Args:
    field: the name of the field, or a path below the object such as ``dst.gap``.
    message: what is expected.
  """

  def __init__(self, field: str, message: str) -> None:
    self.field = field
    self.message = message
    super().__init__(f"{field}: {message}")


def check(test: Callable[[Any], bool], expected: str) -> Validator:
  """Accept None, UNSET and values that pass ``test``; ``expected`` completes the error."""

  def validate(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
    """Refuse a value that is there and fails the test."""
    if value is not None and value is not UNSET and not test(value):
      raise FieldError(attribute.name, f"expected {expected}")

  return validate


def at_least(minimum: float) -> Validator:
  """Accept numbers not below ``minimum``."""
  return check(lambda value: value >= minimum, f"at least {minimum:.15g}")


def between(minimum: float, maximum: float) -> Validator:
  """Accept numbers from ``minimum`` to ``maximum``, both included."""
  return check(
    lambda value: minimum <= value <= maximum,
    f"a number between {minimum:.15g} and {maximum:.15g}",
  )


def length(minimum: int, maximum: int) -> Validator:
  """Accept strings and collections with ``minimum`` to ``maximum`` elements."""
  return check(
    lambda value: minimum <= len(value) <= maximum,
    f"a length between {minimum} and {maximum}",
  )


def matching(pattern: str, expected: str) -> Validator:
  """Accept strings that match the whole regular expression ``pattern``."""
  compiled = re.compile(pattern)
  return check(lambda value: compiled.fullmatch(value) is not None, expected)


def _json_size(value: Any) -> int:
  """Count the bytes of a value as JSON once PostgreSQL has kept it.

  There 1e300 is a number like any other, and comes back as an integer of 301 digits.
  """
  text = msgspec.json.encode(value)
  if _EXPONENT.search(text):
    text = msgspec.json.encode(json.loads(text, parse_float=_spelt_out))
  return len(text)


def _spelt_out(digits: str) -> float:
  """Read a number with a point or an exponent; a whole one is an integer."""
  number = float(digits)
  return int(number) if number.is_integer() else number


fits_a_message = check(
  lambda value: _json_size(value) <= MAX_JSON_MIB * 1024**2,
  f"at most {MAX_JSON_MIB} MiB as JSON",
)
"""Accepts what a task can be dispatched with."""
