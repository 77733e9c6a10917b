"""The calendars of one schedule together: open days, and what is moved to them.

A day is *shifting* when it is in a calendar with mode next or previous: what is planned
on it moves to the nearest day after it (next) or before it (previous) that is not
shifting. A day is *open* when it is not shifting, is in each calendar to include and in
none to exclude; nothing fires on other days. What moves to a day that is not open does
not fire. A day in calendars of both directions moves forward.
"""

from functools import lru_cache
from typing import Literal, get_args

from attrs import field, frozen

from hetuflow.errors import ScheduleError
from hetuflow.schedule.calendar.definition import Calendar
from hetuflow.schedule.calendar.years import (
  FIRST_ORDINAL,
  LAST_ORDINAL,
  locate,
  whole_year,
)
from hetuflow.schedule.fields import LAST_YEAR
from hetuflow.schedule.walls import NEVER

__all__ = ["CalendarUse", "Mode", "OpenDays", "open_days"]

Mode = Literal["include", "exclude", "next", "previous"]

LONGEST_SHIFT_DAYS = 366
"""What would have to move further does not fire."""


@frozen(kw_only=True)
class CalendarUse:
  """A calendar, and what its days mean to a schedule.

  Args:
    calendar: the days.
    mode: ``include`` (fires only on them), ``exclude`` (never on them), ``next`` or
      ``previous`` (a fire on one of them moves to the next or previous day that is not
      among them, at the same time on the wall).

  Raises:
    ScheduleError: another mode; field ``calendars``.
  """

  calendar: Calendar
  mode: Mode

  def __attrs_post_init__(self) -> None:
    """Refuse an unknown mode."""
    if self.mode not in get_args(Mode):
      raise ScheduleError(
        f"mode {self.mode!r} is unknown; allowed: {', '.join(get_args(Mode))}",
        field="calendars",
      )


@frozen
class _Year:
  """What the days of one year are, as sets of days."""

  open: int
  shifting: int
  forward: int


@frozen(eq=False)
class OpenDays:
  """Answers for the calendars of a schedule; days are ordinals."""

  uses: tuple[CalendarUse, ...]
  _years: dict[int, _Year] = field(factory=dict, init=False, repr=False)

  def next_open(self, day: int) -> int:
    """Return the first open day at or after one, or NEVER after 2199."""
    day = max(day, FIRST_ORDINAL)
    if day > LAST_ORDINAL:
      return NEVER
    year, bit = locate(day)
    rest = self._year(year).open >> bit
    while not rest:
      if year == LAST_YEAR:
        return NEVER
      day += whole_year(year).bit_length() - bit
      year, bit = year + 1, 0
      rest = self._year(year).open
    return day + (rest & -rest).bit_length() - 1

  def sources(self, day: int) -> list[int]:
    """Return the days whose plans are carried out on an open day; itself comes first."""
    found = [day]
    for at in range(day - 1, day - LONGEST_SHIFT_DAYS - 1, -1):
      shifting, forward = self._shift(at)
      if not shifting:
        break
      if forward:
        found.append(at)
    for at in range(day + 1, day + LONGEST_SHIFT_DAYS + 1):
      shifting, forward = self._shift(at)
      if not shifting:
        break
      if not forward:
        found.append(at)
    return found

  def first_source(self, day: int) -> int:
    """Return a day before which nothing is planned that moves to ``day`` or later."""
    at = day
    while day - at < LONGEST_SHIFT_DAYS and self._shift(at - 1)[0]:
      at -= 1
    return at

  def first_target(self, day: int) -> int:
    """Return a day before which nothing fires that is planned on ``day`` or later."""
    at = day
    while day - at < LONGEST_SHIFT_DAYS and self._shift(at)[0]:
      at -= 1
    return at

  def _shift(self, day: int) -> tuple[int, int]:
    """Return whether a day is shifting, and whether forward, as 0 or 1."""
    if not FIRST_ORDINAL <= day <= LAST_ORDINAL:
      return 0, 0
    year, bit = locate(day)
    found = self._year(year)
    return found.shifting >> bit & 1, found.forward >> bit & 1

  def _year(self, year: int) -> _Year:
    """Return what the days of a year are."""
    found = self._years.get(year)
    if found is None:
      found = self._years[year] = self._work_out(year)
    return found

  def _work_out(self, year: int) -> _Year:
    """Combine the calendars for one year."""
    kept, forward, backward = whole_year(year), 0, 0
    for use in self.uses:
      days = use.calendar.year(year)
      match use.mode:
        case "include":
          kept &= days
        case "exclude":
          kept &= ~days
        case "next":
          forward |= days
        case "previous":
          backward |= days
    return _Year(kept & ~forward & ~backward, forward | backward, forward)


@lru_cache(maxsize=1024)
def open_days(uses: tuple[CalendarUse, ...]) -> OpenDays:
  """Return the answers for some calendars, shared by all schedules that use the same."""
  return OpenDays(uses)
