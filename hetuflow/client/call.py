"""One call of the HTTP API as plain data: what is asked, and how the answer is read."""

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import attrs
import msgspec

from hetuflow.client.errors import ApiError, read_problem
from hetuflow.errors import ProtocolError
from hetuflow.protocol import wire

__all__ = [
  "Call",
  "Page",
  "delete",
  "get",
  "listing",
  "patch",
  "path_of",
  "post",
]

ROOT = "/api/v1"
JSON = "application/json"

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Page(Generic[T]):
  """Some of a list; ``next_cursor`` asks for what follows, None at the end."""

  items: list[T]
  next_cursor: str | None


@attrs.frozen(kw_only=True)
class Call(Generic[T]):
  """A request and how its answer is read; it does no I/O itself.

  Args:
    method: of HTTP.
    path: from the root of the server, already quoted.
    read: turns the parsed JSON of a good answer (None where it is empty) into a ``T``.
    query: parameters; None leaves one out.
    body: a model or plain value; None sends no body.
    accept: the media type that is wanted.
    idempotency_key: makes it harmless to send the call twice.
  """

  method: str
  path: str
  read: Callable[[Any], T]
  query: Mapping[str, Any] = attrs.field(factory=dict)
  body: Any = None
  accept: str = JSON
  idempotency_key: str | None = None

  @property
  def repeatable(self) -> bool:
    """Whether it may be sent again when it is not known what became of it."""
    return self.method == "GET"

  def parameters(self) -> dict[str, str]:
    """Return the query as text, without what is None."""
    return {
      name: _word(value) for name, value in self.query.items() if value is not None
    }

  def headers(self) -> dict[str, str]:
    """Return the headers that belong to this call."""
    headers = {"Accept": f"{self.accept}, application/problem+json"}
    if self.body is not None:
      headers["Content-Type"] = JSON
    if self.idempotency_key is not None:
      headers["Idempotency-Key"] = self.idempotency_key
    return headers

  def content(self) -> bytes | None:
    """Return the body as it is sent."""
    return None if self.body is None else wire.encode(self.body)

  def result(self, status: int, body: bytes) -> T:
    """Read the answer.

    Raises:
      ApiError: it is a problem, or not what this version of the client understands.
    """
    if not 200 <= status < 300:
      raise read_problem(status, body)
    try:
      return self.read(msgspec.json.decode(body) if body else None)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
      raise ApiError(status, "Not an answer of hetuflow", str(error)) from error
    except ProtocolError as error:
      raise ApiError(
        status, "The server answered in words unknown here", errors=error.issues
      ) from error

  def after(self, cursor: str) -> "Call[T]":
    """Return the same call for what follows a page."""
    return attrs.evolve(self, query={**self.query, "cursor": cursor})


def _word(value: Any) -> str:
  """Write a value as it stands in a query."""
  if isinstance(value, bool):
    return "true" if value else "false"
  return str(wire.dump(value))


def path_of(*segments: object) -> str:
  """Join segments to a path of the API; each is quoted."""
  return "/".join([ROOT, *(quote(str(segment), safe="") for segment in segments)])


def reader(cls: Any) -> Callable[[Any], Any]:
  """Return what builds an object of a protocol class; NoneType and dict take all as it is."""
  if cls is type(None):
    return lambda _: None
  if cls is dict:
    return lambda value: value
  return lambda value: wire.load(cls, value)


def get(cls: type[T], *segments: object, **query: Any) -> Call[T]:
  """Describe a GET that is answered by a ``cls``; ``dict`` keeps plain JSON."""
  return Call(method="GET", path=path_of(*segments), read=reader(cls), query=query)


def listing(cls: type[T], *segments: object, query: Mapping[str, Any]) -> Call[Page[T]]:
  """Describe a GET of a list of ``cls``, page by page."""
  build = reader(cls)

  def read(value: Any) -> Page[T]:
    """Build each item."""
    if not isinstance(value, dict) or not isinstance(value.get("items"), list):
      raise ProtocolError([("$.items", "expected an array")])
    items = [build(item) for item in value["items"]]
    return Page(items=items, next_cursor=value.get("next_cursor"))

  return Call(method="GET", path=path_of(*segments), read=read, query=query)


def post(
  cls: type[T], *segments: object, body: Any = None, key: str | None = None
) -> Call[T]:
  """Describe a POST that is answered by a ``cls``."""
  return Call(
    method="POST",
    path=path_of(*segments),
    read=reader(cls),
    body=body,
    idempotency_key=key,
  )


def patch(cls: type[T], *segments: object, body: Any) -> Call[T]:
  """Describe a PATCH that is answered by a ``cls``; UNSET fields are left out."""
  return Call(method="PATCH", path=path_of(*segments), read=reader(cls), body=body)


def delete(*segments: object) -> Call[None]:
  """Describe a DELETE."""
  return Call(method="DELETE", path=path_of(*segments), read=reader(type(None)))
