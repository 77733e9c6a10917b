"""Single times and intervals under calendars.

The times of an interval differ from day to day, so what fires on one open day is put
together from *pieces*: spans of time in which the fires are those equal to a phase modulo
the interval. A day's own fires keep their instants; what moves to it keeps its time on
the wall and is treated there as a job at a fixed time (``walk``). Everything is counted in
microseconds since the epoch, and nothing is stepped through.
"""

from collections.abc import Iterable, Iterator
from zoneinfo import ZoneInfo

from attrs import frozen

from hetuflow.schedule.calendar.opening import OpenDays
from hetuflow.schedule.interval import next_in_interval
from hetuflow.schedule.walk import DstPolicy, shown_walls
from hetuflow.schedule.walls import DAY, EPOCH_ORDINAL, NEVER
from hetuflow.schedule.zones import Segment, segment_at

__all__ = ["DatedSeries"]

_SECOND = 1_000_000
_DAY = DAY * _SECOND
# No offset, nor change of one, takes a wall time further than this from its instant.
_REACH = 2 * _DAY
_ONCE = 1 << 80
"""The interval of a single time: there is no second one."""

Piece = tuple[int, int, int]
"""From the first instant up to the second, every fire that equals the third modulo the
interval."""


@frozen(kw_only=True)
class DatedSeries:
  """A single time or an interval that calendars thin out and move.

  Args:
    anchor: the first time, in microseconds since the epoch.
    step: the interval in microseconds; 0 for a single time.
    zone: whose dates.
    dst: the policy for what is moved.
    opening: the calendars.
  """

  anchor: int
  step: int
  zone: ZoneInfo
  dst: DstPolicy
  opening: OpenDays

  @property
  def _step(self) -> int:
    """The interval, never 0."""
    return self.step or _ONCE

  def next_micros(self, after: int, until: int) -> int | None:
    """Return the first fire after ``after`` and not after ``until``, or None."""
    best: int | None = None
    for day in self._days(after, until):
      # What fires on a day does so before that day ends, wherever it came from.
      if best is not None and (day - EPOCH_ORDINAL) * _DAY > best + _REACH:
        break
      for low, high, phase in self._pieces(day):
        at = self._first(max(low, after + 1), phase)
        if at < high and (best is None or at < best):
          best = at
    return best if best is not None and best <= until else None

  def count(self, after: int, until: int) -> int:
    """Return how many fires lie after ``after`` and not after ``until``."""
    by_phase: dict[int, list[tuple[int, int]]] = {}
    for day in self._days(after, until):
      for low, high, phase in self._pieces(day):
        low, high = max(low, after + 1), min(high, until + 1)
        if low < high:
          by_phase.setdefault(phase, []).append((low, high))
    return sum(
      self._count(low, high, phase)
      for phase, spans in by_phase.items()
      for low, high in _disjoint(spans)
    )

  def _days(self, after: int, until: int) -> Iterator[int]:
    """Yield the open days on which something may fire in a span, and few others."""
    day = (after - _REACH) // _DAY + EPOCH_ORDINAL
    last = (until + _REACH) // _DAY + EPOCH_ORDINAL
    while (day := self.opening.next_open(day)) <= last:
      planned = self._next_planned(self.opening.first_source(day))
      if planned == NEVER:
        return
      target = self.opening.first_target(planned)
      if target <= day:
        yield day
      day = max(day + 1, target)

  def _next_planned(self, day: int) -> int:
    """Return a day at or after one before which the series by itself has no fire."""
    earliest = (day - EPOCH_ORDINAL) * _DAY - _REACH
    at = next_in_interval(self.anchor, self._step, after=earliest - 1)
    if not self.step and at != self.anchor:
      return NEVER
    return max(day, (at - _REACH) // _DAY + EPOCH_ORDINAL)

  def _pieces(self, day: int) -> Iterator[Piece]:
    """Yield what fires on an open day: its own, then what moves to it."""
    own, *moved = self.opening.sources(day)
    for low, high, _ in self._shown(own):
      yield low, high, self.anchor % self._step
    for source in moved:
      shift = (day - source) * _DAY
      for low, high, offset in self._shown(source):
        yield from self._move(low, high, offset + shift, day)

  def _shown(self, day: int) -> Iterator[tuple[int, int, int]]:
    """Yield the spans of the series in which a date is shown, with their offsets."""
    start = (day - EPOCH_ORDINAL) * _DAY
    for segment in self._segments(day):
      low = max(segment.start, start - segment.offset, self.anchor)
      high = min(segment.end, start + _DAY - segment.offset)
      if low < high:
        yield low, high, segment.offset

  def _move(self, low: int, high: int, shift: int, day: int) -> Iterator[Piece]:
    """Yield the instants of a day at which the walls of a moved span are shown."""
    low, high, phase = low + shift, high + shift, self.anchor + shift
    for segment in self._segments(day):
      first, last = shown_walls(segment, self.dst)
      offset = segment.offset
      if max(low, first) < min(high, last):
        yield (
          max(low, first) - offset,
          min(high, last) - offset,
          (phase - offset) % self._step,
        )
      opens, closes = segment.start + segment.before, segment.start + offset
      skips = self.dst.gap == "skip" or opens >= closes
      if not skips and self._first(max(low, opens), phase) < min(high, closes):
        yield segment.start, segment.start + 1, segment.start % self._step

  def _first(self, low: int, phase: int) -> int:
    """Return the first instant at or after ``low`` that has a phase."""
    return low + (phase - low) % self._step

  def _count(self, low: int, high: int, phase: int) -> int:
    """Return how many instants from ``low`` up to ``high`` have a phase."""
    return max((high - 1 - self._first(low, phase)) // self._step + 1, 0)

  def _segments(self, day: int) -> Iterator[Segment]:
    """Yield the segments of the zone around a day, in microseconds."""
    at = (day - EPOCH_ORDINAL) * DAY - 2 * DAY
    end = at + 5 * DAY
    while at < end:
      found = segment_at(self.zone, at)
      yield _in_micros(found)
      at = found.end


def _in_micros(segment: Segment) -> Segment:
  """Return a segment in microseconds."""
  return Segment(
    segment.start * _SECOND,
    segment.end * _SECOND,
    segment.before * _SECOND,
    segment.offset * _SECOND,
    segment.after * _SECOND,
  )


def _disjoint(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
  """Yield the same time in spans that do not overlap, in order."""
  reached = -NEVER
  for low, high in sorted(spans):
    if reached < high:
      yield max(low, reached), high
      reached = high
