"""Schedules: when a job is due."""

from collections.abc import Mapping
from enum import StrEnum

import attrs

from hetuflow.protocol.checks import FieldError, between, fits_a_message, length
from hetuflow.protocol.model.ids import (
  DEFAULT_NAMESPACE,
  UNSET,
  Instant,
  JobId,
  JsonObject,
  NamespaceId,
  ScheduleId,
  UnsetType,
)
from hetuflow.protocol.states import TASK_FINAL, ScheduleKind, TaskStatus

__all__ = [
  "CalendarMode",
  "Dst",
  "DstFold",
  "DstGap",
  "FollowedEnd",
  "Schedule",
  "ScheduleCalendar",
  "ScheduleFilter",
  "ScheduleForCreate",
  "ScheduleForPreview",
  "ScheduleForUpdate",
]

MAX_PREVIEW = 1_000
MAX_YEARS_SECONDS = 366 * 86_400
MAX_REPLICAS = 1_000
MAX_CALENDARS = 16


class DstGap(StrEnum):
  """What becomes of a wall time that does not exist."""

  SHIFT = "shift"
  SKIP = "skip"


class DstFold(StrEnum):
  """Which of two equal wall times counts."""

  FIRST = "first"
  BOTH = "both"
  LAST = "last"


@attrs.frozen(kw_only=True)
class Dst:
  """What a fixed-time schedule does on the days when clocks change.

  Example:
    {"gap": "shift", "fold": "first"}
  """

  gap: DstGap = DstGap.SHIFT
  fold: DstFold = DstFold.FIRST


class CalendarMode(StrEnum):
  """What a calendar's days mean to a schedule."""

  INCLUDE = "include"
  EXCLUDE = "exclude"
  NEXT = "next"
  PREVIOUS = "previous"


@attrs.frozen(kw_only=True)
class ScheduleCalendar:
  """A calendar that a schedule heeds.

  It fires only on the calendar's days, never on them, or is moved off them to the next or
  previous day that is not among them.

  Example:
    {"name": "holidays", "mode": "exclude"}
  """

  name: str = attrs.field(validator=length(1, 200))
  mode: CalendarMode = CalendarMode.EXCLUDE


@attrs.frozen(kw_only=True)
class FollowedEnd:
  """What a schedule of kind flow follows: the end of tasks of a job, by its name.

  Example:
    {"job": "extract", "status": ["succeeded"]}
  """

  job: str = attrs.field(validator=length(1, 200))
  status: list[TaskStatus] = attrs.field(
    factory=lambda: [TaskStatus.SUCCEEDED], validator=length(1, 6)
  )

  def __attrs_post_init__(self) -> None:
    """Demand statuses that are an end."""
    for status in self.status:
      if status not in TASK_FINAL:
        raise FieldError("status", f"{status} is not an end")


@attrs.frozen(kw_only=True)
class Schedule:
  """A schedule as it is read.

  Example:
    {"id": "0190a8b4-7c00-7000-8000-000000000001", "namespace_id": "default",
     "job_id": "0190a8b4-7c00-7000-8000-000000000002", "name": "nightly", "kind": "cron",
     "enabled": true, "timezone": "Europe/Berlin", "cron_expression": "30 2 * * *",
     "run_at": null, "interval_seconds": null, "fixed_delay": false,
     "replicas": null, "event_name": null, "event_filter": null, "after": null,
     "calendars": [], "parameters": {}, "start_at": null,
     "end_at": null, "max_runs": null, "jitter_seconds": 0.0,
     "dst": {"gap": "shift", "fold": "first"}, "run_count": 0,
     "next_run_at": "2026-01-02T01:30:00Z", "last_run_at": null,
     "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}
  """

  id: ScheduleId
  namespace_id: NamespaceId
  job_id: JobId
  name: str
  kind: ScheduleKind
  enabled: bool
  timezone: str
  cron_expression: str | None
  run_at: Instant | None
  interval_seconds: float | None
  fixed_delay: bool
  replicas: int | None
  event_name: str | None
  event_filter: JsonObject | None
  after: FollowedEnd | None
  calendars: list[ScheduleCalendar]
  parameters: JsonObject
  start_at: Instant | None
  end_at: Instant | None
  max_runs: int | None
  jitter_seconds: float
  dst: Dst
  run_count: int
  next_run_at: Instant | None
  last_run_at: Instant | None
  created_at: Instant
  updated_at: Instant


