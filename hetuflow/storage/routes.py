"""Routes: what jobs ask of agents, interned to a number per namespace."""

from collections.abc import Sequence
from typing import Any

import attrs

from hetuflow.protocol.model import JsonObject, NamespaceId, TaskConfig
from hetuflow.protocol.states import ExecutorKind
from hetuflow.storage.rows import Executor, from_row
from hetuflow.storage.sql import load_queries

__all__ = ["Route", "intern_route", "list_routes", "selector_of"]

_sql = load_queries("routes")


@attrs.frozen(kw_only=True)
class Route:
  """A selector and its number, and the weight of its namespace."""

  id: int
  namespace_id: NamespaceId
  selector: JsonObject
  weight: int = 1


def selector_of(config: TaskConfig) -> dict[str, Any]:
  """Say what a configuration asks of an agent.

  Returns:
    ``executor`` and ``labels``; for python also ``function``, the name to be registered.
  """
  selector: dict[str, Any] = {
    "executor": str(config.executor),
    "labels": dict(sorted(config.labels.items())),
  }
  if config.executor is ExecutorKind.PYTHON:
    selector["function"] = config.cmd
  return selector


async def intern_route(
  executor: Executor, namespace_id: str, selector: dict[str, Any]
) -> int:
  """Return the number of a selector, the same for all who ask.

  Raises:
    Conflict: there is no such namespace.
  """
  values = {"namespace_id": namespace_id, "selector": selector}
  # A loser of the race to insert has waited for the winner, and finds its row then.
  for query in (_sql.find_route, _sql.insert_route, _sql.find_route):
    number: int | None = await executor.fetchval(query, **values)
    if number is not None:
      return number
  raise AssertionError("a route can neither be found nor made")


async def list_routes(database: Executor, namespace_ids: Sequence[str]) -> list[Route]:
  """Read the routes of namespaces, oldest first.

  All of them: one with a lower number may be committed after one with a higher.

  Args:
    database: where.
    namespace_ids: whose; ``*`` among them means all.
  """
  records = await database.fetch(_sql.list_routes, namespace_ids=list(namespace_ids))
  return [from_row(Route, record) for record in records]
