"""What must hold between tables that no constraint holds together.

Every check is one look: a statement that compares what was so at one moment, so that what
is under way is never mistaken for what is wrong. What servers ought to do is judged with
some patience, and only where there are servers.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from uuid import UUID

import attrs

from hetuflow.storage.connect import Database, Record
from hetuflow.storage.repair import (
  CLOSE_LOSSES,
  CLOSE_ORPHANS,
  COUNTED,
  FAIL_TASKS_OF_NOTHING,
  FORGET_BROADCASTS,
  FORGET_KEYS,
  FORGET_KEYS_OF_NOTHING,
  FREE_CLAIMS,
  LOST_PATIENCE_S,
  MAKE_PARTITIONS,
  Repair,
)
from hetuflow.storage.sql import Query, load_queries

__all__ = ["CHECKS", "SHOWN", "Check", "Fault", "count_servers", "list_planned", "look"]

_sql = load_queries("doctor")

SHOWN = 5
"""Faults of a kind that are shown of more."""
WEEKS = 4
"""Weeks for which partitions must be there; servers make twice as many."""
PATIENCE_S = 60.0
"""Seconds within which servers do what is theirs to do, by far."""
AGENT_PATIENCE_S = 600.0
"""Seconds after which a lost agent's tasks are no longer its own, by far."""
SKEW_S = 2.0
"""Seconds a server's clock may be ahead."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_PATIENT: Mapping[str, Any] = MappingProxyType({"patience": PATIENCE_S})


@attrs.frozen(kw_only=True)
class Check:
  """One thing that must hold.

  ``served`` says that servers see to it, so that without any there is nothing to judge.
  """

  name: str
  promise: str
  query: Query
  values: Mapping[str, Any] = _NOTHING
  served: bool = False
  repair: Repair | None = None


@attrs.frozen(kw_only=True)
class Fault:
  """What is wrong with what.

  Example:
    {"subject": "0190a8b4-7c00-7000-8000-000000000003",
     "matter": "it is running without an attempt"}
  """

  subject: str
  matter: str


CHECKS = (
  Check(
    name="partitions",
    promise="there are partitions for the coming weeks",
    query=_sql.missing_partitions,
    values={"weeks": WEEKS},
    repair=MAKE_PARTITIONS,
  ),
  Check(
    name="instances",
    promise="every attempt under way is that of its task",
    query=_sql.orphaned_instances,
    repair=CLOSE_ORPHANS,
  ),
  Check(
    name="single attempts",
    promise="no task has two attempts under way",
    query=_sql.doubled_attempts,
    repair=CLOSE_ORPHANS,
  ),
  Check(
    name="lost attempts",
    promise="lost attempts are not waited for without end",
    query=_sql.forgotten_losses,
    values={"patience": LOST_PATIENCE_S},
    repair=CLOSE_LOSSES,
  ),
  Check(
    name="claims",
    promise="every claimed task has an attempt",
    query=_sql.claims_without_attempt,
    repair=FREE_CLAIMS,
  ),
  Check(
    name="references",
    promise="every live task has its job, version and route",
    query=_sql.tasks_of_nothing,
    repair=FAIL_TASKS_OF_NOTHING,
  ),
  Check(
    name="broadcasts",
    promise="every broadcast that goes on has a task that runs",
    query=_sql.broadcasts_of_nothing,
    repair=FORGET_BROADCASTS,
  ),
  Check(
    name="limits",
    promise="no lane has more holders than places",
    query=_sql.overfull_lanes,
  ),
  Check(
    name="places",
    promise="nobody waits for a place that is free",
    query=_sql.unused_places,
    values=_PATIENT,
    served=True,
  ),
  Check(
    name="planning",
    promise="schedules are planned ahead",
    query=_sql.late_schedules,
    values=_PATIENT,
    served=True,
  ),
  Check(
    name="expired keys",
    promise="expired idempotency keys are forgotten",
    query=_sql.stale_keys,
    values={"counted": COUNTED},
    repair=FORGET_KEYS,
  ),
  Check(
    name="keys",
    promise="idempotency keys lead to tasks that are there",
    query=_sql.keys_of_nothing,
    values={"counted": COUNTED},
    repair=FORGET_KEYS_OF_NOTHING,
  ),
  Check(
    name="bindings",
    promise="every namespace is planned for by a server that is there",
    query=_sql.unserved_namespaces,
    values=_PATIENT,
    served=True,
  ),
  Check(
    name="leader",
    promise="some server leads",
    query=_sql.vacant_offices,
    values=_PATIENT,
    served=True,
  ),
  Check(
    name="lost agents",
    promise="agents that are gone have no tasks",
    query=_sql.claims_of_the_gone,
    values={"patience": AGENT_PATIENCE_S},
    served=True,
  ),
  Check(
    name="clocks",
    promise="the clocks of the servers agree with the database's",
    query=_sql.skewed_clocks,
    values={"tolerance": SKEW_S, "patience": AGENT_PATIENCE_S},
    served=True,
  ),
)
"""Every check, in the order in which what it finds is mended."""


async def look(database: Database, check: Check) -> tuple[int, list[Fault]]:
  """Run one check.

  Returns:
    How many faults there are, and the first of them.
  """
  rows = await database.fetch(check.query, **check.values, limit=SHOWN)
  found = [Fault(subject=row["subject"], matter=row["matter"]) for row in rows]
  return (int(rows[0]["count"]) if rows else 0), found


async def count_servers(database: Database) -> int:
  """Count the servers that are there."""
  count: int = await database.fetchval(_sql.count_servers)
  return count


async def list_planned(
  database: Database, *, after: UUID | None, limit: int
) -> list[Record]:
  """Read a page of the schedules whose planned times must all be accounted for.

  Args:
    database: where.
    after: the id behind which the page begins; None for the first.
    limit: how many at most.

  Returns:
    id and name of each, and the database's time.
  """
  return await database.fetch(_sql.list_planned_schedules, after=after, limit=limit)
