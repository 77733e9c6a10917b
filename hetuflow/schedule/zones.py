"""Time zones as segments of constant UTC offset.

zoneinfo answers for one instant and lists no transitions, so they are searched for: one
offset a day, and where two days differ a bisection to the second. A year of a zone is
searched once and kept. (All zones of the IANA database change at most once a day since
1970; a test compares with a finer search.)
"""

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from attrs import frozen

from hetuflow.errors import ScheduleError

__all__ = ["Segment", "load_zone", "segment_at"]

_DAY = 86_400
_BLOCK = 366 * _DAY
_FAR = 1 << 61
_ALWAYS = timedelta(0)
# Names that exist as files but mean another thing on each machine or count leap seconds.
_NOT_ZONES = ("localtime", "posixrules", "right/", "Factory")


@frozen
class Segment:
  """A span of time in which a zone keeps one offset.

  Args:
    start: its first instant, in seconds since the epoch.
    end: the first instant after it.
    before: the offset in seconds until ``start``; equal to ``offset`` where the span is
      cut for no other reason than the search.
    offset: the offset within, in seconds east of UTC.
    after: the offset from ``end`` on.
  """

  start: int
  end: int
  before: int
  offset: int
  after: int


@lru_cache(maxsize=1024)
def load_zone(name: str) -> ZoneInfo:
  """Return the zone of an IANA name, from the system's database or the tzdata package.

  Raises:
    ScheduleError: there is no such zone; field ``timezone``.
  """
  try:
    if name.startswith(_NOT_ZONES):
      raise ValueError(name)
    return ZoneInfo(name)
  # zoneinfo lets through what the file system says about odd names.
  except (KeyError, ValueError, OSError) as error:
    raise ScheduleError(
      f"unknown time zone {name!r}; expected an IANA name such as Europe/Berlin",
      field="timezone",
    ) from error


def segment_at(zone: ZoneInfo, instant: int) -> Segment:
  """Return the segment that holds an instant, given in seconds since the epoch."""
  starts, segments = _block(zone, instant // _BLOCK)
  return segments[bisect_right(starts, instant) - 1]


@lru_cache(maxsize=8192)
def _block(zone: ZoneInfo, number: int) -> tuple[tuple[int, ...], tuple[Segment, ...]]:
  """Return the segments of one block of days, beside their starts."""
  fixed = zone.utcoffset(None)  # answers only for zones that never change
  if fixed is not None:
    offset = int(fixed.total_seconds())
    return (-_FAR,), (Segment(-_FAR, _FAR, offset, offset, offset),)
  low, high = number * _BLOCK, (number + 1) * _BLOCK
  starts = [low, *_changes(zone, low, high)]
  offsets = [_offset(zone, start) for start in starts]
  befores = [_offset(zone, low - 1), *offsets]
  afters = [*offsets[1:], _offset(zone, high)]
  ends = [*starts[1:], high]
  rows = zip(starts, ends, befores, offsets, afters, strict=False)
  return tuple(starts), tuple(Segment(*row) for row in rows)


def _changes(zone: ZoneInfo, low: int, high: int) -> list[int]:
  """Return the instants between ``low`` and ``high`` at which the offset changes."""
  found = []
  at, offset = low, _offset(zone, low)
  for day in range(low + _DAY, high + 1, _DAY):
    last = min(day, high - 1)
    following = _offset(zone, last)
    if following != offset:
      found.append(_bisect_change(zone, at, last))
    at, offset = last, following
  return found


def _bisect_change(zone: ZoneInfo, low: int, high: int) -> int:
  """Return the first instant after ``low`` with another offset than it."""
  offset = _offset(zone, low)
  while high - low > 1:
    middle = (low + high) // 2
    if _offset(zone, middle) == offset:
      low = middle
    else:
      high = middle
  return high


def _offset(zone: ZoneInfo, instant: int) -> int:
  """Return the offset of a zone at an instant, in seconds east of UTC."""
  offset = datetime.fromtimestamp(instant, UTC).astimezone(zone).utcoffset()
  return int((offset or _ALWAYS).total_seconds())
