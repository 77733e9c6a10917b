"""Cron expressions: parsed once into explicit sets, then asked for the next wall time.

A search jumps year by year, month by month, day by day and then straight to the second;
nothing is stepped through.
"""

from bisect import bisect_left
from datetime import date
from functools import lru_cache

from attrs import field, frozen

from hetuflow.errors import ScheduleError
from hetuflow.schedule.days import DayRule
from hetuflow.schedule.fields import FIRST_YEAR, LAST_YEAR, parse_field
from hetuflow.schedule.walls import EPOCH_ORDINAL, NEVER, WallTimes

__all__ = ["CronExpression"]

_LAST_ORDINAL = date(LAST_YEAR, 12, 31).toordinal()
_ALL_YEARS = LAST_YEAR - FIRST_YEAR + 1
_MONTH_LENGTHS = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_LONGEST_TEXT = 1_000

_MACROS = {
  "@ANNUALLY": "0 0 1 1 *",
  "@DAILY": "0 0 * * *",
  "@HOURLY": "0 * * * *",
  "@MIDNIGHT": "0 0 * * *",
  "@MONTHLY": "0 0 1 * *",
  "@WEEKLY": "0 0 * * 0",
  "@YEARLY": "0 0 1 1 *",
}


@lru_cache(maxsize=4096)
def _next_table(values: tuple[int, ...], size: int) -> tuple[int, ...]:
  """At index ``n`` (0 to size) the first value at or after ``n``; -1 when none is."""
  table = [-1] * (size + 1)
  present = set(values)
  for n in range(size - 1, -1, -1):
    table[n] = n if n in present else table[n + 1]
  return tuple(table)


def _month_length(year: int, month: int) -> int:
  """Return the days of a month of the Gregorian calendar."""
  leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
  return 29 if month == 2 and leap else _MONTH_LENGTHS[month]


@frozen(kw_only=True)
class CronExpression(WallTimes):
  """One cron expression as explicit sets; make it with ``CronExpression.parse``.

  Args:
    text: the expression as written.
    seconds, minutes, hours, months, years: the selected values, sorted.
    day_rule: day of month and day of week together.
    wildcard: the minute or hour field begins with ``*``: the job follows the wall clock
      through changes of daylight saving time, instead of running once a day.
  """

  text: str
  seconds: tuple[int, ...]
  minutes: tuple[int, ...]
  hours: tuple[int, ...]
  day_rule: DayRule
  months: tuple[int, ...]
  years: tuple[int, ...]
  wildcard: bool
  _next_second: tuple[int, ...] = field(init=False, eq=False, repr=False)
  _next_minute: tuple[int, ...] = field(init=False, eq=False, repr=False)
  _next_hour: tuple[int, ...] = field(init=False, eq=False, repr=False)
  _next_month: tuple[int, ...] = field(init=False, eq=False, repr=False)
  first_of_day: int = field(init=False, eq=False, repr=False)
  _every_date: bool = field(init=False, eq=False, repr=False)

  @_next_second.default
  def _make_next_second(self) -> tuple[int, ...]:
    """Table of the seconds."""
    return _next_table(self.seconds, 60)

  @_next_minute.default
  def _make_next_minute(self) -> tuple[int, ...]:
    """Table of the minutes."""
    return _next_table(self.minutes, 60)

  @_next_hour.default
  def _make_next_hour(self) -> tuple[int, ...]:
    """Table of the hours."""
    return _next_table(self.hours, 24)

  @_next_month.default
  def _make_next_month(self) -> tuple[int, ...]:
    """Table of the months."""
    return _next_table(self.months, 13)

  @first_of_day.default
  def _make_first_of_day(self) -> int:
    """Return the second of the day at which a selected day first fires."""
    return self.hours[0] * 3600 + self.minutes[0] * 60 + self.seconds[0]

  @_every_date.default
  def _make_every_date(self) -> bool:
    """Tell whether only the time of day decides."""
    every_month = len(self.months) == 12 and len(self.years) == _ALL_YEARS
    return every_month and self.day_rule.every_day

  @staticmethod
  def parse(text: str, *, hash_key: str | None = None) -> "CronExpression":
    """Read an expression.

    Args:
      text: 5 fields, 6 with seconds first, 7 with the year last, or ``@daily`` and
        its like; letters in any case.
      hash_key: what ``H`` is computed from, such as the schedule's id. The same key
        gives the same times for ever, on every machine.

    Raises:
      ScheduleError: with field ``cron_expression``, naming the field at fault, its
        text and what is allowed; also when no date until 2199 is selected.
    """
    key = hash_key if "h" in text.lower() else None
    return _parse(text, key)

  def next_in_day(self, at: int) -> int:
    """Return the first selected second of a day at or after ``at``, or -1."""
    hour, rest = divmod(at, 3600)
    if self._next_hour[hour] == hour:
      minute, second = divmod(rest, 60)
      if self._next_minute[minute] == minute:
        found = self._next_second[second]
        if found >= 0:
          return at - second + found
      minute = self._next_minute[minute + 1]
      if minute >= 0:
        return hour * 3600 + minute * 60 + self.seconds[0]
    hour = self._next_hour[hour + 1]
    if hour < 0:
      return -1
    return hour * 3600 + self.minutes[0] * 60 + self.seconds[0]

  def next_day(self, ordinal: int) -> int:
    """Return the first selected day at or after one, as ordinals, or NEVER."""
    ordinal = max(ordinal, EPOCH_ORDINAL)
    if ordinal > _LAST_ORDINAL:
      return NEVER
    if self._every_date:
      return ordinal
    start = date.fromordinal(ordinal)
    found = self._next_in_year(start.year, start.month, start.day)
    if found != NEVER:
      return found
    later = bisect_left(self.years, start.year + 1)
    for year in self.years[later:]:
      found = self._next_in_year(year, 1, 1)
      if found != NEVER:
        return found
    return NEVER

  def count_in_day(self, at: int) -> int:
    """Return how many selected seconds of a day lie before ``at``."""
    hour, rest = divmod(at, 3600)
    minute, second = divmod(rest, 60)
    hours = bisect_left(self.hours, hour)
    total = hours * len(self.minutes)
    if self._next_hour[hour] != hour:
      return total * len(self.seconds)
    minutes = bisect_left(self.minutes, minute)
    total = (total + minutes) * len(self.seconds)
    if self._next_minute[minute] != minute:
      return total
    return total + bisect_left(self.seconds, second)

  def count_days(self, first: int, last: int) -> int:
    """Return how many days are selected from ``first`` up to but without ``last``."""
    if self._every_date:
      return max(min(last, _LAST_ORDINAL + 1) - max(first, EPOCH_ORDINAL), 0)
    count, day = 0, self.next_day(first)
    while day < last:
      count, day = count + 1, self.next_day(day + 1)
    return count

  def _next_in_year(self, year: int, month: int, day: int) -> int:
    """Return the first selected day of a year at or after a month and day, or NEVER."""
    at = bisect_left(self.years, year)
    if at == len(self.years) or self.years[at] != year:
      return NEVER
    while (selected := self._next_month[month]) > 0:
      if selected != month:
        month, day = selected, 1
      first = date(year, month, 1).toordinal()
      # Ordinal 7 is a Sunday, so the remainder by 7 is the weekday with Sunday 0.
      found = self.day_rule.table(first % 7, _month_length(year, month))[day]
      if found:
        return first + found - 1
      month, day = month + 1, 1
    return NEVER


