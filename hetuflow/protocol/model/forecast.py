"""What-if: the load that schedules lead to, before it comes."""

from enum import StrEnum

import attrs

from hetuflow.protocol.checks import FieldError, between, length
from hetuflow.protocol.model.ids import (
  DEFAULT_NAMESPACE,
  Instant,
  JobId,
  NamespaceId,
  ScheduleId,
)
from hetuflow.protocol.model.schedule import ScheduleForCreate
from hetuflow.protocol.states import OverlapPolicy, ScheduleKind

__all__ = [
  "ClockChangeEffect",
  "DurationMeasure",
  "Forecast",
  "ForecastClockChange",
  "ForecastHour",
  "ForecastPeak",
  "ForecastSchedule",
  "MovedDay",
  "ProposedSchedule",
  "WhatIf",
]

MAX_FORECAST_DAYS = 100
MAX_PROPOSED = 200
MAX_WITHOUT = 1_000
MAX_SHOWN = 1_000
MAX_DURATION = 366 * 86_400
_WITH_TIMES = (ScheduleKind.CRON, ScheduleKind.TIME)


class DurationMeasure(StrEnum):
  """Which of the durations measured lately stands for all to come."""

  MEDIAN = "median"
  P95 = "p95"


@attrs.frozen(kw_only=True)
class ProposedSchedule(ScheduleForCreate):
  """A schedule that is only thought of: of a job that is there, or of one described here.

  With ``job_id`` the limits and durations are those of the job, unless they are given.
  ``duration`` is seconds. Kinds are cron and time.

  Example:
    {"name": "copy", "kind": "cron", "cron_expression": "*/10 * * * *", "duration": 900.0,
     "overlap": "skip"}
  """

  namespace_id: NamespaceId = DEFAULT_NAMESPACE
  duration: float | None = attrs.field(
    default=None, validator=between(0.001, MAX_DURATION)
  )
  overlap: OverlapPolicy | None = None
  max_concurrent: int | None = attrs.field(
    default=None, validator=between(1, 1_000_000)
  )
  start_deadline: float | None = attrs.field(
    default=None, validator=between(0, MAX_DURATION)
  )

  def __attrs_post_init__(self) -> None:
    """Demand a kind that has times of its own."""
    super().__attrs_post_init__()
    if self.kind not in _WITH_TIMES:
      raise FieldError("kind", "expected cron or time")


@attrs.frozen(kw_only=True)
class WhatIf:
  """The question what load there will be, with some more schedules and without some.

  It is asked for ``days`` from ``start_at`` on, the hour of now where that is left out,
  and for all namespaces unless one is named. Tasks take as long as those of their job took
  lately, or ``default_duration`` seconds where none did. ``limit`` is how many schedules
  are told about one by one.

  Example:
    {"namespace_id": "default", "days": 7.0,
     "schedules": [{"kind": "cron", "cron_expression": "0 2 * * *", "duration": 600.0}]}
  """

  namespace_id: NamespaceId | None = None
  days: float = attrs.field(default=7.0, validator=between(0.01, MAX_FORECAST_DAYS))
  start_at: Instant | None = None
  schedules: list[ProposedSchedule] = attrs.field(
    factory=list, validator=length(0, MAX_PROPOSED)
  )
  without: list[ScheduleId] = attrs.field(
    factory=list, validator=length(0, MAX_WITHOUT)
  )
  durations: DurationMeasure = DurationMeasure.MEDIAN
  default_duration: float = attrs.field(
    default=60.0, validator=between(0.001, MAX_DURATION)
  )
  limit: int = attrs.field(default=100, validator=between(1, MAX_SHOWN))


@attrs.frozen(kw_only=True)
class ForecastPeak:
  """When the most tasks are under way at the same time.

  Example:
    {"concurrency": 12, "at": "2026-01-01T02:00:00Z"}
  """

  concurrency: int
  at: Instant | None


