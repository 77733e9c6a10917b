"""When a schedule fires: one definition, and the times that follow from it.

Everything here is a pure function of its arguments: two servers that ask the same
question plan the same times. Planned times of cron are whole seconds; those of ``run_at``
and of intervals keep the microseconds they were given.
"""

import math
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Literal
from zoneinfo import ZoneInfo

from attrs import field, frozen

from hetuflow.errors import ScheduleError
from hetuflow.schedule.calendar.dated import DatedCron
from hetuflow.schedule.calendar.opening import CalendarUse, open_days
from hetuflow.schedule.calendar.series import DatedSeries
from hetuflow.schedule.cron import CronExpression
from hetuflow.schedule.fields import LAST_YEAR
from hetuflow.schedule.instants import LAST, SECOND, to_micros, to_moment
from hetuflow.schedule.interval import count_in_interval, next_in_interval
from hetuflow.schedule.walk import DstPolicy, count_instants, next_instant
from hetuflow.schedule.walls import WallTimes
from hetuflow.schedule.zones import load_zone

__all__ = ["Timing", "fire_times", "jitter", "next_fire", "preview"]

_SHORTEST_INTERVAL_SECONDS = 1.0
_LONGEST_INTERVAL_SECONDS = 100 * 366 * 86_400.0
_LONGEST_JITTER_SECONDS = 86_400.0


@frozen(kw_only=True)
class Timing:
  """The time definition of one schedule, checked when it is made.

  Args:
    kind: ``cron``, or ``time`` with either ``run_at`` or ``interval_seconds``.
    cron_expression: the dialect of ``CronExpression``.
    run_at: the one time.
    interval_seconds: 1 or more; counted from ``start_at``, else from the whole second
      of ``created_at``.
    timezone: IANA name; the wall that cron reads.
    start_at, end_at: nothing fires before the first or after the second, wherever
      calendars moved it from; a fire exactly on either is kept.
    created_at: when the schedule was made.
    jitter_seconds: the upper bound of ``jitter``, at most a day.
    dst: what a job at a fixed time does on days of change.
    hash_key: what ``H`` is computed from, such as the schedule's id.
    calendars: which days are left out or moved from; the days are those of the wall in
      ``timezone`` that the definition names. Their order does not matter.

  Raises:
    ScheduleError: with the field at fault; datetimes without a zone are refused.
  """

  kind: Literal["cron", "time"]
  cron_expression: str | None = None
  run_at: datetime | None = None
  interval_seconds: float | None = None
  timezone: str = "UTC"
  start_at: datetime | None = None
  end_at: datetime | None = None
  created_at: datetime | None = None
  jitter_seconds: float = 0.0
  dst: DstPolicy = field(factory=DstPolicy)
  hash_key: str | None = None
  calendars: tuple[CalendarUse, ...] = ()
  _zone: ZoneInfo = field(init=False, eq=False, repr=False)
  # One of the two, unless the times are those of a plain series.
  walls: WallTimes | None = field(init=False, eq=False, repr=False)
  _dated: DatedSeries | None = field(init=False, eq=False, repr=False, default=None)
  # Microseconds since the epoch: nothing fires at or before _floor, or after _ceiling.
  _floor: int = field(init=False, eq=False, repr=False, default=-LAST)
  _ceiling: int = field(init=False, eq=False, repr=False, default=LAST)
  _anchor: int = field(init=False, eq=False, repr=False, default=0)
  _step: int = field(init=False, eq=False, repr=False, default=0)

  @_zone.default
  def _load_zone(self) -> ZoneInfo:
    """Return the zone by its name."""
    return load_zone(self.timezone)

  @walls.default
  def _make_walls(self) -> WallTimes | None:
    """Return the wall times of a cron schedule."""
    if self.cron_expression is None:
      return None
    expression = CronExpression.parse(self.cron_expression, hash_key=self.hash_key)
    if not self.calendars:
      return expression
    return DatedCron(expression=expression, opening=open_days(self.calendars))

  def __attrs_post_init__(self) -> None:
    """Check what concerns more than one field, and turn times into numbers once."""
    _check_kind(self)
    _check_moments(self)
    _check_durations(self)
    if self.start_at is not None:
      self._derive("_floor", to_micros(self.start_at) - 1)
    if self.end_at is not None:
      self._derive("_ceiling", min(to_micros(self.end_at), LAST))
    if self.run_at is not None:
      self._derive("_anchor", to_micros(self.run_at))
    elif self.interval_seconds is not None:
      self._derive("_anchor", _anchor_of(self))
      self._derive("_step", round(self.interval_seconds * SECOND))

    if self.calendars and self.walls is None:
      self._derive("_dated", self._make_dated())

  def _derive(self, name: str, value: object) -> None:
    """Set what follows from the definition, while the object is made."""
    object.__setattr__(self, name, value)

  def _make_dated(self) -> DatedSeries:
    """Return the times of a series under calendars."""
    return DatedSeries(
      anchor=self._anchor,
      step=self._step,
      zone=self._zone,
      dst=self.dst,
      opening=open_days(self.calendars),
    )

  def next_micros(self, after: int, until: int) -> int | None:
    """Return the next fire after ``after`` and not after ``until``, or None.

    Arguments and result are microseconds since the epoch.
    """
    after = max(after, self._floor)
    until = min(until, self._ceiling)
    if self.walls is not None:
      found = next_instant(
        self.walls,
        self._zone,
        self.dst,
        after=after // SECOND,
        until=until // SECOND,
      )
      return None if found is None else found * SECOND
    if self._dated is not None:
      return self._dated.next_micros(after, until)
    at = self._anchor
    if self._step:
      at = next_in_interval(self._anchor, self._step, after=after)
    return at if after < at <= until else None

  def count_micros(self, after: int, until: int) -> int:
    """Return how many fires lie after ``after`` and not after ``until``.

    Arguments are microseconds since the epoch.
    """
    after = max(after, self._floor)
    until = min(until, self._ceiling)
    if self.walls is not None:
      return count_instants(
        self.walls,
        self._zone,
        self.dst,
        after=after // SECOND,
        until=until // SECOND,
      )
    if self._dated is not None:
      return self._dated.count(after, until)
    if self._step:
      return count_in_interval(self._anchor, self._step, after=after, until=until)
    return int(after < self._anchor <= until)


