"""Planning anew: what an edit of a schedule, or of its job, does to what was planned.

Everything happens in the caller's transaction, with the schedules locked. What the old
definition still had to plan up to now is planned by it. Tasks planned for later that
nobody has taken are deleted, the cursor is set to now (never before: time that was
switched off is not caught up), tasks after it that are there to stay are noted, and the
revision rises, so that a planner which read the schedule before comes to nothing.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID

import attrs
import trio

from hetuflow.errors import ProtocolError, ScheduleError, StorageError, Unavailable
from hetuflow.protocol.model import Schedule, ScheduleForCreate
from hetuflow.schedule import Timing, next_fire
from hetuflow.storage.connect import Connection, Record
from hetuflow.storage.gaps import cut_gaps, delete_gaps, list_gaps
from hetuflow.storage.plan import plan_schedule
from hetuflow.storage.planning import list_behind, plan_tasks
from hetuflow.storage.rows import from_row
from hetuflow.storage.sql import load_queries
from hetuflow.storage.timing import (
  Calendars,
  is_planned,
  read_calendars,
  timing_of,
)

__all__ = ["catch_up", "first_cursor", "read_schedule", "replanned"]

_sql = load_queries("schedules")

RUN_AT_GRACE = timedelta(seconds=60)
"""A one-off time this far in the past is still meant as "now"; an older one is refused."""
CATCH_UP_TASKS = 20_000
"""Tasks that an edit makes of what was not planned yet; with more it has to wait for the
generator."""
_MICROSECOND = timedelta(microseconds=1)
_EVER = datetime(9999, 1, 1, tzinfo=UTC)


def read_schedule(record: Record, calendars: Calendars) -> Schedule:
  """Build a schedule from its row, with its next run.

  That is the earliest task planned for later or, if earlier, the first fire behind what
  is planned, or the end of an interval that is counted from the end of the last task;
  None when it is disabled, its job is, or no run is left.

  Args:
    record: of ``select_schedules`` or ``list_schedules``.
    calendars: at least those it heeds.
  """
  schedule = from_row(Schedule, record, next_run_at=None)
  if not (record["enabled"] and record["job_enabled"]):
    return schedule
  try:
    planned = max(record["read_at"], record["cursor_at"])
    runs = (
      record["planned_run_at"],
      record["kept_next_at"],
      _next_run(schedule, calendars, planned, gone=0),
    )
  except ScheduleError:
    # Its zone is not known here, though it was where it was made: still to be read.
    return schedule
  return attrs.evolve(
    schedule, next_run_at=min((run for run in runs if run is not None), default=None)
  )


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


@asynccontextmanager
async def replanned(
  connection: Connection,
  namespace_id: str,
  ids: Sequence[UUID],
  *,
  new_run_at: bool = False,
) -> AsyncIterator[None]:
  """Let schedules be changed in the block: what was due stays, what is later begins anew.

  Args:
    connection: in a transaction that has locked the schedules and their jobs.
    namespace_id: of all of them.
    ids: of the schedules.
    new_run_at: whether the block sets a one-off time.

  Raises:
    ScheduleError: a schedule has become one that cannot be.
    Unavailable: after a long downtime there is too much to be caught up at once.
  """
  now: datetime = await connection.fetchval(_sql.read_clock)
  await catch_up(connection, ids, now)
  await _forget_booked(connection, ids, now)
  yield
  await _begin_anew(connection, namespace_id, ids, now, new_run_at=new_run_at)


async def catch_up(connection: Connection, ids: Sequence[UUID], now: datetime) -> None:
  """Plan what some schedules have up to now, by their definitions as they are.

  Args:
    connection: in a transaction that has locked the schedules and their jobs.
    ids: of the schedules.
    now: the database's time.

  Raises:
    Unavailable: there is too much to be made at once.
  """
  left = CATCH_UP_TASKS
  plans = []
  rows = await list_behind(connection, ids, now)
  calendars = await read_calendars(connection, rows)
  for row in rows:
    # Many schedules must not hold up the rest of the server.
    await trio.lowlevel.checkpoint()
    try:
      timing = timing_of(from_row(Schedule, row, next_run_at=None), calendars)
      plan = plan_schedule(row, timing, limit=left)
    except (ProtocolError, ScheduleError, StorageError):
      # One that can no longer be understood has no times that could be missed.
      continue
    left -= len(plan.tasks)
    if left <= 0 or plan.cursor_at < now:
      raise Unavailable("the schedule is still catching up after a long downtime")
    plans.append(plan)
  await plan_tasks(connection, plans)


async def _forget_booked(
  connection: Connection, ids: Sequence[UUID], now: datetime
) -> None:
  """Take out of the ledger what was booked for later, by a clock that was ahead."""
  late = await list_gaps(connection, ids, start=now + _MICROSECOND, end=_EVER)
  if not late:
    return
  wanted = list({row["schedule_id"] for row in late})
  records = await connection.fetch(_sql.select_schedules, ids=wanted)
  calendars = await read_calendars(connection, records)
  timings: dict[UUID, Timing] = {}
  for record in records:
    with suppress(ScheduleError, StorageError):
      schedule = from_row(Schedule, record, next_run_at=None)
      timings[schedule.id] = timing_of(schedule, calendars)
  start = now + _MICROSECOND
  others = await cut_gaps(connection, late, timings, start=start, end=_EVER)
  await delete_gaps(connection, others)


async def _begin_anew(
  connection: Connection,
  namespace_id: str,
  ids: Sequence[UUID],
  now: datetime,
  *,
  new_run_at: bool,
) -> None:
  """Take back what is planned for later, and let planning begin behind now."""
  scope = {"namespace_id": namespace_id, "ids": list(ids)}
  records = await connection.fetch(_sql.delete_future_tasks, **scope, now=now)
  gone = {record["schedule_id"]: record["count"] for record in records}
  records = await connection.fetch(_sql.select_schedules, ids=scope["ids"])
  calendars = await read_calendars(connection, records)
  cursors, following = [], []
  for record in records:
    await trio.lowlevel.checkpoint()
    cursor, first = now, None
    active = record["enabled"] and record["job_enabled"]
    # One that is off need not be one that can be read.
    if active or new_run_at:
      schedule = from_row(Schedule, record, next_run_at=None)
      cursor = min(now, first_cursor(schedule, now)) if new_run_at else now
      if active:
        left = gone.get(schedule.id, 0)
        first = _next_run(schedule, calendars, cursor, gone=left)
    cursors.append(cursor)
    following.append(first)
  await connection.fetch(
    _sql.move_cursors,
    namespace_id=namespace_id,
    ids=[record["id"] for record in records],
    cursors=cursors,
    next=following,
    gone=[gone.get(record["id"], 0) for record in records],
  )
  await connection.fetch(_sql.notify_schedules)


def _next_run(
  schedule: Schedule, calendars: Calendars, after: datetime, *, gone: int
) -> datetime | None:
  """Find the next planned time after a moment, if there are any and a run is left."""
  if not is_planned(schedule):
    return None
  timing: Timing = timing_of(schedule, calendars)
  if schedule.max_runs is not None and schedule.run_count - gone >= schedule.max_runs:
    return None
  return next_fire(timing, after=after)
