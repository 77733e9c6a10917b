"""Backfill: planned times that have passed run after all.

All of it is one transaction that holds the schedule, so that neither planner nor editor
can make a task of the same time. What was not planned yet up to now is planned first, by
the misfire policy; then each planned time of the span has a task, lies in a gap, or is one
that nobody ever planned. Those without a task get one, and gaps lose them; only those of
an earlier definition, whose times are others, stay as they are. Done again it finds a task
for each and does nothing.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import islice
from uuid import UUID

from hetuflow.errors import Conflict, ProtocolError, ScheduleError
from hetuflow.protocol.model import (
  Backfill,
  BackfillForCreate,
  Schedule,
  TaskId,
  new_id,
)
from hetuflow.protocol.states import JobStatus, TaskCause
from hetuflow.schedule import Timing, count_fires, fire_times
from hetuflow.storage.connect import Connection, Record
from hetuflow.storage.gaps import cut_gaps, list_gaps
from hetuflow.storage.lanes import lane_of, reason_of
from hetuflow.storage.plan import PlannedTask, spread_tasks
from hetuflow.storage.planning import TASKS_PER_STATEMENT
from hetuflow.storage.replan import catch_up
from hetuflow.storage.rows import Executor, found, repeated
from hetuflow.storage.schedules import get_schedule, locked_schedule
from hetuflow.storage.sql import load_queries
from hetuflow.storage.timing import find_calendars, is_planned, timing_of

__all__ = ["MAX_BACKFILL", "backfill_schedule"]

_sql = load_queries("backfill")

MAX_BACKFILL = 10_000
"""Planned times that one call looks at."""
_MICROSECOND = timedelta(microseconds=1)


@repeated
async def backfill_schedule(
  database: Executor, id: UUID, wish: BackfillForCreate
) -> Backfill:
  """Make tasks for the planned times of a past span that have none.

  Args:
    database: where.
    id: of the schedule; it need not be enabled.
    wish: the span.

  Returns:
    The tasks, due now in the order of their planned times.

  Raises:
    ProtocolError: the span reaches into the future, or has more than ``MAX_BACKFILL``
      planned times.
    ScheduleError: the schedule has no planned times.
    NotFound: there is no such schedule.
    Conflict: its job is disabled or deleted.
    Unavailable: after a long downtime there is too much to be planned first.
  """
  async with locked_schedule(database, id) as (connection, held):
    row = await connection.fetchrow(_sql.read_job, id=held["id"])
    job = found(row, "job", held["id"])
    if job["status"] != JobStatus.ENABLED:
      raise Conflict(f"the job {job['name']!r} is {job['status']}")
    now: datetime = job["read_at"]
    schedule = await get_schedule(connection, id)
    timing = await _timing(connection, schedule)
    _check_span(timing, wish, now)
    await catch_up(connection, [id], now)
    tasks = await _missing(connection, schedule, timing, wish, now)
    if not tasks:
      return Backfill(tasks=0, ids=[])
    span = {"start": wish.start_at, "end": wish.end_at}
    gaps = await list_gaps(connection, [id], **span)
    await cut_gaps(connection, gaps, {id: timing}, **span)
    ids = await _insert(connection, schedule, job, tasks)
    return Backfill(tasks=len(ids), ids=ids)


async def _timing(connection: Connection, schedule: Schedule) -> Timing:
  """Return the definition of a schedule, or raise ScheduleError."""
  if not is_planned(schedule):
    raise ScheduleError("has no planned times that could be run later", field="kind")
  calendars = await find_calendars(
    connection, schedule.namespace_id, schedule.calendars
  )
  return timing_of(schedule, calendars)


def _check_span(timing: Timing, wish: BackfillForCreate, now: datetime) -> None:
  """Refuse what has not passed yet, and what is too much."""
  if wish.end_at > now:
    raise ProtocolError(
      [("$.end_at", f"lies in the future: it is {now.isoformat()} now")]
    )
  count = count_fires(timing, after=wish.start_at - _MICROSECOND, until=wish.end_at)
  if count > MAX_BACKFILL:
    problem = (
      f"there are {count} planned times, {count - MAX_BACKFILL} more than the"
      f" {MAX_BACKFILL} of one call"
    )
    raise ProtocolError([("$.end_at", problem)])


async def _missing(
  connection: Connection,
  schedule: Schedule,
  timing: Timing,
  wish: BackfillForCreate,
  now: datetime,
) -> list[PlannedTask]:
  """List the planned times of a span that have no task."""
  times = fire_times(
    timing, after=wish.start_at - _MICROSECOND, until=wish.end_at, limit=MAX_BACKFILL
  )
  rows = await connection.fetch(
    _sql.list_planned,
    namespace_id=schedule.namespace_id,
    id=schedule.id,
    **{"from": wish.start_at, "to": wish.end_at},
  )
  known = {row["planned_at"] for row in rows}
  wanted = [at for at in times if at not in known]
  # None of them is due later than now, though one after the other.
  start = now - len(wanted) * _MICROSECOND
  return spread_tasks(
    timing, wanted, schedule.id, cause=TaskCause.BACKFILL, start=start
  )


async def _insert(
  connection: Connection,
  schedule: Schedule,
  job: Record,
  tasks: Sequence[PlannedTask],
) -> list[TaskId]:
  """Make the tasks, in the lane that the job of now wants, and hint at them."""
  lane = lane_of(job, job["max_running"], schedule.parameters)
  ids: list[TaskId] = []
  rest = iter(tasks)
  while part := list(islice(rest, TASKS_PER_STATEMENT)):
    rows = await connection.fetch(
      _sql.insert_tasks,
      schedule_id=schedule.id,
      lane=lane,
      reason=None if lane is None else reason_of(lane),
      ids=[new_id() for _ in part],
      planned=[task.planned_at for task in part],
      scheduled=[task.scheduled_at for task in part],
      due=[task.due_at for task in part],
    )
    ids += [TaskId(row["id"]) for row in rows]
  await connection.fetch(
    _sql.hint,
    kind="tasks" if lane is None else "limits",
    namespace_id=schedule.namespace_id,
  )
  return ids
