"""The schedules of a forecast: those that are there, and those that are proposed."""

import math
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from statistics import median, quantiles
from typing import Any

import trio
from attrs import frozen

from hetuflow.errors import ProtocolError, ScheduleError
from hetuflow.protocol.model import (
  DurationMeasure,
  JobId,
  NamespaceId,
  ProposedSchedule,
  Schedule,
  ScheduleId,
  WhatIf,
)
from hetuflow.protocol.states import OverlapPolicy, ScheduleKind
from hetuflow.schedule.forecast import Limits, Source
from hetuflow.storage.connect import Database, Record
from hetuflow.storage.forecast import (
  list_limits,
  list_loads,
  list_rooms,
  read_durations,
)
from hetuflow.storage.lanes import lane_of
from hetuflow.storage.rows import from_row
from hetuflow.storage.timing import (
  Calendars,
  find_calendars,
  read_calendars,
  timing_for,
  timing_of,
)

__all__ = ["Entry", "read_entries"]

MAX_SCHEDULES = 10_000
"""With more of them a namespace has to be named."""
SECOND = 1_000_000


@frozen(kw_only=True)
class Entry:
  """One schedule of a forecast; ``duration`` is seconds, ``measured`` or assumed."""

  source: Source
  schedule_id: ScheduleId | None
  job_id: JobId | None
  namespace_id: NamespaceId
  job_name: str | None
  name: str
  duration: float
  measured: bool
  proposed: bool


@frozen(kw_only=True)
class _Job:
  """What is known of a job: limits as its row has them, and how long its tasks take."""

  row: Mapping[str, Any]
  duration: float
  measured: bool


async def read_entries(
  database: Database, wish: WhatIf
) -> tuple[list[Entry], list[str]]:
  """Read what a forecast is about.

  Returns:
    The schedules, those that are proposed last, and the names of those that plan nothing
    because they can no longer be understood.

  Raises:
    ProtocolError: a proposed schedule cannot be, or there are too many schedules.
  """
  rows = await list_loads(
    database,
    namespace_id=wish.namespace_id,
    without=wish.without,
    limit=MAX_SCHEDULES + 1,
  )
  if len(rows) > MAX_SCHEDULES:
    what = f"more than {MAX_SCHEDULES} schedules: expected a namespace with fewer"
    raise ProtocolError([("$.namespace_id", what)])
  jobs = await _read_jobs(database, rows, wish)
  calendars = await read_calendars(database, rows)
  entries, unusable = [], []
  for row in rows:
    # Definitions take their time; others are served in between.
    await trio.lowlevel.checkpoint()
    try:
      entries.append(_entry_of(row, jobs[row["job_id"]], calendars))
    except ScheduleError as error:
      unusable.append(f"{row['name']} of {row['job_name']}: {error}")
  return entries + await _read_proposed(database, wish, jobs), unusable


async def _read_jobs(
  database: Database, rows: Collection[Record], wish: WhatIf
) -> dict[JobId, _Job]:
  """Read the limits and durations of all jobs of a forecast."""
  known: dict[JobId, Record] = {JobId(row["job_id"]): row for row in rows}
  named = {each.job_id for each in wish.schedules if each.job_id is not None}
  more = await list_limits(database, named - known.keys())
  known |= {JobId(id): row for id, row in more.items()}
  measured = await read_durations(database, known)
  return {
    id: _Job(
      row=dict(row) | {"id": id},
      duration=_typical(measured[id], wish.durations)
      if id in measured
      else wish.default_duration,
      measured=id in measured,
    )
    for id, row in known.items()
  }


def _typical(durations: list[float], measure: DurationMeasure) -> float:
  """Return the one duration that stands for some, in seconds."""
  if measure is DurationMeasure.MEDIAN or len(durations) == 1:
    return median(durations)
  return quantiles(durations, n=20, method="inclusive")[-1]


def _entry_of(row: Record, job: _Job, calendars: Calendars) -> Entry:
  """Make the entry of a schedule that is there."""
  schedule = from_row(Schedule, row, next_run_at=None)
  daemon = schedule.kind is ScheduleKind.DAEMON
  most = math.inf
  if schedule.max_runs is not None:
    most = max(schedule.max_runs - schedule.run_count, 0)
  return Entry(
    source=Source(
      timing=None if daemon else timing_of(schedule, calendars),
      key=str(schedule.id),
      duration=_micros(job.duration),
      limits=_limits(job.row, schedule.namespace_id, schedule.parameters),
      delay=_delay(schedule),
      most=most,
      replicas=schedule.replicas or 0,
    ),
    schedule_id=schedule.id,
    job_id=schedule.job_id,
    namespace_id=schedule.namespace_id,
    job_name=row["job_name"],
    name=schedule.name,
    duration=job.duration,
    measured=job.measured,
    proposed=False,
  )


