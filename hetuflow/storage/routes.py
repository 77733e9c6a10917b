"""Routes: what jobs ask of agents, interned to a number per namespace.

A selector names what an agent must have. Two kinds of route stand for themselves:
``{"agent": id}`` is satisfied by that agent alone, for what has been matched already; one
with ``broadcast`` by nobody, for the broadcaster takes it.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import attrs

from hetuflow.protocol.model import JsonObject, NamespaceId, TaskConfig
from hetuflow.protocol.states import ExecutorKind
from hetuflow.storage.connect import Connection, Database
from hetuflow.storage.rows import Executor, from_row
from hetuflow.storage.sql import load_queries

__all__ = [
  "Route",
  "forget_agent_routes",
  "intern_route",
  "list_routes",
  "list_waiting_routes",
  "matching_agents",
  "selector_of",
  "share_agent_routes",
]

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
    ``executor`` and ``labels``; for python also ``function``, the name to be registered;
    ``broadcast`` where every agent is meant that has the others.
  """
  selector: dict[str, Any] = {
    "executor": str(config.executor),
    "labels": dict(sorted(config.labels.items())),
  }
  if config.executor is ExecutorKind.PYTHON:
    selector["function"] = config.cmd
  if config.broadcast:
    selector["broadcast"] = True
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


async def list_waiting_routes(
  database: Database, namespace_id: str, routes: Sequence[int]
) -> list[int]:
  """Find which of many routes have tasks that can be handed out now."""
  rows = await database.fetch(
    _sql.list_waiting_routes, namespace_id=namespace_id, routes=routes
  )
  return [row["id"] for row in rows]


async def matching_agents(
  connection: Connection, wishes: Sequence[tuple[UUID, str, JsonObject]]
) -> dict[UUID, list[UUID]]:
  """Find the agents that are online now and have what is asked for.

  Args:
    connection: where to read.
    wishes: a key of the caller's, the namespace and the selector of each; what a selector
      says of one agent or of a broadcast does not count.

  Returns:
    By key the ids of the agents, in order; a key that nobody matches is missing.
  """
  rows = await connection.fetch(
    _sql.matching_agents,
    keys=[key for key, _, _ in wishes],
    namespace_ids=[namespace_id for _, namespace_id, _ in wishes],
    selectors=[selector for _, _, selector in wishes],
  )
  found: dict[UUID, list[UUID]] = {}
  for row in rows:
    found.setdefault(row["key"], []).append(row["agent_id"])
  return found


async def share_agent_routes(
  connection: Connection, wanted: Iterable[tuple[str, UUID]]
) -> dict[tuple[str, UUID], int]:
  """Return the routes of single agents, made where there are none.

  Args:
    connection: in a transaction; nobody forgets the routes until it ends.
    wanted: namespace and agent of each.
  """
  pairs = sorted(set(wanted))
  values = {
    "namespace_ids": [namespace_id for namespace_id, _ in pairs],
    "agent_ids": [agent_id for _, agent_id in pairs],
  }
  while True:
    rows = await connection.fetch(_sql.share_agent_routes, **values)
    if len(rows) == len(pairs):
      return {(row["namespace_id"], row["agent_id"]): row["id"] for row in rows}
    # Whoever made or forgot one meanwhile has been waited for: the next look sees it.
    await connection.fetch(_sql.insert_agent_routes, **values)


async def forget_agent_routes(database: Database, *, limit: int) -> int:
  """Forget routes of single agents that have been away for a day.

  A part of a broadcast that somebody paused and resumes after that has no agent, and ends
  as one whose agent is gone.

  Args:
    database: where.
    limit: how many at most.

  Returns:
    How many were forgotten.
  """
  async with database.transaction() as connection:
    rows = await connection.fetch(_sql.lock_agent_routes, limit=limit)
    # Read anew behind the lock: who shares a route has committed its tasks by now.
    gone = await connection.fetch(
      _sql.delete_agent_routes, ids=[row["id"] for row in rows]
    )
  return len(gone)
