"""The one converter between plain JSON types and the protocol's attrs classes.

cattrs does the work; the hooks here make it strict (cattrs would turn ``"5"`` into 5)
and every failure, of which cattrs knows five kinds, becomes one ``ProtocolError``.
"""

import functools
import heapq
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, get_args

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn
from msgspec import UnsetType

from hetuflow.errors import ProtocolError
from hetuflow.protocol.checks import FieldError
from hetuflow.protocol.values import HOOKS, MAX_DEPTH_ERROR, take_json

__all__ = ["load"]

T = TypeVar("T")
MAX_ISSUES = 100
"""How many mistakes are told: a body of rubbish would make millions of them."""


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


@functools.cache
def _converter(strict: bool) -> cattrs.Converter:
  """Make the converter, strict about unknown keys or not."""
  converter = cattrs.Converter(forbid_extra_keys=strict, detailed_validation=True)
  for cls, hook in HOOKS.items():
    converter.register_structure_hook(cls, hook)
  converter.register_structure_hook_func(lambda cls: cls == dict[str, Any], take_json)
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
