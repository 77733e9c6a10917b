"""Rows in, models out: what every entity's module shares."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import attrs

from hetuflow.errors import NotFound, ProtocolError, StorageError, Unavailable
from hetuflow.protocol import wire
from hetuflow.protocol.model import UNSET
from hetuflow.storage.connect import TRIES, Connection, Database, Record
from hetuflow.storage.failures import repeatable
from hetuflow.storage.sql import Query, load_queries

__all__ = [
  "Executor",
  "changes",
  "criteria",
  "fetch_page",
  "found",
  "from_row",
  "repeated",
]

_sql = load_queries("rows")

P = ParamSpec("P")
T = TypeVar("T")

Executor = Database | Connection
"""What runs a query: the pool, or one connection inside a transaction."""


def from_row(cls: type[T], record: Record, **more: Any) -> T:
  """Build a model from a row; columns it does not know are ignored.

  Args:
    cls: the attrs class.
    record: the row.
    more: fields that are not columns.

  Raises:
    StorageError: the row is none that this program writes.
  """
  try:
    return wire.load(cls, dict(record) | more)
  except ProtocolError as error:
    # Not the caller's mistake, though it looks like one.
    raise StorageError(f"a {cls.__name__} that cannot be read: {error}") from error


def found(record: Record | None, noun: str, key: object) -> Record:
  """Return the row that must be there.

  Raises:
    NotFound: it is not; names what was looked for.
  """
  if record is None:
    raise NotFound(f"there is no {noun} {str(key)!r}")
  return record


async def fetch_page(
  executor: Executor, query: Query, /, **values: Any
) -> list[Record]:
  """Run a query of history whose filters may be given or not.

  Planned once for all filters, as PostgreSQL does after some runs, it would read all of
  history for the few rows that an index finds.
  """
  async with executor.transaction() as connection:
    await connection.fetch(_sql.plan_each_time)
    return await connection.fetch(query, **values)


def repeated(change: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
  """Repeat a change that comes to nothing because of what others do meanwhile.

  Args:
    change: all it does is one transaction.
  """

  @wraps(change)
  async def call(*args: P.args, **kwargs: P.kwargs) -> T:
    """Try as often as a statement of its own is tried."""
    for _ in range(TRIES - 1):
      try:
        return await change(*args, **kwargs)
      except Unavailable as error:
        if not repeatable(error):
          raise
    return await change(*args, **kwargs)

  return call


def changes(update: object) -> dict[str, Any]:
  """Spread an update into pairs ``set_<field>`` and ``<field>`` for its statement.

  The statement says ``CASE WHEN $set_x THEN $x ELSE x END`` for each, so that a field
  that is left out stays and null is a value.
  """
  values: dict[str, Any] = {}
  for name, value in _fields(update).items():
    values[f"set_{name}"] = value is not UNSET
    values[name] = None if value is UNSET else value
  return values


def criteria(filter: object) -> dict[str, Any]:
  """Spread a filter into the parameters of its query."""
  return _fields(filter)


def _fields(model: Any) -> dict[str, Any]:
  """Read the fields of a model, its inside untouched."""
  return {field.name: getattr(model, field.name) for field in attrs.fields(type(model))}
