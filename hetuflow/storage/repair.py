"""Mending what is mechanical: each repair is one guarded statement, run until it is done."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import attrs

from hetuflow.storage.connect import Database
from hetuflow.storage.maintenance import ensure_partitions
from hetuflow.storage.sql import Query, load_queries

__all__ = [
  "CLOSE_LOSSES",
  "CLOSE_ORPHANS",
  "COUNTED",
  "FAIL_TASKS_OF_NOTHING",
  "FORGET_BROADCASTS",
  "FORGET_KEYS",
  "FORGET_KEYS_OF_NOTHING",
  "FREE_CLAIMS",
  "LOST_PATIENCE_S",
  "MAKE_PARTITIONS",
  "Repair",
  "repair",
]

_sql = load_queries("repair")

LIMIT = 1_000
"""Rows that one statement mends."""
COUNTED = 10_000
"""Rows of a table of history, or of keys, that are looked at."""
LOST_PATIENCE_S = 3_600.0
"""Seconds after which nobody waits for a lost attempt any more; servers wait for less."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@attrs.frozen(kw_only=True)
class Repair:
  """One way to mend.

  ``query`` answers how many rows it has mended; None stands for the partitions, which the
  database makes by itself. With ``again`` it is run until there is nothing left.
  """

  name: str
  promise: str
  query: Query | None
  values: Mapping[str, Any] = _NOTHING
  again: bool = False


CLOSE_ORPHANS = Repair(
  name="close_orphans",
  promise="attempts that are not those of their tasks are closed as lost",
  query=_sql.close_orphans,
  values={"limit": LIMIT},
  again=True,
)
CLOSE_LOSSES = Repair(
  name="close_losses",
  promise="lost attempts are waited for no longer",
  query=_sql.close_losses,
  values={"patience": LOST_PATIENCE_S},
)
FREE_CLAIMS = Repair(
  name="free_claims",
  promise="tasks without an attempt go back to the queue, or end if they were to",
  query=_sql.free_claims,
  values={"limit": LIMIT},
  again=True,
)
FAIL_TASKS_OF_NOTHING = Repair(
  name="fail_tasks_of_nothing",
  promise="tasks whose job, version or route is gone fail",
  query=_sql.fail_tasks_of_nothing,
  values={"limit": LIMIT},
  again=True,
)
FORGET_BROADCASTS = Repair(
  name="forget_broadcasts",
  promise="broadcasts without a task that runs are forgotten",
  query=_sql.forget_broadcasts,
)
FORGET_KEYS = Repair(
  name="forget_keys",
  promise="expired idempotency keys are forgotten",
  query=_sql.forget_keys,
  values={"limit": LIMIT},
  again=True,
)
FORGET_KEYS_OF_NOTHING = Repair(
  name="forget_keys_of_nothing",
  promise="idempotency keys of tasks that are gone are forgotten",
  query=_sql.forget_keys_of_nothing,
  values={"counted": COUNTED},
)
MAKE_PARTITIONS = Repair(
  name="make_partitions", promise="missing partitions are made", query=None
)


async def repair(database: Database, how: Repair) -> int:
  """Mend one kind of fault.

  Args:
    database: where.
    how: what to do.

  Returns:
    How many rows, or partitions, were mended.
  """
  if how.query is None:
    return await ensure_partitions(database)
  total = 0
  while True:
    mended: int = await database.fetchval(how.query, **how.values)
    total += mended
    if not (how.again and mended):
      return total
