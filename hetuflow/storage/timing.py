"""From a schedule to its definition in pure time."""

from datetime import datetime
from typing import Literal, cast
from uuid import UUID

from hetuflow.errors import ScheduleError
from hetuflow.protocol.model import Schedule, ScheduleForCreate, ScheduleForPreview
from hetuflow.protocol.states import ScheduleKind
from hetuflow.schedule import DstPolicy, Timing

__all__ = ["timing_for", "timing_of"]

_PLANNED = (ScheduleKind.CRON, ScheduleKind.TIME)


def timing_of(schedule: Schedule) -> Timing:
  """Make the time definition of a schedule.

  Raises:
    ScheduleError: it cannot be scheduled; names the field.
  """
  return timing_for(schedule, id=schedule.id, created_at=schedule.created_at)


def timing_for(
  wish: Schedule | ScheduleForCreate | ScheduleForPreview,
  *,
  id: UUID | None,
  created_at: datetime,
) -> Timing:
  """Make the time definition of a schedule that is made now, or only asked about.

  Args:
    wish: what the caller said.
    id: spreads ``H``; None where there is no schedule.
    created_at: from when an interval without ``start_at`` is counted.

  Raises:
    ScheduleError: it cannot be scheduled; names the field.
  """
  if wish.kind not in _PLANNED:
    raise ScheduleError("expected cron or time", field="kind")
  return Timing(
    kind=cast(Literal["cron", "time"], str(wish.kind)),
    cron_expression=wish.cron_expression,
    run_at=wish.run_at,
    interval_seconds=wish.interval_seconds,
    timezone=wish.timezone,
    start_at=wish.start_at,
    end_at=wish.end_at,
    created_at=created_at,
    jitter_seconds=wish.jitter_seconds,
    dst=DstPolicy(gap=wish.dst.gap.value, fold=wish.dst.fold.value),
    hash_key=None if id is None else str(id),
  )
