"""The one converter between plain JSON types and the protocol's attrs classes.

cattrs does the work; the hooks here make it strict (cattrs would turn ``"5"`` into 5)
and every failure, of which cattrs knows five kinds, becomes one ``ProtocolError``.
"""

import functools
import heapq
import itertools
import math
import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar, cast, get_args
from uuid import UUID

import attrs
import cattrs
import msgspec
from cattrs.gen import make_dict_structure_fn
from msgspec import UnsetType

from hetuflow.errors import ProtocolError
from hetuflow.protocol.checks import FieldError

__all__ = ["MAX_DEPTH_ERROR", "NUL_ERROR", "holds_nul", "load"]

T = TypeVar("T")
NUL = b"\\u0000"
UUID_LENGTH = 36
MAX_ISSUES = 100
"""How many mistakes are told: a body of rubbish would make millions of them."""
MAX_DEPTH = 100
"""How deeply a JSON object of the user's may nest objects and arrays."""
FIRST_YEAR, LAST_YEAR = 1900, 9998
MAX_DEPTH_ERROR = "nested too deeply"
NUL_ERROR = "U+0000 is not allowed"
SURROGATE_ERROR = "lone surrogates are not allowed"


def load(cls: type[T], value: object, *, strict: bool = False) -> T:
  """Build an object of ``cls`` from plain JSON types.

  Args:
    cls: an attrs class of the protocol, or any type made of them.
    value: what a JSON parser gave.
    strict: whether unknown keys are refused (HTTP, files) or ignored (the wire).

  Raises:
    ProtocolError: with the mistakes, at most ``MAX_ISSUES``, and their paths.
  """
  try:
    return _converter(strict).structure(value, cls)
  except RecursionError:
    raise ProtocolError([("$", MAX_DEPTH_ERROR)]) from None
  except Exception as error:
    issues = itertools.islice(_issues(error, "$"), MAX_ISSUES)
    raise ProtocolError(list(issues)) from error


def _issues(error: BaseException, path: str) -> Iterator[tuple[str, str]]:
  """Walk cattrs' exception tree and yield each leaf with its path."""
  if isinstance(error, _WrongItems):
    for place, inner in error.found:
      step = f"[{place}]" if isinstance(place, int) else f".{place}"
      yield from _issues(inner, path + step)
  elif isinstance(error, cattrs.ClassValidationError):
    named, unnamed = error.group_exceptions()
    for inner, field in named:
      if isinstance(inner, KeyError):
        yield f"{path}.{field.name}", "required"
      else:
        yield from _issues(inner, f"{path}.{field.name}")
    for inner in unnamed:
      yield from _issues(inner, path)
  elif isinstance(error, cattrs.ForbiddenExtraKeysError):
    for key in heapq.nsmallest(MAX_ISSUES, error.extra_fields):
      yield f"{path}.{key}", "unknown key"
  elif isinstance(error, FieldError):
    yield f"{path}.{error.field}", error.message
  else:
    yield path, str(error) or "invalid"


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


def _json(value: Any, _: Any) -> dict[str, Any]:
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


@functools.cache
def _converter(strict: bool) -> cattrs.Converter:
  """Make the converter, strict about unknown keys or not."""
  converter = cattrs.Converter(forbid_extra_keys=strict, detailed_validation=True)
  hooks: dict[Any, Any] = {
    str: _text,
    bool: _flag,
    int: _integer,
    float: _number,
    UUID: _uuid,
    datetime: _instant,
    # Every enumeration of the protocol is a StrEnum, which comes before str.
    StrEnum: _enumeration,
  }
  for cls, hook in hooks.items():
    converter.register_structure_hook(cls, hook)
  converter.register_structure_hook_func(lambda cls: cls == dict[str, Any], _json)
  converter.register_structure_hook_factory(attrs.has, _object_hook(converter, strict))
  converter.register_structure_hook_factory(
    lambda cls: getattr(cls, "__origin__", None) is list, _list_hook(converter)
  )
  converter.register_structure_hook_factory(
    lambda cls: getattr(cls, "__origin__", None) is dict and cls != dict[str, Any],
    _mapping_hook(converter),
  )
  converter.register_structure_hook_factory(_may_be_unset, _present_hook(converter))
  return converter


def _object_hook(converter: cattrs.Converter, strict: bool) -> Callable[[Any], Any]:
  """Make hooks for attrs classes that first demand an object."""

  def factory(cls: Any) -> Any:
    """Make the hook of one class."""
    build = make_dict_structure_fn(
      cls,
      converter,
      _cattrs_forbid_extra_keys=strict,
      _cattrs_detailed_validation=True,
    )

    def hook(value: Any, cls: Any) -> Any:
      """Demand an object, then build it."""
      if isinstance(value, cls):
        return value
      if not isinstance(value, dict):
        raise ValueError("expected an object")
      return build(value, cls)

    return hook

  return factory


class _WrongItems(Exception):
  """Items of an array or object are wrong: each index or key with its error."""

  def __init__(self, found: list[tuple[int | str, Exception]]) -> None:
    self.found = found
    super().__init__(f"{len(found)} wrong items")


def _build_each(
  items: Iterable[tuple[int | str, Any]], build: Callable[[Any], Any]
) -> list[Any]:
  """Build items, going on past mistakes until there are enough to tell."""
  built = []
  wrong: list[tuple[int | str, Exception]] = []
  for place, item in items:
    try:
      built.append(build(item))
    except Exception as error:
      wrong.append((place, error))
      if len(wrong) == MAX_ISSUES:
        break
  if wrong:
    raise _WrongItems(wrong)
  return built


def _list_hook(converter: cattrs.Converter) -> Callable[[Any], Any]:
  """Make hooks for lists that first demand an array (cattrs would split a string)."""

  def factory(cls: Any) -> Any:
    """Make the hook of one element type."""
    (element,) = get_args(cls)
    build = converter.get_structure_hook(element)

    def hook(value: Any, _: Any) -> Any:
      """Demand an array, then build each element."""
      if not isinstance(value, list):
        raise ValueError("expected an array")
      return _build_each(enumerate(value), lambda item: build(item, element))

    return hook

  return factory


def _mapping_hook(converter: cattrs.Converter) -> Callable[[Any], Any]:
  """Make hooks for objects with free keys that first demand an object."""

  def factory(cls: Any) -> Any:
    """Make the hook of one pair of key and value types."""
    name, element = get_args(cls)
    build_name = converter.get_structure_hook(name)
    build = converter.get_structure_hook(element)

    def build_pair(pair: tuple[str, Any]) -> tuple[Any, Any]:
      """Build a key and its value."""
      return build_name(pair[0], name), build(pair[1], element)

    def hook(value: Any, _: Any) -> Any:
      """Demand an object, then build each key and value."""
      if not isinstance(value, dict):
        raise ValueError("expected an object")
      return dict(_build_each(((pair[0], pair) for pair in value.items()), build_pair))

    return hook

  return factory


def _may_be_unset(cls: Any) -> bool:
  """Tell whether a field's type allows it to be left out of a PATCH."""
  return UnsetType in get_args(cls)


def _present_hook(converter: cattrs.Converter) -> Callable[[Any], Any]:
  """Make hooks for ``T | UnsetType`` that build a T: a key that is there has a value."""

  def factory(cls: Any) -> Any:
    """Make the hook of one type."""
    rest = tuple(arg for arg in get_args(cls) if arg is not UnsetType)
    inner: Any = functools.reduce(operator.or_, rest)

    def hook(value: Any, _: Any) -> Any:
      """Build the value that is there."""
      return converter.structure(value, inner)

    return hook

  return factory
