"""Planning anew: what an edit of a schedule, or of its job, does to what was planned.

Everything happens in the caller's transaction, with the schedules locked: tasks planned
for later that nobody has taken are deleted, the cursor goes back behind those that were
taken (never before now: time that was switched off is not caught up), and the revision
rises, so that a planner which read the schedule before comes to nothing.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import attrs

from hetuflow.errors import ScheduleError
from hetuflow.protocol.model import Schedule, ScheduleForCreate
from hetuflow.schedule import Timing, next_fire
from hetuflow.storage.connect import Connection, Record
from hetuflow.storage.rows import from_row
from hetuflow.storage.sql import load_queries
from hetuflow.storage.timing import timing_of

__all__ = ["first_cursor", "read_schedule", "replan_schedules"]

_sql = load_queries("schedules")

RUN_AT_GRACE = timedelta(seconds=60)
"""A one-off time this far in the past is still meant as "now"; an older one is refused."""
_MICROSECOND = timedelta(microseconds=1)


def read_schedule(record: Record) -> Schedule:
  """Build a schedule from its row, with its next run.

  That is the earliest task planned for later, else the next fire; None when it is
  disabled, its job is, or no run is left.
  """
  schedule = from_row(Schedule, record, next_run_at=None)
  if not (record["enabled"] and record["job_enabled"]):
    return schedule
  try:
    run = record["planned_run_at"] or _next_run(schedule, record["read_at"], gone=0)
  except ScheduleError:
    # Its zone is not known here, though it was where it was made: still to be read.
    return schedule
  return attrs.evolve(schedule, next_run_at=run)


def first_cursor(wish: ScheduleForCreate | Schedule, now: datetime) -> datetime:
  """Say from when a schedule is planned that is new, or has a new ``run_at``.

  Raises:
    ScheduleError: ``run_at`` has long passed.
  """
  if wish.run_at is None or wish.run_at > now:
    return now
  if wish.run_at < now - RUN_AT_GRACE:
    raise ScheduleError(
      f"lies in the past: it is {now.isoformat(timespec='seconds')} now", field="run_at"
    )
  return wish.run_at - _MICROSECOND


async def replan_schedules(
  connection: Connection,
  namespace_id: str,
  ids: Sequence[UUID],
  *,
  new_run_at: bool = False,
) -> None:
  """Take back what is planned for later and start planning behind what was taken.

  Args:
    connection: in a transaction that has locked the schedules.
    namespace_id: of all of them.
    ids: of the schedules.
    new_run_at: whether a one-off time was set just now.

  Raises:
    ScheduleError: a schedule has become one that cannot be.
  """
  now: datetime = await connection.fetchval(_sql.read_clock)
  scope = {"namespace_id": namespace_id, "ids": list(ids)}
  records = await connection.fetch(_sql.delete_future_tasks, **scope, now=now)
  gone = {record["schedule_id"]: record["count"] for record in records}
  records = await connection.fetch(_sql.list_taken, **scope)
  taken = {record["schedule_id"]: record["planned_at"] for record in records}
  records = await connection.fetch(_sql.select_schedules, ids=scope["ids"])
  cursors, following = [], []
  for record in records:
    schedule = from_row(Schedule, record, next_run_at=None)
    cursor = max(now, taken.get(schedule.id, now))
    if new_run_at:
      cursor = min(cursor, first_cursor(schedule, now))
    active = record["enabled"] and record["job_enabled"]
    left = gone.get(schedule.id, 0)
    cursors.append(cursor)
    following.append(_next_run(schedule, cursor, gone=left) if active else None)
  await connection.fetch(
    _sql.move_cursors,
    ids=[record["id"] for record in records],
    cursors=cursors,
    next=following,
    gone=[gone.get(record["id"], 0) for record in records],
  )
  await connection.fetch(_sql.notify_schedules)


def _next_run(schedule: Schedule, after: datetime, *, gone: int) -> datetime | None:
  """Find the next planned time after a moment, if a run is left."""
  timing: Timing = timing_of(schedule)
  if schedule.max_runs is not None and schedule.run_count - gone >= schedule.max_runs:
    return None
  return next_fire(timing, after=after)
