"""From a schedule to its definition in pure time."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Literal, cast
from uuid import UUID

import trio

from hetuflow.errors import ScheduleError
from hetuflow.protocol.model import (
  Schedule,
  ScheduleCalendar,
  ScheduleForCreate,
  ScheduleForPreview,
)
from hetuflow.protocol.states import ScheduleKind
from hetuflow.schedule import Calendar, CalendarUse, DstPolicy, Timing, load_zone
from hetuflow.storage.connect import Connection, Record
from hetuflow.storage.rows import Executor
from hetuflow.storage.sql import load_queries

__all__ = [
  "Calendars",
  "check_window",
  "find_calendars",
  "hold_calendars",
  "is_planned",
  "read_calendars",
  "timing_for",
  "timing_of",
]

_sql = load_queries("calendars")

_PLANNED = (ScheduleKind.CRON, ScheduleKind.TIME)

Calendars = Mapping[tuple[str, str], Calendar | ScheduleError]
"""By namespace and name; where a definition is refused by now, why."""


async def read_calendars(executor: Executor, rows: Iterable[Record]) -> Calendars:
  """Read the calendars that some schedules heed, in one statement, or none at all.

  Args:
    executor: where to read. A calendar and its schedules change in one transaction, so
      that definitions read after a schedule fit its revision or a later one.
    rows: with the columns ``namespace_id`` and ``calendars`` of a schedule.
  """
  return await _read(
    executor,
    {(row["namespace_id"], name) for row in rows for name in _names(row["calendars"])},
  )


def _names(uses: Sequence[object]) -> Iterator[str]:
  """Name calendars as a row does; who reads it whole says what is wrong with it."""
  for use in uses:
    match use:
      case {"name": str(name)}:
        yield name


async def find_calendars(
  executor: Executor, namespace_id: str, uses: Sequence[ScheduleCalendar]
) -> Calendars:
  """Read the calendars that one schedule names; those that are not there are left out.

  Args:
    executor: where to read.
    namespace_id: where they are.
    uses: what the schedule says of them.
  """
  return await _read(executor, {(namespace_id, use.name) for use in uses})


async def _read(executor: Executor, keys: Collection[tuple[str, str]]) -> Calendars:
  """Read calendars by namespace and name."""
  if not keys:
    return {}
  records = await executor.fetch(
    _sql.read_definitions,
    namespaces=[namespace for namespace, _ in keys],
    names=[name for _, name in keys],
  )
  found = {}
  for record in records:
    key = record["namespace_id"], record["name"]
    found[key] = _parse(record["definition"])
    # Thousands of dates take some milliseconds.
    await trio.lowlevel.checkpoint()
  return found


async def hold_calendars(
  connection: Connection, namespace_id: str, uses: Sequence[ScheduleCalendar]
) -> Calendars:
  """Read the calendars that a schedule is to heed, and keep them as they are.

  Args:
    connection: in a transaction that has not locked the schedule yet: who changes a
      calendar locks that first.
    namespace_id: where they are.
    uses: what the schedule says of them; those that are not there are left out.
  """
  if uses:
    names = [use.name for use in uses]
    await connection.fetch(_sql.share_calendars, namespace_id=namespace_id, names=names)
  return await find_calendars(connection, namespace_id, uses)


def _parse(definition: object) -> Calendar | ScheduleError:
  """Read a stored definition, or say why it is refused by now."""
  try:
    return Calendar.parse(definition)
  except ScheduleError as error:
    return error


def is_planned(schedule: Schedule | ScheduleForCreate) -> bool:
  """Tell whether the times of a schedule are known ahead.

  They are not where it waits for something to end or to happen.
  """
  return schedule.kind in _PLANNED and not schedule.fixed_delay


def check_window(schedule: Schedule | ScheduleForCreate) -> None:
  """Check what a schedule without planned times says of time.

  Raises:
    ScheduleError: its zone is unknown, or it ends before it starts; names the field.
  """
  load_zone(schedule.timezone)
  start, end = schedule.start_at, schedule.end_at
  if start is not None and end is not None and start >= end:
    raise ScheduleError("end_at must lie after start_at", field="end_at")


def timing_of(schedule: Schedule, calendars: Calendars | None = None) -> Timing:
  """Make the time definition of a schedule.

  Args:
    schedule: as it is read.
    calendars: at least those it names.

  Raises:
    ScheduleError: it cannot be scheduled; names the field.
  """
  return timing_for(
    schedule,
    id=schedule.id,
    namespace_id=schedule.namespace_id,
    created_at=schedule.created_at,
    calendars=calendars,
  )


def timing_for(
  wish: Schedule | ScheduleForCreate | ScheduleForPreview,
  *,
  id: UUID | None,
  namespace_id: str,
  created_at: datetime,
  calendars: Calendars | None = None,
) -> Timing:
  """Make the time definition of a schedule that is made now, or only asked about.

  Args:
    wish: what the caller said.
    id: spreads ``H``; None where there is no schedule.
    namespace_id: where its calendars are.
    created_at: from when an interval without ``start_at`` is counted.
    calendars: at least those it names.

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
    calendars=_uses(wish.calendars, namespace_id, calendars or {}),
  )


def _uses(
  wishes: Sequence[ScheduleCalendar], namespace_id: str, calendars: Calendars
) -> tuple[CalendarUse, ...]:
  """Find the calendars that a schedule names, or raise ScheduleError."""
  uses = []
  for place, wish in enumerate(wishes):
    found = calendars.get((namespace_id, wish.name))
    if not isinstance(found, Calendar):
      raise ScheduleError(
        f"there is no calendar {wish.name!r} in namespace {namespace_id!r}"
        if found is None
        else f"the calendar {wish.name!r} is refused by now: {found}",
        field=f"calendars[{place}].name",
      )
    uses.append(CalendarUse(calendar=found, mode=wish.mode.value))
  return tuple(uses)
