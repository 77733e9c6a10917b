"""Which days of a month a cron expression selects.

A month is known by the weekday of its first day and its length, so there are 28 kinds of
months: each rule works out a kind once and keeps the answer as a table.
"""

from attrs import field, frozen

from hetuflow.schedule.fields import Field

__all__ = ["DayRule"]

_MONDAY_TO_FRIDAY = range(1, 6)


def _weekday(first: int, day: int) -> int:
  """Return a day's weekday (Sunday 0) when the month begins on weekday ``first``."""
  return (first + day - 1) % 7


def _nearest_weekday(first: int, length: int, day: int) -> int:
  """Return the Monday to Friday nearest to a day, never leaving its month."""
  for distance in (0, -1, 1, -2, 2):
    moved = day + distance
    if 1 <= moved <= length and _weekday(first, moved) in _MONDAY_TO_FRIDAY:
      return moved
  raise AssertionError("every day has a weekday within two days of its month")


def _month_days(days: Field, first: int, length: int) -> set[int]:
  """Return the days of such a month that the day-of-month field selects."""
  found = {day for day in days.values if day <= length}
  found |= {length - offset for offset in days.last_offsets if offset < length}
  targets = [day for day in days.nearest if day <= length]
  targets += [length - offset for offset in days.last_nearest if offset < length]
  return found | {_nearest_weekday(first, length, day) for day in targets}


def _week_days(weekdays: Field, first: int, length: int) -> set[int]:
  """Return the days the day-of-week field selects."""
  found = set()
  for day in range(1, length + 1):
    weekday = _weekday(first, day)
    if (
      weekday in weekdays.values
      or (day + 7 > length and weekday in weekdays.last_weekdays)
      or (weekday, (day + 6) // 7) in weekdays.nth_weekdays
    ):
      found.add(day)
  return found


@frozen(kw_only=True)
class DayRule:
  """Day of month and day of week together.

  Either field may match, unless one of them begins with ``*`` or is ``?``: then both
  must (the rule of Debian's cron).
  """

  days: Field
  weekdays: Field
  _tables: dict[tuple[int, int], tuple[int, ...]] = field(
    factory=dict, init=False, eq=False, repr=False
  )

  @property
  def every_day(self) -> bool:
    """True when no day is ever left out."""
    fields = (len(self.days.values) == 31, len(self.weekdays.values) == 7)
    both = self.days.starred or self.weekdays.starred
    return all(fields) if both else any(fields)

  def table(self, first: int, length: int) -> tuple[int, ...]:
    """Return the next selected day by day, for a kind of month.

    Args:
      first: the weekday of the first of the month, Sunday 0.
      length: the days of the month.

    Returns:
      At index ``d`` the first selected day at or after ``d``; 0 when there is none.
    """
    table = self._tables.get((first, length))
    if table is None:
      table = self._tables[first, length] = self._work_out(first, length)
    return table

  def _work_out(self, first: int, length: int) -> tuple[int, ...]:
    """Build the table of one kind of month."""
    by_month = _month_days(self.days, first, length)
    by_week = _week_days(self.weekdays, first, length)
    both = self.days.starred or self.weekdays.starred
    found = by_month & by_week if both else by_month | by_week
    table = [0] * 33
    for day in range(31, -1, -1):
      table[day] = day if day in found else table[day + 1]
    return tuple(table)
