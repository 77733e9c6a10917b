"""Bodies and queries in, JSON out."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast, get_args
from uuid import UUID

import attrs
from quart import Response, request

from hetuflow.errors import ProtocolError
from hetuflow.protocol import wire
from hetuflow.protocol.model import SLUG

__all__ = [
  "DEFAULT_LIMIT",
  "JSON",
  "MAX_LIMIT",
  "ROOT",
  "Paging",
  "answer",
  "created",
  "is_slug",
  "no_content",
  "page",
  "raw_body",
  "read_body",
  "read_number",
  "read_query",
  "single",
]

T = TypeVar("T")

ROOT = "/api/v1"
JSON = "application/json"
DEFAULT_LIMIT = 100
MAX_LIMIT = 1_000
MAX_VERSION = 2**31 - 1

_SLUG = re.compile(SLUG)


@attrs.frozen(kw_only=True)
class Paging(Generic[T]):
  """Which part of which list is wanted."""

  filter: T
  limit: int
  cursor: str | None

  @property
  def after(self) -> UUID | None:
    """The id after which the page begins.

    Raises:
      ProtocolError: the cursor is none that a page gave.
    """
    try:
      return None if self.cursor is None else UUID(self.cursor)
    except ValueError:
      raise _wrong_cursor() from None

  @property
  def after_version(self) -> int | None:
    """The version after which the page begins.

    Raises:
      ProtocolError: the cursor is none that a page gave.
    """
    if self.cursor is None:
      return None
    return read_number("cursor", self.cursor, 1, MAX_VERSION)

  @property
  def after_name(self) -> str | None:
    """The slug after which the page begins.

    Raises:
      ProtocolError: the cursor is none that a page gave.
    """
    if self.cursor is not None and not is_slug(self.cursor):
      raise _wrong_cursor()
    return self.cursor


def is_slug(text: str) -> bool:
  """Tell whether a namespace may be called so."""
  return _SLUG.fullmatch(text) is not None


def _wrong_cursor() -> ProtocolError:
  """Say that a cursor is none that a page gave."""
  return ProtocolError([("$.cursor", "expected a next_cursor of a page")])


async def raw_body() -> bytes:
  """Read the body as it came; a second time it is the same."""
  return cast(bytes, await request.get_data(as_text=False))


async def read_body(cls: type[T], *, optional: bool = False) -> T:
  """Read the body as ``cls``.

  Args:
    cls: an attrs class; unknown keys are refused.
    optional: whether an empty body stands for an empty object.

  Raises:
    ProtocolError: it is not JSON, or not a ``cls``.
  """
  body = await raw_body()
  return wire.decode_body(cls, b"{}" if optional and not body else body)


def read_query(cls: type[T]) -> Paging[T]:
  """Read the query parameters of a list.

  Args:
    cls: the attrs class of the filters.

  Raises:
    ProtocolError: a parameter is unknown or wrong; the path is ``$.<parameter>``.
  """
  values: dict[str, Any] = {name: single(name) for name in request.args}
  limit = values.pop("limit", None)
  cursor = values.pop("cursor", None)
  kinds = {field.name: field.type for field in attrs.fields(cls)}  # type: ignore[arg-type]  # every filter is an attrs class
  for name, value in values.items():
    if bool in get_args(kinds.get(name)):
      values[name] = {"true": True, "false": False}.get(value, value)
  return Paging(
    filter=wire.load(cls, values, strict=True),
    limit=DEFAULT_LIMIT if limit is None else read_number("limit", limit, 1, MAX_LIMIT),
    cursor=cursor,
  )


def single(name: str) -> str:
  """Return a query parameter that may be given once.

  Raises:
    ProtocolError: it is given more often.
  """
  values = request.args.getlist(name)
  if len(values) > 1:
    raise ProtocolError([(f"$.{name}", "expected only once")])
  return values[0]


def read_number(name: str, text: str, low: int, high: int) -> int:
  """Read a whole number between two bounds, both included.

  Raises:
    ProtocolError: it is none.
  """
  if text.isascii() and text.isdigit() and len(text) <= len(str(high)):
    number = int(text)
    if low <= number <= high:
      return number
  raise ProtocolError([(f"$.{name}", f"expected a number from {low} to {high}")])


def answer(value: object, status: int = 200, **headers: str) -> Response:
  """Answer with a model or plain value as JSON."""
  return Response(wire.encode(value), status, headers, content_type=JSON)


def created(value: object, path: str) -> Response:
  """Answer that something was made, and where it is below the root of the API."""
  return answer(value, 201, Location=f"{ROOT}/{path}")


def no_content() -> Response:
  """Answer that it is done and there is nothing to say."""
  return Response(b"", 204)


def page(
  items: Sequence[Any], limit: int, key: Callable[[Any], object] = lambda item: item.id
) -> Response:
  """Answer with a page.

  Args:
    items: one more than wanted tells that more follow.
    limit: how many are wanted.
    key: what of the last item the next page begins after.
  """
  shown = items[:limit]
  more = len(items) > limit
  return answer({"items": shown, "next_cursor": str(key(shown[-1])) if more else None})
