"""The ledger: what became of each planned time, and whether each came to something."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import attrs

from hetuflow.errors import ScheduleError, Unavailable
from hetuflow.protocol.model import (
  Ledger,
  LedgerCheck,
  LedgerItem,
  LedgerTotals,
  Schedule,
  TaskId,
)
from hetuflow.protocol.states import Coverage, TaskCause, TaskStatus
from hetuflow.schedule import Timing, count_fires
from hetuflow.storage.connect import Record
from hetuflow.storage.coverage import BookedGap, check_coverage
from hetuflow.storage.rows import Executor, fetch_page, found, from_row
from hetuflow.storage.sql import load_queries
from hetuflow.storage.timing import is_planned, read_calendars, timing_of

__all__ = ["LedgerCursor", "check_ledger", "query_ledger"]

_sql = load_queries("ledger")

CHECKED_TIMES = 10_000
"""Planned times that one check looks at one by one."""
DEFAULT_SPAN = timedelta(days=1)
"""How much of a ledger is shown when nobody says how much."""
TRIES = 5
"""How often a schedule is read again that changes while it is looked at."""
_MICROSECOND = timedelta(microseconds=1)

_T, _C = TaskStatus, Coverage
_OUTCOMES: Mapping[TaskStatus, Coverage] = {
  _T.BLOCKED: _C.WAITING,
  _T.PAUSED: _C.WAITING,
  _T.PENDING: _C.WAITING,
  _T.DISPATCHED: _C.WAITING,
  _T.RUNNING: _C.RAN,
  _T.WAITING_RETRY: _C.RAN,
  _T.SUCCEEDED: _C.RAN,
  _T.FAILED: _C.RAN,
  _T.CANCELLED: _C.CANCELLED,
  _T.SKIPPED: _C.SKIPPED,
  _T.MISSED: _C.MISSED,
  _T.MERGED: _C.MERGED,
}
"""What a task's status says of its planned time; one that has begun counts as run."""


@attrs.frozen(kw_only=True)
class LedgerCursor:
  """The place in a ledger after which a page begins: a time, and whose it is."""

  at: datetime
  id: UUID


async def query_ledger(
  database: Executor,
  schedule_id: UUID,
  *,
  from_at: datetime | None = None,
  to_at: datetime | None = None,
  limit: int,
  cursor: LedgerCursor | None = None,
) -> tuple[Ledger, LedgerCursor | None]:
  """Read a page of a ledger, in the order of planned times.

  Args:
    database: where.
    schedule_id: whose.
    from_at: the first moment of interest; a day before ``to_at`` if None.
    to_at: the last one; as far as is planned if None.
    limit: how many items at most.
    cursor: after which the page begins; the first page has totals and the check.

  Returns:
    The page without its ``next_cursor``, and that.

  Raises:
    NotFound: there is no such schedule.
  """
  row = await _read_terms(database, schedule_id)
  to_at = to_at or row["last_at"]
  from_at = from_at or to_at - DEFAULT_SPAN
  scope = {"id": schedule_id, "from": from_at, "to": to_at}
  records = await fetch_page(
    database,
    _sql.list_ledger,
    **scope,
    namespace_id=row["namespace_id"],
    limit=limit + 1,
    after_at=None if cursor is None else cursor.at,
    after_id=None if cursor is None else cursor.id,
  )
  shown = records[:limit]
  following = None
  if len(records) > limit:
    following = LedgerCursor(at=shown[-1]["at"], id=shown[-1]["id"])
  page = Ledger(items=[_read_item(record) for record in shown], next_cursor=None)
  if cursor is None:
    page = attrs.evolve(
      page,
      totals=await _total(database, row, scope),
      check=await _check_if_planned(database, schedule_id, from_at, to_at),
    )
  return page, following


def _read_item(record: Record) -> LedgerItem:
  """Build an item from a task's row or a gap's."""
  common: dict[str, Any] = {
    "from_at": record["at"],
    "to_at": record["to_at"],
    "count": record["count"],
    "reason": record["reason"],
  }
  if not record["task"]:
    return LedgerItem(outcome=Coverage(record["what"]), **common)
  status = TaskStatus(record["what"])
  return LedgerItem(
    outcome=_OUTCOMES[status],
    planned_at=record["at"],
    task_id=TaskId(record["id"]),
    status=status,
    cause=TaskCause(record["cause"]),
    **common,
  )


