"""Gaps of the ledger lose a span: times in it get a task, or are yet to come.

Everything happens in the caller's transaction, with the schedules locked. What is left of
a gap is counted by the definition that planned it. The count, the beginning and the end of
a gap tell whether that is the one of now.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from hetuflow.protocol.model import new_id
from hetuflow.protocol.states import LedgerOutcome
from hetuflow.schedule import Timing, count_fires, next_fire
from hetuflow.storage.connect import Connection, Record
from hetuflow.storage.plan import Gap, book_times
from hetuflow.storage.sql import load_queries

__all__ = ["cut_gaps", "delete_gaps", "list_gaps"]

_sql = load_queries("gaps")

_MICROSECOND = timedelta(microseconds=1)


async def list_gaps(
  connection: Connection, ids: Sequence[UUID], *, start: datetime, end: datetime
) -> list[Record]:
  """Read the gaps of some schedules that reach into a span, both ends included."""
  return await connection.fetch(
    _sql.list_gaps, schedules=list(ids), **{"from": start, "to": end}
  )


async def cut_gaps(
  connection: Connection,
  rows: Sequence[Record],
  timings: Mapping[UUID, Timing],
  *,
  start: datetime,
  end: datetime,
) -> list[Record]:
  """Take a span out of gaps.

  Args:
    connection: in a transaction that has locked the schedules.
    rows: of ``list_gaps``.
    timings: the definition of each schedule.
    start: the first moment of the span.
    end: the last one.

  Returns:
    The gaps that stay as they are, because another definition planned them.
  """
  own = [
    row
    for row in rows
    if row["schedule_id"] in timings and _is_of(timings[row["schedule_id"]], row)
  ]
  left = [
    (row, gap)
    for row in own
    for gap in _remains(timings[row["schedule_id"]], row, start, end)
  ]
  await delete_gaps(connection, own)
  await connection.fetch(
    _sql.insert_gaps,
    ids=[new_id() for _ in left],
    namespaces=[row["namespace_id"] for row, _ in left],
    schedules=[row["schedule_id"] for row, _ in left],
    counts=[gap.count for _, gap in left],
    outcomes=[gap.outcome for _, gap in left],
    reasons=[gap.reason for _, gap in left],
    **{
      "from": [gap.from_at for _, gap in left],
      "to": [gap.to_at for _, gap in left],
    },
  )
  return [row for row in rows if row not in own]


async def delete_gaps(connection: Connection, rows: Sequence[Record]) -> None:
  """Take gaps out of the ledger, all of them."""
  await connection.fetch(
    _sql.delete_gaps,
    schedules=list({row["schedule_id"] for row in rows}),
    ids=[row["id"] for row in rows],
  )


def _is_of(timing: Timing, gap: Record) -> bool:
  """Tell whether a gap's times are those of a definition."""
  first: datetime = gap["from_at"]
  last: datetime = gap["to_at"]
  count: int = gap["count"]
  return (
    next_fire(timing, after=first - _MICROSECOND) == first
    and next_fire(timing, after=last - _MICROSECOND) == last
    and count_fires(timing, after=first - _MICROSECOND, until=last) == count
  )


def _remains(timing: Timing, gap: Record, start: datetime, end: datetime) -> list[Gap]:
  """Book what of a gap lies before a span, and behind it."""
  outcome, reason = LedgerOutcome(gap["outcome"]), gap["reason"]
  before = gap["from_at"] - _MICROSECOND
  return [
    *book_times(
      timing, before, start - _MICROSECOND, (), outcome=outcome, reason=reason
    ),
    *book_times(timing, end, gap["to_at"], (), outcome=outcome, reason=reason),
  ]
