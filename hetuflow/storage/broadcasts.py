"""Broadcasts: a task that each matching agent runs, and how it ends.

The task itself, the parent, is on a route that no agent satisfies. Once it is due, one
transaction makes a part for each agent that is online and matches, on the route of that
agent alone; each part has its own attempts and retries. The parent ends when all parts
have: it succeeds if all did, and its reason counts those that did not.

Every broadcast ends in bounded time, as far as its parts do: a part that has been due for
the grace and whose agent is away or drains fails, for nobody else could take it.
"""

from collections.abc import Sequence
from uuid import UUID

import attrs

from hetuflow.protocol.model import JsonObject, new_id
from hetuflow.storage.connect import Connection, Database
from hetuflow.storage.routes import matching_agents, share_agent_routes
from hetuflow.storage.sql import load_queries

__all__ = [
  "Survey",
  "abandon_parts",
  "cancel_parts",
  "end_broadcasts",
  "spread_broadcasts",
  "survey_broadcasts",
]

_sql = load_queries("broadcasts")

TASKS_PER_SPREAD = 20
PARTS_PER_SPREAD = 2_000
"""Parts from which on a task waits for the next transaction, which the database ends when
it takes too long."""


@attrs.frozen(kw_only=True)
class Survey:
  """What there may be to do.

  ``known``: there are jobs to broadcast; ``running``: there are tasks whose parts have not
  all ended; ``due_in``: seconds until the next task is due, None if none is planned.
  """

  known: bool
  running: bool
  due_in: float | None


@attrs.frozen(kw_only=True)
class _Due:
  """A due task that this transaction holds."""

  id: UUID
  namespace_id: str
  selector: JsonObject


async def survey_broadcasts(database: Database, namespaces: Sequence[str]) -> Survey:
  """Look whether there is anything to do in some namespaces, in one cheap statement."""
  [row] = await database.fetch(_sql.survey_broadcasts, namespaces=namespaces)
  return Survey(known=row["known"], running=row["running"], due_in=row["due_in"])


async def spread_broadcasts(database: Database, namespaces: Sequence[str]) -> int:
  """Make the parts of due tasks, in one transaction.

  A task that no agent matches fails, or waits for as long as its start deadline says.

  Returns:
    How many tasks were looked at; with more than none there may be others.
  """
  async with database.transaction() as connection:
    rows = await connection.fetch(
      _sql.lock_due, namespaces=namespaces, limit=TASKS_PER_SPREAD
    )
    tasks = [
      _Due(id=row["id"], namespace_id=row["namespace_id"], selector=row["selector"])
      for row in rows
    ]
    if not tasks:
      return 0
    agents = await matching_agents(
      connection, [(task.id, task.namespace_id, task.selector) for task in tasks]
    )
    if unmatched := [task for task in tasks if task.id not in agents]:
      await connection.fetchrow(
        _sql.leave_unmatched,
        ids=[task.id for task in unmatched],
        namespaces=[task.namespace_id for task in unmatched],
      )
    if matched := _portion([task for task in tasks if task.id in agents], agents):
      await _spread(connection, matched, agents)
  return len(tasks)


def _portion(tasks: Sequence[_Due], agents: dict[UUID, list[UUID]]) -> list[_Due]:
  """Take as many tasks, at least one, as have not too many parts together."""
  taken: list[_Due] = []
  parts = 0
  for task in tasks:
    parts += len(agents[task.id])
    if taken and parts > PARTS_PER_SPREAD:
      break
    taken.append(task)
  return taken


async def _spread(
  connection: Connection, tasks: Sequence[_Due], agents: dict[UUID, list[UUID]]
) -> None:
  """Make the parts of held tasks and let the tasks run."""
  parts = [(task, agent_id) for task in tasks for agent_id in agents[task.id]]
  routes = await share_agent_routes(
    connection, [(task.namespace_id, agent_id) for task, agent_id in parts]
  )
  await connection.fetch(
    _sql.insert_parts,
    ids=[new_id() for _ in parts],
    parents=[task.id for task, _ in parts],
    namespaces=[task.namespace_id for task, _ in parts],
    routes=[routes[task.namespace_id, agent_id] for task, agent_id in parts],
  )
  await connection.fetch(
    _sql.spread_tasks,
    ids=[task.id for task in tasks],
    namespaces=[task.namespace_id for task in tasks],
    claim_tokens=[new_id() for _ in tasks],
    agents=[len(agents[task.id]) for task in tasks],
  )


async def cancel_parts(database: Database, namespaces: Sequence[str]) -> int:
  """Cancel the parts of broadcasts that are to be cancelled; return how many."""
  count: int = await database.fetchval(_sql.cancel_parts, namespaces=namespaces)
  return count


async def abandon_parts(
  database: Database, namespaces: Sequence[str], *, grace: float
) -> int:
  """Fail parts that wait for an agent that is gone.

  Args:
    database: where.
    namespaces: of the broadcasts.
    grace: seconds that a part may have been due for.

  Returns:
    How many failed.
  """
  rows = await database.fetch(_sql.abandon_parts, namespaces=namespaces, grace=grace)
  return len(rows)


async def end_broadcasts(
  database: Database, namespaces: Sequence[str], *, limit: int = 100
) -> int:
  """End broadcasts whose parts have all ended.

  Returns:
    How many were looked at.
  """
  async with database.transaction() as connection:
    rows = await connection.fetch(_sql.lock_ending, namespaces=namespaces, limit=limit)
    if rows:
      # What the parts are is read behind the lock: a snapshot of before could be old.
      await connection.fetch(_sql.end_tasks, ids=[row["task_id"] for row in rows])
  return len(rows)
