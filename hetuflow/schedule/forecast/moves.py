"""On which days calendars move a schedule, or leave it out."""

from datetime import UTC, date, datetime

import attrs

from hetuflow.schedule.calendar.opening import LONGEST_SHIFT_DAYS, OpenDays, open_days
from hetuflow.schedule.instants import SECOND
from hetuflow.schedule.timing import Timing
from hetuflow.schedule.walls import DAY, EPOCH_ORDINAL
from hetuflow.schedule.zones import load_zone, segment_at

__all__ = ["Moves", "find_moves"]


@attrs.frozen(kw_only=True)
class Moves:
  """What calendars do to the days of a schedule, on the wall of its zone.

  ``moved`` holds days with those that take their place, ``dropped`` days on which nothing
  fires that would without calendars.
  """

  moved: list[tuple[date, date]]
  dropped: list[date]


def find_moves(timing: Timing, *, start: int, end: int) -> Moves:
  """Compare a schedule with the same one without calendars.

  Args:
    timing: with calendars, or without any, which moves nothing.
    start: the first instant, in microseconds since the epoch.
    end: the instant behind the last one.
  """
  moved: list[tuple[date, date]] = []
  dropped: list[date] = []
  if timing.calendars:
    plain = attrs.evolve(timing, calendars=())
    opening = open_days(timing.calendars)
    first, last = _day_of(timing, start), _day_of(timing, end - 1)
    targets = _targets(opening, first, last)
    for day in range(first, last + 1):
      low, high = _midnight(timing, day), _midnight(timing, day + 1)
      if opening.next_open(day) == day or not plain.count_micros(low - 1, high - 1):
        continue
      if day in targets:
        moved.append((date.fromordinal(day), date.fromordinal(targets[day])))
      else:
        dropped.append(date.fromordinal(day))
  return Moves(moved=moved, dropped=dropped)


def _targets(opening: OpenDays, first: int, last: int) -> dict[int, int]:
  """Return for shifting days of a span to which open day each moves."""
  targets: dict[int, int] = {}
  day = opening.next_open(first - LONGEST_SHIFT_DAYS)
  while day <= last + LONGEST_SHIFT_DAYS:
    for source in opening.sources(day)[1:]:
      targets[source] = day
    day = opening.next_open(day + 1)
  return targets


def _day_of(timing: Timing, at: int) -> int:
  """Return the day on the wall at an instant, as an ordinal."""
  zone = load_zone(timing.timezone)
  return datetime.fromtimestamp(at // SECOND, UTC).astimezone(zone).toordinal()


def _midnight(timing: Timing, day: int) -> int:
  """Return the instant at which a day begins on the wall, in microseconds."""
  wall = (day - EPOCH_ORDINAL) * DAY
  zone = load_zone(timing.timezone)
  # The offset a day before is that of midnight, unless it changes in between.
  offset = segment_at(zone, wall - segment_at(zone, wall - DAY).offset).offset
  return (wall - offset) * SECOND
