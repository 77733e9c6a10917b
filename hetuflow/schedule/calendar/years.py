"""Sets of dates as one number for each year: bit ``n`` is the day n days after 1 January."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import date
from functools import lru_cache

from hetuflow.schedule.fields import FIRST_YEAR, LAST_YEAR

__all__ = [
  "FIRST_ORDINAL",
  "LAST_ORDINAL",
  "Range",
  "locate",
  "mask_of_ranges",
  "mask_of_weekdays",
  "merge_ranges",
  "whole_year",
]

Range = tuple[int, int]
"""The first and the last of some days on end, as ordinals."""

FIRST_ORDINAL = date(FIRST_YEAR, 1, 1).toordinal()
LAST_ORDINAL = date(LAST_YEAR, 12, 31).toordinal()
_NEW_YEARS = tuple(
  date(year, 1, 1).toordinal() for year in range(FIRST_YEAR, LAST_YEAR + 2)
)


def locate(ordinal: int) -> tuple[int, int]:
  """Return the year of a day from 1970 to 2199, and its bit."""
  place = bisect_right(_NEW_YEARS, ordinal) - 1
  return FIRST_YEAR + place, ordinal - _NEW_YEARS[place]


def whole_year(year: int) -> int:
  """Return the set of all days of a year."""
  return (1 << _end(year) - _start(year)) - 1


def _start(year: int) -> int:
  """Return the ordinal of 1 January."""
  return _NEW_YEARS[year - FIRST_YEAR]


def _end(year: int) -> int:
  """Return the ordinal of 1 January of the year after."""
  return _NEW_YEARS[year - FIRST_YEAR + 1]


def merge_ranges(ranges: Sequence[Range]) -> tuple[Range, ...]:
  """Return the same days in order, as few ranges."""
  merged: list[Range] = []
  for first, last in sorted(ranges):
    if merged and first <= merged[-1][1] + 1:
      merged[-1] = merged[-1][0], max(merged[-1][1], last)
    else:
      merged.append((first, last))
  return tuple(merged)


def mask_of_ranges(ranges: tuple[Range, ...], year: int) -> int:
  """Return the days of merged ranges that lie in a year."""
  start, end = _start(year), _end(year)
  mask = 0
  for first, last in ranges[bisect_left(ranges, start, key=lambda span: span[1]) :]:
    if first >= end:
      break
    low, high = max(first, start) - start, min(last + 1, end) - start
    mask |= (1 << high) - (1 << low)
  return mask


@lru_cache(maxsize=4096)
def mask_of_weekdays(weekdays: frozenset[int], year: int) -> int:
  """Return the days of a year that fall on some weekdays, Sunday being 0."""
  start, end = _start(year), _end(year)
  days = (day for day in range(start, end) if day % 7 in weekdays)
  return sum(1 << day - start for day in days)
