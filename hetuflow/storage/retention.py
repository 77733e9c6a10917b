"""How long history is kept: weeks that are dropped, and rows that are deleted before."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import attrs

from hetuflow.protocol.model import NamespaceId
from hetuflow.storage.connect import Database
from hetuflow.storage.sql import load_queries

__all__ = [
  "Expired",
  "Week",
  "drop_week",
  "find_expired",
  "has_output",
  "list_expired",
  "prune_gaps",
  "prune_pages",
]

_sql = load_queries("retention")

_PRUNES = {
  "sched_task": _sql.prune_tasks,
  "sched_task_instance": _sql.prune_instances,
  "sched_task_log": _sql.prune_logs,
}
LOG = "sched_task_log"


@attrs.frozen(kw_only=True)
class Week:
  """A partition: of what table, of which time, and how many pages it has.

  ``low`` and ``high`` are the bounds of the ids that were made in that time.
  """

  parent: str
  name: str
  begins_at: datetime
  ends_at: datetime
  low: UUID
  high: UUID
  pages: int


@attrs.frozen(kw_only=True)
class Expired:
  """A week that some namespaces, or ``all`` there are, keep no longer."""

  week: Week
  namespaces: frozenset[NamespaceId]
  all: bool


def find_expired(
  weeks: Sequence[Week], keeps_from: Mapping[NamespaceId, datetime]
) -> list[Expired]:
  """Decide which weeks are over for whom: those that ended before all that is kept.

  Args:
    weeks: that there are.
    keeps_from: since when each namespace keeps its history.
  """
  expired = []
  for week in weeks:
    namespaces = frozenset(
      name for name, since in keeps_from.items() if week.ends_at <= since
    )
    if namespaces:
      expired.append(
        Expired(
          week=week, namespaces=namespaces, all=len(namespaces) == len(keeps_from)
        )
      )
  return expired


async def list_expired(database: Database) -> list[Expired]:
  """List the weeks that are over for any namespace; tasks and attempts before output."""
  weeks = [Week(**row) for row in await database.fetch(_sql.list_weeks)]
  rows = await database.fetch(_sql.list_retention)
  keeps_from = {NamespaceId(row["id"]): row["keeps_from"] for row in rows}
  expired = find_expired(weeks, keeps_from)
  return sorted(expired, key=lambda each: each.week.parent == LOG)


async def has_output(database: Database, week: Week) -> bool:
  """Tell whether a week has output of attempts that are kept, though they began in it."""
  if week.parent != LOG:
    return False
  kept: bool = await database.fetchval(_sql.has_attempts, low=week.low, high=week.high)
  return kept


async def drop_week(database: Database, week: Week) -> bool:
  """Drop a week, if that can be done without keeping anybody waiting; tell whether."""
  gone: bool = await database.fetchval(_sql.drop_week, name=week.name)
  return gone


async def prune_pages(
  database: Database, expired: Expired, from_page: int, to_page: int
) -> int:
  """Delete what namespaces keep no longer from some pages of a week.

  Args:
    database: where.
    expired: the week and the namespaces.
    from_page: the first page.
    to_page: the page behind the last one.

  Returns:
    How many rows that was.
  """
  week = expired.week
  if week.parent == LOG:
    bounds: dict[str, object] = {"low": week.low, "high": week.high}
  else:
    bounds = {"begins_at": week.begins_at, "ends_at": week.ends_at}
  count: int = await database.fetchval(
    _PRUNES[week.parent],
    **bounds,
    from_page=from_page,
    to_page=to_page,
    namespaces=sorted(expired.namespaces),
  )
  return count


async def prune_gaps(database: Database, limit: int) -> int:
  """Delete old entries of the ledger, a limited number; return how many."""
  count: int = await database.fetchval(_sql.prune_gaps, limit=limit)
  return count