_BELONGS: Mapping[ScheduleKind, tuple[str, ...]] = {
  ScheduleKind.CRON: ("cron_expression",),
  ScheduleKind.TIME: ("interval_seconds", "run_at"),
  ScheduleKind.DAEMON: ("replicas",),
  ScheduleKind.EVENT: ("event_name",),
  ScheduleKind.FLOW: ("after",),
}
"""Of which fields each kind has exactly one."""


def _one_of_its_kind(schedule: "ScheduleForCreate | ScheduleForPreview") -> None:
  """Demand exactly the field that belongs to the kind."""
  wanted = _BELONGS[schedule.kind]
  named = {
    name
    for names in _BELONGS.values()
    for name in names
    if getattr(schedule, name, None) is not None
  }
  for name in sorted(named - set(wanted)):
    raise FieldError(name, f"does not belong to a schedule of kind {schedule.kind}")
  if len(named) != 1:
    raise FieldError(wanted[0], f"expected exactly one of {', '.join(wanted)}")


@attrs.frozen(kw_only=True)
class ScheduleForCreate:
  """What a caller says of a new schedule.

  ``kind`` cron takes ``cron_expression``; ``time`` takes ``run_at`` (once) or
  ``interval_seconds`` (again and again, counted from ``start_at``, or with ``fixed_delay``
  from the end of the task before); ``daemon`` takes ``replicas``, the number of tasks that
  are kept running; ``event`` takes ``event_name`` and perhaps ``event_filter``; ``flow``
  takes ``after``. ``job_id`` may be left out where the schedule is part of a new job.

  Example:
    {"job_id": "0190a8b4-7c00-7000-8000-000000000002", "name": "nightly",
     "kind": "cron", "cron_expression": "30 2 * * *", "timezone": "Europe/Berlin"}
  """

  job_id: JobId | None = None
  name: str = attrs.field(default="", validator=length(0, 200))
  kind: ScheduleKind
  enabled: bool = True
  timezone: str = "UTC"
  cron_expression: str | None = attrs.field(default=None, validator=length(1, 500))
  run_at: Instant | None = None
  interval_seconds: float | None = attrs.field(
    default=None, validator=between(1, MAX_YEARS_SECONDS)
  )
  fixed_delay: bool = False
  replicas: int | None = attrs.field(default=None, validator=between(1, MAX_REPLICAS))
  event_name: str | None = attrs.field(default=None, validator=length(1, 200))
  event_filter: JsonObject | None = attrs.field(default=None, validator=fits_a_message)
  after: FollowedEnd | None = None
  calendars: list[ScheduleCalendar] = attrs.field(
    factory=list, validator=length(0, MAX_CALENDARS)
  )
  parameters: JsonObject = attrs.field(factory=dict, validator=fits_a_message)
  start_at: Instant | None = None
  end_at: Instant | None = None
  max_runs: int | None = attrs.field(default=None, validator=between(1, 2**31 - 1))
  jitter_seconds: float = attrs.field(default=0.0, validator=between(0, 86_400))
  dst: Dst = attrs.field(factory=Dst)

  def __attrs_post_init__(self) -> None:
    """Demand the field that belongs to the kind, and what only some kinds have."""
    _one_of_its_kind(self)
    if self.fixed_delay and self.interval_seconds is None:
      raise FieldError("fixed_delay", "expected only with interval_seconds")
    if self.event_filter is not None and self.event_name is None:
      raise FieldError("event_filter", "expected only with event_name")
    if self.calendars and self.kind not in (ScheduleKind.CRON, ScheduleKind.TIME):
      raise FieldError("calendars", f"do not belong to a schedule of kind {self.kind}")
    if self.calendars and self.fixed_delay:
      raise FieldError("calendars", "expected none with fixed_delay")
    if self.kind is ScheduleKind.DAEMON and (self.max_runs or self.jitter_seconds):
      name = "max_runs" if self.max_runs else "jitter_seconds"
      raise FieldError(name, "does not belong to a schedule of kind daemon")