async def _read_proposed(
  database: Database, wish: WhatIf, jobs: Mapping[JobId, _Job]
) -> list[Entry]:
  """Make the entries of proposed schedules; errors name their place in the list."""
  spaces = {each.namespace_id for each in wish.schedules if each.job_id is None}
  rooms = await list_rooms(database, spaces)
  entries = []
  for place, proposed in enumerate(wish.schedules):
    path = f"$.schedules[{place}]"
    if proposed.job_id is None:
      if proposed.namespace_id not in rooms:
        raise ProtocolError([(f"{path}.namespace_id", "there is no such namespace")])
      job = _described(place, rooms[proposed.namespace_id], wish.default_duration)
    elif proposed.job_id in jobs:
      job = jobs[proposed.job_id]
    else:
      raise ProtocolError([(f"{path}.job_id", "there is no such job")])
    try:
      entries.append(await _propose(database, proposed, job, place))
    except ScheduleError as error:
      raise ProtocolError([(f"{path}.{error.field}", str(error))]) from error
  return entries


def _described(place: int, max_running: int | None, duration: float) -> _Job:
  """Make up a job that a proposed schedule describes itself."""
  row = {
    "id": f"proposed {place}",
    "namespace_id": None,
    "job_name": None,
    "priority": 0,
    "overlap": OverlapPolicy.ALLOW,
    "max_concurrent": None,
    "concurrency_key": None,
    "rate_count": None,
    "rate_seconds": None,
    "start_deadline": None,
    "max_running": max_running,
  }
  return _Job(row=row, duration=duration, measured=False)


async def _propose(
  database: Database, proposed: ProposedSchedule, job: _Job, place: int
) -> Entry:
  """Make the entry of a proposed schedule, whose own words count more than the job's."""
  own = {
    name: getattr(proposed, name)
    for name in ("overlap", "max_concurrent", "start_deadline")
    if getattr(proposed, name) is not None
  }
  namespace_id = NamespaceId(job.row["namespace_id"] or proposed.namespace_id)
  given = proposed.duration is not None
  duration = job.duration if proposed.duration is None else proposed.duration
  timing = timing_for(
    proposed,
    id=None,
    namespace_id=namespace_id,
    created_at=datetime.now(UTC),
    calendars=await find_calendars(database, namespace_id, proposed.calendars),
  )
  return Entry(
    source=Source(
      timing=timing,
      key=f"proposed {place}",
      duration=_micros(duration),
      limits=_limits(dict(job.row) | own, namespace_id, proposed.parameters),
      delay=_delay(proposed),
      most=math.inf if proposed.max_runs is None else proposed.max_runs,
    ),
    schedule_id=None,
    job_id=proposed.job_id,
    namespace_id=namespace_id,
    job_name=job.row["job_name"],
    name=proposed.name or f"proposed-{place}",
    duration=duration,
    measured=job.measured and not given,
    proposed=True,
  )


def _limits(
  job: Mapping[str, Any], namespace_id: str, parameters: dict[str, Any]
) -> Limits:
  """Return the limits of the tasks of a schedule."""
  max_running, rate_count = job["max_running"], job["rate_count"]
  deadline, places = job["start_deadline"], job["max_concurrent"]
  overlap = OverlapPolicy(job["overlap"])
  if places is None:
    single = job["concurrency_key"] is not None or overlap is not OverlapPolicy.ALLOW
    places = 1 if single else math.inf
  return Limits(
    lane=lane_of(job, max_running, parameters),
    places=places,
    overlap=overlap,
    rate=job["rate_seconds"] * SECOND / rate_count if rate_count else 0,
    job=job["id"],
    start_deadline=math.inf if deadline is None else round(deadline * SECOND),
    priority=job["priority"],
    namespace=namespace_id,
    room=math.inf if max_running is None else max_running,
  )


def _micros(seconds: float) -> int:
  """Return a duration as the simulation takes it."""
  return max(round(seconds * SECOND), 1)


def _delay(schedule: Schedule | ProposedSchedule) -> int | None:
  """Return the pause after each task of a schedule that makes one."""
  if schedule.fixed_delay and schedule.interval_seconds is not None:
    return _micros(schedule.interval_seconds)
  return None
