"""A forecast: the simulation driven in small steps, and its outcome in words for people.

Run by a request of the API. Owns nothing; the simulation is pure and goes on between the
other work of the server, some milliseconds at a time. One forecast is made at once, so
that several share that time.
"""

from collections.abc import Generator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import trio

from hetuflow.protocol.model import (
  ClockChangeEffect,
  Forecast,
  ForecastClockChange,
  ForecastHour,
  ForecastPeak,
  ForecastSchedule,
  MovedDay,
  WhatIf,
)
from hetuflow.schedule import load_zone
from hetuflow.schedule.forecast import (
  HOUR,
  ClockChange,
  Effect,
  Hour,
  Moves,
  Outlook,
  clock_changes,
  effect_of,
  find_moves,
  foresee,
)
from hetuflow.server.forecasting.entries import Entry, read_entries
from hetuflow.storage.connect import Database

__all__ = ["MAX_FIRES", "forecast"]

MAX_FIRES = 200_000
"""Fires that are simulated one by one."""
SECOND = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

T = TypeVar("T")

_turn = trio.Lock()


async def forecast(
  database: Database, wish: WhatIf, *, max_fires: int = MAX_FIRES
) -> Forecast:
  """Foresee the load that a caller asks about.

  Args:
    database: where the schedules are.
    wish: the question.
    max_fires: how many fires are simulated; schedules that fire more often are counted.

  Raises:
    ProtocolError: a proposed schedule cannot be, or there are too many schedules.
  """
  start = wish.start_at or datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
  span = _micros(start), _micros(start + timedelta(days=wish.days))
  async with _turn:
    entries, unusable = await read_entries(database, wish)
    sources = [entry.source for entry in entries]
    steps = foresee(sources, start=span[0], end=span[1], budget=max_fires)
    outlook = await _drive(steps)
    shown = _choose(entries, outlook, wish.limit)
    moves = await _drive(_find_moves(entries, shown, *span))
    changes = await _drive(_find_changes(entries, *span, wish.limit))
  return Forecast(
    start_at=_moment(span[0]),
    end_at=_moment(span[1]),
    fires=sum(tally.due for tally in outlook.tallies),
    peak=_peak(outlook.hours),
    hours=[_hour(hour, span[1]) for hour in outlook.hours],
    schedules=[
      _told(entries[number], outlook, number, moves[number]) for number in shown
    ],
    left_off=len(entries) - len(shown),
    unusable=unusable,
    clock_changes=changes,
  )


async def _drive(steps: Generator[None, None, T]) -> T:
  """Take the steps of a long computation, and let others run between them."""
  while True:
    try:
      next(steps)
    except StopIteration as end:
      found: T = end.value
      return found
    await trio.lowlevel.checkpoint()


def _micros(moment: datetime) -> int:
  """Return a moment in microseconds since the epoch."""
  return (moment - _EPOCH) // timedelta(microseconds=1)


def _moment(micros: int) -> datetime:
  """Return the moment of microseconds since the epoch."""
  return _EPOCH + timedelta(microseconds=micros)


def _choose(entries: Sequence[Entry], outlook: Outlook, limit: int) -> list[int]:
  """Choose whom to tell about: what is proposed, what is in trouble, what is busy."""

  def interest(number: int) -> tuple[bool, int, float]:
    """Return what is told about first, as the smallest."""
    entry, tally = entries[number], outlook.tallies[number]
    trouble = tally.skipped + tally.replaced + tally.missed + tally.waiting
    return not entry.proposed, -trouble, -tally.started * entry.duration

  return sorted(range(len(entries)), key=interest)[:limit]


def _find_moves(
  entries: Sequence[Entry], shown: Sequence[int], start: int, end: int
) -> Generator[None, None, Mapping[int, Moves]]:
  """Find what calendars do to schedules, one at a step."""
  moves = {}
  for number in shown:
    timing = entries[number].source.timing
    moves[number] = (
      Moves(moved=[], dropped=[])
      if timing is None
      else find_moves(timing, start=start, end=end)
    )
    yield
  return moves


def _find_changes(
  entries: Sequence[Entry], start: int, end: int, limit: int
) -> Generator[None, None, list[ForecastClockChange]]:
  """Find what changes of clocks do to schedules, one at a step."""
  zones: dict[str, list[Entry]] = {}
  for entry in entries:
    if entry.source.timing is not None:
      zones.setdefault(entry.source.timing.timezone, []).append(entry)
  found = []
  for timezone, here in sorted(zones.items()):
    for change in clock_changes(load_zone(timezone), start=start, end=end):
      effects = []
      for entry in here:
        effects += _effects(entry, change)
        yield
      found.append(
        ForecastClockChange(
          timezone=timezone,
          at=_moment(change.at * SECOND),
          kind=change.kind,
          seconds=abs(change.after - change.before),
          schedules=effects[:limit],
          left_off=max(len(effects) - limit, 0),
        )
      )
  return sorted(found, key=lambda change: change.at)


def _effects(entry: Entry, change: ClockChange) -> list[ClockChangeEffect]:
  """Say what a change does to one schedule, if it does anything."""
  timing = entry.source.timing
  effect = Effect() if timing is None else effect_of(timing, change)
  if effect == Effect():
    return []
  return [
    ClockChangeEffect(
      schedule_id=entry.schedule_id,
      name=entry.name,
      moved=effect.moved,
      skipped=effect.skipped,
      doubled=effect.doubled,
    )
  ]


def _peak(hours: Sequence[Hour]) -> ForecastPeak:
  """Find when the most is under way."""
  highest = max(hours, key=lambda hour: hour.peak)
  return ForecastPeak(
    concurrency=highest.peak, at=_moment(highest.peak_at) if highest.peak else None
  )


def _hour(hour: Hour, end: int) -> ForecastHour:
  """Tell about one hour; the last one may be shorter."""
  return ForecastHour(
    at=_moment(hour.start),
    fires=round(hour.fires),
    mean=round(hour.busy / min(HOUR, end - hour.start), 3),
    peak=hour.peak,
  )


def _told(
  entry: Entry, outlook: Outlook, number: int, moves: Moves
) -> ForecastSchedule:
  """Tell about one schedule."""
  tally = outlook.tallies[number]
  return ForecastSchedule(
    schedule_id=entry.schedule_id,
    job_id=entry.job_id,
    namespace_id=entry.namespace_id,
    job_name=entry.job_name,
    name=entry.name,
    proposed=entry.proposed,
    steady=outlook.steady[number],
    duration=entry.duration,
    measured=entry.measured,
    fires=tally.due,
    started=tally.started,
    skipped=tally.skipped,
    replaced=tally.replaced,
    missed=tally.missed,
    waiting=tally.waiting,
    grows=outlook.growing[number],
    longest_queue=tally.longest_queue,
    longest_wait=tally.longest_wait / SECOND,
    moved=[
      MovedDay(from_date=source.isoformat(), to_date=target.isoformat())
      for source, target in moves.moved
    ],
    dropped=[day.isoformat() for day in moves.dropped],
  )