@attrs.frozen(kw_only=True)
class ScheduleForUpdate:
  """What may be changed of a schedule; what is left out stays.

  Example:
    {"cron_expression": "0 3 * * *", "end_at": null}
  """

  name: str | UnsetType = attrs.field(default=UNSET, validator=length(0, 200))
  timezone: str | UnsetType = UNSET
  cron_expression: str | UnsetType = attrs.field(
    default=UNSET, validator=length(1, 500)
  )
  run_at: Instant | UnsetType = UNSET
  interval_seconds: float | UnsetType = attrs.field(
    default=UNSET, validator=between(1, MAX_YEARS_SECONDS)
  )
  fixed_delay: bool | UnsetType = UNSET
  replicas: int | UnsetType = attrs.field(
    default=UNSET, validator=between(1, MAX_REPLICAS)
  )
  event_name: str | UnsetType = attrs.field(default=UNSET, validator=length(1, 200))
  event_filter: JsonObject | UnsetType | None = attrs.field(
    default=UNSET, validator=fits_a_message
  )
  after: FollowedEnd | UnsetType = UNSET
  calendars: list[ScheduleCalendar] | UnsetType = attrs.field(
    default=UNSET, validator=length(0, MAX_CALENDARS)
  )
  parameters: JsonObject | UnsetType = attrs.field(
    default=UNSET, validator=fits_a_message
  )
  start_at: Instant | UnsetType | None = UNSET
  end_at: Instant | UnsetType | None = UNSET
  max_runs: int | UnsetType | None = attrs.field(
    default=UNSET, validator=between(1, 2**31 - 1)
  )
  jitter_seconds: float | UnsetType = attrs.field(
    default=UNSET, validator=between(0, 86_400)
  )
  dst: Dst | UnsetType = UNSET


@attrs.frozen(kw_only=True)
class ScheduleForPreview:
  """The question when a timing would fire; calendars are those of the namespace.

  Example:
    {"kind": "cron", "cron_expression": "*/5 * * * *", "count": 3}
  """

  namespace_id: NamespaceId = DEFAULT_NAMESPACE
  kind: ScheduleKind = ScheduleKind.CRON
  timezone: str = "UTC"
  cron_expression: str | None = attrs.field(default=None, validator=length(1, 500))
  run_at: Instant | None = None
  interval_seconds: float | None = attrs.field(
    default=None, validator=between(1, MAX_YEARS_SECONDS)
  )
  calendars: list[ScheduleCalendar] = attrs.field(
    factory=list, validator=length(0, MAX_CALENDARS)
  )
  start_at: Instant | None = None
  end_at: Instant | None = None
  jitter_seconds: float = attrs.field(default=0.0, validator=between(0, 86_400))
  dst: Dst = attrs.field(factory=Dst)
  count: int = attrs.field(default=10, validator=between(1, MAX_PREVIEW))

  def __attrs_post_init__(self) -> None:
    """Demand the time that belongs to the kind."""
    if self.kind not in (ScheduleKind.CRON, ScheduleKind.TIME):
      raise FieldError("kind", "expected cron or time")
    _one_of_its_kind(self)


@attrs.frozen(kw_only=True)
class ScheduleFilter:
  """Which schedules to list; what is None does not matter.

  Example:
    {"kind": "cron", "enabled": true}
  """

  namespace_id: str | None = None
  job_id: JobId | None = None
  kind: ScheduleKind | None = None
  enabled: bool | None = None