@lru_cache(maxsize=16_384)
def _parse(text: str, hash_key: str | None) -> CronExpression:
  """Do what ``CronExpression.parse`` promises, remembered by text and key."""
  second, minute, hour, day, month, weekday, year = (
    parse_field(index, part, hash_key if "H" in part else None)
    for index, part in enumerate(_split(text))
  )
  expression = CronExpression(
    text=text,
    seconds=second.values,
    minutes=minute.values,
    hours=hour.values,
    day_rule=DayRule(days=day, weekdays=weekday),
    months=month.values,
    years=year.values,
    wildcard=minute.starred or hour.starred,
  )
  if expression.next_wall(0) == NEVER:
    raise ScheduleError(
      f"{text!r} can never fire: no date from {FIRST_YEAR} to {LAST_YEAR} has this "
      "day of month, month, day of week and year together",
      field="cron_expression",
    )
  return expression


def _split(text: str) -> list[str]:
  """Return the seven fields in upper case, seconds first and year last."""
  if len(text) > _LONGEST_TEXT or not text.isascii():
    raise ScheduleError(
      f"a cron expression has at most {_LONGEST_TEXT} ASCII characters",
      field="cron_expression",
    )
  parts = text.upper().split()
  if len(parts) == 1 and parts[0].startswith("@"):
    parts = _expand_macro(text.strip()).split()
  match len(parts):
    case 5:
      return ["0", *parts, "*"]
    case 6:
      return [*parts, "*"]
    case 7:
      return parts
    case count:
      raise ScheduleError(
        f"{text!r} has {count} fields; expected 5 (minute hour day-of-month month "
        "day-of-week), 6 (second first), 7 (year last) or one of "
        f"{', '.join(sorted(_MACROS)).lower()}",
        field="cron_expression",
      )


def _expand_macro(text: str) -> str:
  """Return the five fields ``@daily`` and its like stand for."""
  fields = _MACROS.get(text.upper())
  if fields is None:
    hint = " (it names an event, not a time)" if text.lower() == "@reboot" else ""
    raise ScheduleError(
      f"{text!r} is not known{hint}; allowed: {', '.join(sorted(_MACROS)).lower()}",
      field="cron_expression",
    )
  return fields