@attrs.frozen(kw_only=True)
class ForecastHour:
  """The load of one hour: planned times, and how many tasks are under way.

  Example:
    {"at": "2026-01-01T02:00:00Z", "fires": 60, "mean": 2.5, "peak": 12}
  """

  at: Instant
  fires: int
  mean: float
  peak: int


@attrs.frozen(kw_only=True)
class MovedDay:
  """A day whose times calendars move to another.

  Example:
    {"from_date": "2026-12-24", "to_date": "2026-12-28"}
  """

  from_date: str
  to_date: str


@attrs.frozen(kw_only=True)
class ForecastSchedule:
  """What becomes of the tasks of one schedule; durations are seconds.

  ``measured`` says whether ``duration`` is that of tasks that ran; ``steady`` that the
  schedule fires so often that it was counted and not simulated. ``waiting`` are tasks
  that have not started at the end; ``grows`` that more is due than can ever run.
  ``dropped`` are the days on which calendars let nothing fire.

  Example:
    {"schedule_id": null, "job_id": null, "namespace_id": "default", "job_name": null,
     "name": "copy", "proposed": true, "steady": false, "duration": 900.0,
     "measured": false, "fires": 144, "started": 72, "skipped": 72, "replaced": 0,
     "missed": 0, "waiting": 0, "grows": false, "longest_queue": 0, "longest_wait": 0.0,
     "moved": [{"from_date": "2026-12-24", "to_date": "2026-12-28"}],
     "dropped": ["2026-12-31"]}
  """

  schedule_id: ScheduleId | None
  job_id: JobId | None
  namespace_id: NamespaceId
  job_name: str | None
  name: str
  proposed: bool
  steady: bool
  duration: float
  measured: bool
  fires: int
  started: int
  skipped: int
  replaced: int
  missed: int
  waiting: int
  grows: bool
  longest_queue: int
  longest_wait: float
  moved: list[MovedDay]
  dropped: list[str]


@attrs.frozen(kw_only=True)
class ClockChangeEffect:
  """How many times of a schedule a change of the clock moves, leaves out or doubles.

  Example:
    {"schedule_id": null, "name": "nightly", "moved": 1, "skipped": 0, "doubled": 0}
  """

  schedule_id: ScheduleId | None
  name: str
  moved: int
  skipped: int
  doubled: int


@attrs.frozen(kw_only=True)
class ForecastClockChange:
  """A change of the clock in one time zone: a gap or a fold, and of how many seconds.

  ``left_off`` is of how many more schedules times are moved, skipped or doubled.

  Example:
    {"timezone": "Europe/Berlin", "at": "2026-03-29T01:00:00Z", "kind": "gap",
     "seconds": 3600, "schedules": [{"schedule_id": null, "name": "nightly", "moved": 1,
       "skipped": 0, "doubled": 0}], "left_off": 0}
  """

  timezone: str
  at: Instant
  kind: str
  seconds: int
  schedules: list[ClockChangeEffect]
  left_off: int


@attrs.frozen(kw_only=True)
class Forecast:
  """The load to come.

  ``schedules`` holds those that are proposed, then those in trouble, then those with most
  to do; ``left_off`` is how many more there are. ``unusable`` are schedules that plan
  nothing as they are.

  Example:
    {"start_at": "2026-01-01T00:00:00Z", "end_at": "2026-01-08T00:00:00Z", "fires": 10,
     "peak": {"concurrency": 1, "at": "2026-01-01T02:00:00Z"},
     "hours": [{"at": "2026-01-01T02:00:00Z", "fires": 1, "mean": 0.2, "peak": 1}],
     "schedules": [], "left_off": 0, "unusable": [], "clock_changes": []}
  """

  start_at: Instant
  end_at: Instant
  fires: int
  peak: ForecastPeak
  hours: list[ForecastHour]
  schedules: list[ForecastSchedule]
  left_off: int
  unusable: list[str]
  clock_changes: list[ForecastClockChange]