async def _total(
  database: Executor, row: Record, scope: Mapping[str, Any]
) -> LedgerTotals:
  """Count what the planned times of a span came to."""
  counts = dict.fromkeys(Coverage, 0)
  for record in await fetch_page(
    database, _sql.count_tasks, **scope, namespace_id=row["namespace_id"]
  ):
    counts[_OUTCOMES[TaskStatus(record["status"])]] += record["count"]
  timing = await _timing_if_any(database, row)
  for record in await database.fetch(_sql.list_gaps, **scope):
    count = _count_inside(record, timing, scope["from"], scope["to"])
    counts[Coverage(record["outcome"])] += count
  return LedgerTotals(**{str(outcome): count for outcome, count in counts.items()})


def _count_inside(
  gap: Record, timing: Timing | None, from_at: datetime, to_at: datetime
) -> int:
  """Count the times of a gap that lie in a span, as far as that can be told."""
  count: int = gap["count"]
  if timing is None or (from_at <= gap["from_at"] and gap["to_at"] <= to_at):
    return count
  inside = count_fires(
    timing,
    after=max(from_at, gap["from_at"]) - _MICROSECOND,
    until=min(to_at, gap["to_at"]),
  )
  return min(count, inside)


async def _timing_if_any(database: Executor, row: Record) -> Timing | None:
  """Return a schedule's definition; None where it has none that can be understood."""
  try:
    return await _timing(database, row)
  except ScheduleError:
    return None


async def _check_if_planned(
  database: Executor, schedule_id: UUID, from_at: datetime, to_at: datetime
) -> LedgerCheck | None:
  """Check a span where there is a definition to check it by."""
  try:
    return await check_ledger(database, schedule_id, from_at, to_at)
  except ScheduleError:
    return None


async def check_ledger(
  database: Executor,
  schedule_id: UUID,
  from_at: datetime | None = None,
  to_at: datetime | None = None,
  *,
  limit: int = CHECKED_TIMES,
) -> LedgerCheck:
  """Tell whether each planned time of a span is covered exactly once.

  That can be told since the last change of what the schedule is planned by, up to where
  it is planned, and within the retention; the answer says which part of the span it is
  about. Of an answer with ``more`` a call with ``from_at=check.until_at`` looks at what
  follows.

  Args:
    database: where.
    schedule_id: of a schedule that has planned times.
    from_at: the first moment of interest; None: as early as can be told.
    to_at: the last one; None: as late as can be told.
    limit: how many planned times outside of gaps to look at.

  Raises:
    NotFound: there is no such schedule.
    ScheduleError: it has no planned times, or its definition cannot be understood.
    Unavailable: it was changed each time that it was looked at.
  """
  for _ in range(TRIES):
    row = await _read_terms(database, schedule_id)
    timing = await _timing(database, row)
    after, until = row["known_from"], row["known_until"]
    if from_at is not None:
      after = max(after, from_at - _MICROSECOND)
    until = until if to_at is None else min(until, to_at)
    # Nothing to be told, as before the first plan.
    until = max(after, until)
    covered = await fetch_page(
      database,
      _sql.read_coverage,
      id=schedule_id,
      revision=row["revision"],
      after=after,
      until=until,
      limit=limit + 1,
    )
    if covered:
      return check_coverage(
        timing,
        after=after,
        until=until,
        tasks=covered[0]["tasks"],
        gaps=_read_gaps(covered[0]["gaps"]),
        limit=limit,
      )
  raise Unavailable(f"the schedule {str(schedule_id)!r} changes all the time")


async def _read_terms(database: Executor, schedule_id: UUID) -> Record:
  """Read what a ledger is read by."""
  row = await database.fetchrow(_sql.read_terms, id=schedule_id)
  return found(row, "schedule", schedule_id)


async def _timing(database: Executor, row: Record) -> Timing:
  """Return the definition of a schedule, or raise ScheduleError."""
  schedule = from_row(Schedule, row, next_run_at=None)
  if not is_planned(schedule):
    raise ScheduleError("has no planned times", field="kind")
  return timing_of(schedule, await read_calendars(database, [row]))


def _read_gaps(rows: Sequence[Sequence[Any]]) -> list[BookedGap]:
  """Read gaps as PostgreSQL writes them in JSON."""
  return [
    BookedGap(
      from_at=datetime.fromisoformat(from_at),
      to_at=datetime.fromisoformat(to_at),
      count=count,
    )
    for from_at, to_at, count in rows
  ]
