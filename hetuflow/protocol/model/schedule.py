"""Schedules: when a job is due."""

from enum import StrEnum

import attrs

from hetuflow.protocol.checks import FieldError, between, fits_a_message, length
from hetuflow.protocol.model.ids import (
  UNSET,
  Instant,
  JobId,
  JsonObject,
  NamespaceId,
  ScheduleId,
  UnsetType,
)
from hetuflow.protocol.states import ScheduleKind

__all__ = [
  "Dst",
  "DstFold",
  "DstGap",
  "Schedule",
  "ScheduleFilter",
  "ScheduleForCreate",
  "ScheduleForPreview",
  "ScheduleForUpdate",
]

MAX_PREVIEW = 1_000
MAX_YEARS_SECONDS = 366 * 86_400


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


@attrs.frozen(kw_only=True)
class Schedule:
  """A schedule as it is read.

  Example:
    {"id": "0190a8b4-7c00-7000-8000-000000000001", "namespace_id": "default",
     "job_id": "0190a8b4-7c00-7000-8000-000000000002", "name": "nightly", "kind": "cron",
     "enabled": true, "timezone": "Europe/Berlin", "cron_expression": "30 2 * * *",
     "run_at": null, "interval_seconds": null, "parameters": {}, "start_at": null,
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


def _one_time(schedule: "ScheduleForCreate | ScheduleForPreview") -> None:
  """Demand exactly the time field that belongs to the kind."""
  given = {
    "cron_expression": schedule.cron_expression,
    "run_at": schedule.run_at,
    "interval_seconds": schedule.interval_seconds,
  }
  wanted = {
    ScheduleKind.CRON: {"cron_expression"},
    ScheduleKind.TIME: {"run_at", "interval_seconds"},
  }.get(schedule.kind)
  if wanted is None:
    raise FieldError("kind", "expected cron or time")
  named = {name for name, value in given.items() if value is not None}
  for name in sorted(named - wanted):
    raise FieldError(name, f"does not belong to a schedule of kind {schedule.kind}")
  if len(named) != 1:
    raise FieldError(
      sorted(wanted)[0], f"expected exactly one of {', '.join(sorted(wanted))}"
    )


@attrs.frozen(kw_only=True)
class ScheduleForCreate:
  """What a caller says of a new schedule.

  ``kind`` cron takes ``cron_expression``; ``time`` takes ``run_at`` (once) or
  ``interval_seconds`` (again and again, counted from ``start_at``). ``job_id`` may be
  left out where the schedule is part of a new job.

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
  parameters: JsonObject = attrs.field(factory=dict, validator=fits_a_message)
  start_at: Instant | None = None
  end_at: Instant | None = None
  max_runs: int | None = attrs.field(default=None, validator=between(1, 2**31 - 1))
  jitter_seconds: float = attrs.field(default=0.0, validator=between(0, 86_400))
  dst: Dst = attrs.field(factory=Dst)

  def __attrs_post_init__(self) -> None:
    """Demand the time that belongs to the kind."""
    _one_time(self)


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
  """The question when a timing would fire.

  Example:
    {"kind": "cron", "cron_expression": "*/5 * * * *", "count": 3}
  """

  kind: ScheduleKind = ScheduleKind.CRON
  timezone: str = "UTC"
  cron_expression: str | None = attrs.field(default=None, validator=length(1, 500))
  run_at: Instant | None = None
  interval_seconds: float | None = attrs.field(
    default=None, validator=between(1, MAX_YEARS_SECONDS)
  )
  start_at: Instant | None = None
  end_at: Instant | None = None
  jitter_seconds: float = attrs.field(default=0.0, validator=between(0, 86_400))
  dst: Dst = attrs.field(factory=Dst)
  count: int = attrs.field(default=10, validator=between(1, MAX_PREVIEW))

  def __attrs_post_init__(self) -> None:
    """Demand the time that belongs to the kind."""
    _one_time(self)


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