def _anchor_of(timing: Timing) -> int:
  """Where the series of an interval begins, in microseconds since the epoch."""
  if timing.start_at is not None:
    return to_micros(timing.start_at)
  if timing.created_at is not None:
    return to_micros(timing.created_at) // SECOND * SECOND
  raise ScheduleError(
    "an interval is counted from start_at or created_at; give one", field="start_at"
  )


def _check_kind(timing: Timing) -> None:
  """Raise ScheduleError unless exactly the definition of the kind is given."""
  given = {
    "cron_expression": timing.cron_expression is not None,
    "run_at": timing.run_at is not None,
    "interval_seconds": timing.interval_seconds is not None,
  }
  wanted = {"cron": ["cron_expression"], "time": ["run_at", "interval_seconds"]}.get(
    timing.kind
  )
  if wanted is None:
    raise ScheduleError(
      f"kind {timing.kind!r} has no times of its own; allowed: cron, time", field="kind"
    )
  for name, present in given.items():
    if present and name not in wanted:
      raise ScheduleError(f"{name} does not belong to kind {timing.kind}", field=name)
  if sum(given.values()) != 1:
    raise ScheduleError(
      f"kind {timing.kind} needs {' or '.join(wanted)}"
      f"{', and only one of them' if len(wanted) > 1 else ''}",
      field=wanted[0],
    )


def _check_moments(timing: Timing) -> None:
  """Raise ScheduleError for times without a zone or that contradict each other."""
  for name in ("run_at", "start_at", "end_at", "created_at"):
    moment = getattr(timing, name)
    if moment is not None and moment.utcoffset() is None:
      raise ScheduleError(f"{name} needs a UTC offset", field=name)
  start, end, run = timing.start_at, timing.end_at, timing.run_at
  if start is not None and end is not None and start >= end:
    raise ScheduleError("end_at must lie after start_at", field="end_at")
  if run is None:
    return
  if (start is not None and run < start) or (end is not None and run > end):
    raise ScheduleError("run_at lies outside start_at to end_at", field="run_at")
  if to_micros(run) > LAST:
    raise ScheduleError(f"run_at lies after the year {LAST_YEAR}", field="run_at")


def _check_durations(timing: Timing) -> None:
  """Raise ScheduleError for an interval or jitter out of bounds."""
  interval = timing.interval_seconds
  if interval is not None and not (
    _SHORTEST_INTERVAL_SECONDS <= interval <= _LONGEST_INTERVAL_SECONDS
  ):
    raise ScheduleError(
      f"interval_seconds {interval} is outside {_SHORTEST_INTERVAL_SECONDS:g} to "
      f"{_LONGEST_INTERVAL_SECONDS:.0f}",
      field="interval_seconds",
    )
  if not 0 <= timing.jitter_seconds <= _LONGEST_JITTER_SECONDS:
    raise ScheduleError(
      f"jitter_seconds {timing.jitter_seconds} is outside 0 to "
      f"{_LONGEST_JITTER_SECONDS:.0f}",
      field="jitter_seconds",
    )


def fire_times(
  timing: Timing, *, after: datetime, until: datetime, limit: int
) -> list[datetime]:
  """Return the fires of a span.

  Args:
    timing: the definition.
    after: the fires lie strictly behind it; aware.
    until: the last moment that counts; aware.
    limit: how many at most; the earliest are returned.

  Returns:
    UTC times, strictly increasing.
  """
  at, last = to_micros(after), to_micros(until)
  found: list[datetime] = []
  while len(found) < limit:
    fire = timing.next_micros(at, last)
    if fire is None:
      break
    found.append(to_moment(fire))
    at = fire
  return found


def next_fire(timing: Timing, *, after: datetime) -> datetime | None:
  """Return the first fire strictly after an aware moment, in UTC, or None."""
  fire = timing.next_micros(to_micros(after), LAST)
  return None if fire is None else to_moment(fire)


def preview(timing: Timing, *, start: datetime, count: int) -> list[datetime]:
  """Return the first ``count`` fires at or after an aware moment, in UTC."""
  last = to_moment(LAST)
  return fire_times(
    timing, after=start - timedelta(microseconds=1), until=last, limit=count
  )


def jitter(timing: Timing, planned_at: datetime, key: str) -> timedelta:
  """How much later than planned one occurrence starts.

  Args:
    timing: gives the bound ``jitter_seconds``.
    planned_at: the occurrence.
    key: spreads schedules that plan the same time, such as the schedule's id.

  Returns:
    From 0 up to but not including the bound, in whole microseconds, evenly spread; the
    same for the same arguments, wherever it is computed.
  """
  bound = math.floor(timing.jitter_seconds * SECOND)
  if bound == 0:
    return timedelta(0)
  text = f"{key}\0{to_micros(planned_at)}"
  digest = blake2b(text.encode(), digest_size=8).digest()
  return timedelta(microseconds=int.from_bytes(digest, "big") % bound)
