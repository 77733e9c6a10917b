"""What is to come: the next fires of a schedule, and what forecasts begin with."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import trio

from hetuflow.protocol.model import JobId, Schedule
from hetuflow.schedule import preview
from hetuflow.storage.connect import Record
from hetuflow.storage.rows import Executor, found, from_row
from hetuflow.storage.schedules import get_schedule
from hetuflow.storage.sql import load_queries
from hetuflow.storage.statistics import recent_durations
from hetuflow.storage.timing import read_calendars, timing_of

__all__ = [
  "list_limits",
  "list_loads",
  "list_next_fires",
  "list_rooms",
  "read_durations",
]

_sql = load_queries("forecast")

SCHEDULES_AT_ONCE = 500
JOBS_AT_ONCE = 200
ATTEMPTS = 20
"""Attempts of each job that tell how long the next one will take."""
_MICROSECOND = timedelta(microseconds=1)


async def list_next_fires(
  database: Executor, id: UUID, *, count: int
) -> list[datetime]:
  """Find when a schedule fires next, as it is now.

  Where each time depends on the end of the task before, only the first one is known.

  Args:
    database: where.
    id: of the schedule.
    count: how many times at most.

  Returns:
    UTC times, without jitter; none where it or its job is disabled or no run is left.

  Raises:
    NotFound: there is no such schedule.
    ScheduleError: it has no times of its own; names the field.
  """
  record = found(await database.fetchrow(_sql.select_upcoming, id=id), "schedule", id)
  schedule = from_row(Schedule, record, next_run_at=None)
  if schedule.fixed_delay:
    next_run_at = (await get_schedule(database, id)).next_run_at
    return [] if next_run_at is None else [next_run_at]
  timing = timing_of(schedule, await read_calendars(database, [record]))
  if not (schedule.enabled and record["job_enabled"]):
    return []
  if schedule.max_runs is not None:
    left = schedule.max_runs - schedule.run_count + record["planned"]
    count = max(min(count, left), 0)
  # Calendars may leave nothing for years: a thread searches while others are served.
  start = record["read_at"] + _MICROSECOND
  return await trio.to_thread.run_sync(
    partial(preview, timing, start=start, count=count)
  )


async def list_loads(
  database: Executor, *, namespace_id: str | None, without: Sequence[UUID], limit: int
) -> list[Record]:
  """Read the schedules that make tasks by themselves, with the limits of their jobs.

  Args:
    database: where.
    namespace_id: of one namespace, or of all.
    without: schedules that are left out.
    limit: how many at most.

  Returns:
    The columns of a schedule with ``job_name`` and those of ``list_limits``.
  """
  loads: list[Record] = []
  while len(loads) < limit:
    # All at once they would take long to decode, and hold up whoever else is served.
    page = await database.fetch(
      _sql.list_loads,
      namespace_id=namespace_id,
      without=list(without),
      cursor=loads[-1]["id"] if loads else None,
      limit=min(SCHEDULES_AT_ONCE, limit - len(loads)),
    )
    loads += page
    if len(page) < SCHEDULES_AT_ONCE:
      break
  return loads


async def list_limits(
  database: Executor, ids: Collection[UUID]
) -> Mapping[UUID, Record]:
  """Read what some jobs say of limits, by their ids; deleted ones are left out."""
  if not ids:
    return {}
  records = await database.fetch(_sql.list_limits, ids=list(ids))
  return {record["job_id"]: record for record in records}


async def list_rooms(
  database: Executor, ids: Collection[str]
) -> Mapping[str, int | None]:
  """Read how many tasks some namespaces let be under way, None where it is not bounded."""
  if not ids:
    return {}
  records: list[Any] = await database.fetch(_sql.list_rooms, ids=list(ids))
  return {record["id"]: record["max_running"] for record in records}


async def read_durations(
  database: Executor, ids: Collection[JobId]
) -> dict[JobId, list[float]]:
  """Read how long the last attempts of jobs took that succeeded, some jobs at a time.

  Returns:
    Seconds; a job of which nothing is known is left out.
  """
  wanted = sorted(set(ids))
  durations: dict[JobId, list[float]] = {}
  for place in range(0, len(wanted), JOBS_AT_ONCE):
    some = wanted[place : place + JOBS_AT_ONCE]
    durations |= await recent_durations(database, some, limit=ATTEMPTS)
  return durations
