"""Recurrence rules of iCalendar, at the resolution of days (RFC 5545, 3.3.10).

dateutil's rrule was tried and rejected: it looks for the next date until the year 9999,
for a rule that names none that costs a quarter of a minute, and it cannot begin in the
middle. Here the work is bounded by the span asked for; the tests hold both against each
other. Not taken: frequencies below a day, BYHOUR and its like, BYWEEKNO, other calendars.
"""

import re
from calendar import monthrange
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date

from attrs import evolve, frozen

__all__ = ["Rule", "occurrences", "parse_rule"]

_WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_BYDAY = re.compile(rf"([+-]?[0-9]{{1,2}})?({'|'.join(_WEEKDAYS)})")
_KNOWN = (
  *("FREQ", "INTERVAL", "COUNT", "UNTIL", "WKST"),
  *("BYMONTH", "BYMONTHDAY", "BYYEARDAY", "BYDAY", "BYSETPOS"),
)
_LATEST_MONTH = 9999 * 12


@frozen(kw_only=True)
class Rule:
  """One rule as explicit sets; empty ones select everything.

  Args:
    frequency: DAILY, WEEKLY, MONTHLY or YEARLY.
    interval: every how many days, weeks, months or years.
    count: how many dates in all, the start included.
    week_start: the first day of a week, Monday 0.
    months: 1 to 12.
    month_days, year_days: counted from 1, or from -1 backwards.
    weekdays: ``(n, day)``, Monday 0; the n-th of its month or year, from -1 backwards,
      or each of them when n is 0.
    positions: which ones of each period are kept, from 1, or from -1 backwards.
  """

  frequency: str
  interval: int
  count: int | None
  week_start: int
  months: frozenset[int]
  month_days: frozenset[int]
  year_days: frozenset[int]
  weekdays: frozenset[tuple[int, int]]
  positions: tuple[int, ...]


def parse_rule(parts: Mapping[str, Sequence[object]], start: date) -> Rule:
  """Make a rule of the parts of an RRULE, without UNTIL.

  Args:
    parts: values by the names of the parts, in capital letters.
    start: the date of DTSTART, which stands in for what the rule leaves open.

  Raises:
    ValueError: a part is unknown, not taken, or out of its bounds.
  """
  for name in parts:
    if name not in _KNOWN:
      raise ValueError(f"{name} is not taken")
  counts = _numbers(parts, "COUNT", 1, 1_000_000)
  rule = Rule(
    frequency=_frequency(parts),
    interval=(_numbers(parts, "INTERVAL", 1, 10_000) or (1,))[0],
    count=counts[0] if counts else None,
    week_start=_WEEKDAYS.index(str(parts.get("WKST", ["MO"])[0])),
    months=frozenset(_numbers(parts, "BYMONTH", 1, 12)),
    month_days=frozenset(_numbers(parts, "BYMONTHDAY", -31, 31)),
    year_days=frozenset(_numbers(parts, "BYYEARDAY", -366, 366)),
    weekdays=frozenset(_weekday(str(text)) for text in parts.get("BYDAY", ())),
    positions=_numbers(parts, "BYSETPOS", -366, 366),
  )
  if rule.frequency in ("DAILY", "WEEKLY") and any(n for n, _ in rule.weekdays):
    raise ValueError(f"BYDAY takes no numbers with {rule.frequency}")
  return _filled(rule, start)


def _frequency(parts: Mapping[str, Sequence[object]]) -> str:
  """Return FREQ, or raise ValueError."""
  frequency = str(parts["FREQ"][0]) if parts.get("FREQ") else "no frequency"
  if frequency not in ("DAILY", "WEEKLY", "MONTHLY", "YEARLY"):
    raise ValueError(f"{frequency} is not taken")
  return frequency


def _numbers(
  parts: Mapping[str, Sequence[object]], name: str, low: int, high: int
) -> tuple[int, ...]:
  """Return the numbers of a part, or raise ValueError."""
  numbers = tuple(int(str(value)) for value in parts.get(name, ()))
  for number in numbers:
    if not low <= number <= high or number == 0:
      raise ValueError(f"{name} {number} is out of bounds")
  return numbers


def _weekday(text: str) -> tuple[int, int]:
  """Return an item of BYDAY, or raise ValueError."""
  match = _BYDAY.fullmatch(text)
  if match is None:
    raise ValueError(f"BYDAY {text!r} is not understood")
  return int(match[1] or 0), _WEEKDAYS.index(match[2])


def _filled(rule: Rule, start: date) -> Rule:
  """Return the rule with what it leaves open taken from its start."""
  if rule.month_days or rule.year_days or rule.weekdays:
    return rule
  match rule.frequency:
    case "YEARLY":
      months = rule.months or frozenset({start.month})
      return evolve(rule, months=months, month_days=frozenset({start.day}))
    case "MONTHLY":
      return evolve(rule, month_days=frozenset({start.day}))
    case "WEEKLY":
      return evolve(rule, weekdays=frozenset({(0, start.weekday())}))
  return rule


def occurrences(
  rule: Rule, start: date, *, first: date, last: date, spend: Callable[[int], None]
) -> Iterator[date]:
  """Yield the dates of a rule in order, the start being the first of them.

  Args:
    rule: the rule.
    start: the date of DTSTART.
    first: earlier dates may be left out.
    last: later dates are left out.
    spend: is told how many days were looked at, and may raise to end it.
  """
  left = rule.count if rule.count is not None else -1
  if start <= last:
    yield start
    left -= 1
  place = 0 if rule.count is not None else _place(rule, start, first)
  while left and (low := _period_start(rule, start, place)) <= last.toordinal():
    days = _in_period(rule, low)
    spend(len(days) + 1)
    for day in _at_positions(rule, [n for n in days if _matches(rule, n)]):
      found = date.fromordinal(day)
      if found <= start:
        continue
      if found > last or not left:
        return
      yield found
      left -= 1
    place += 1


def _place(rule: Rule, start: date, first: date) -> int:
  """Return the number of a period that begins not after ``first``, counted from 0."""
  if first <= start:
    return 0
  match rule.frequency:
    case "DAILY":
      return (first - start).days // rule.interval
    case "WEEKLY":
      return (first - start).days // 7 // rule.interval
    case "MONTHLY":
      months = (first.year - start.year) * 12 + first.month - start.month
      return months // rule.interval
  return (first.year - start.year) // rule.interval


def _period_start(rule: Rule, start: date, place: int) -> int:
  """Return the ordinal at which a period begins; those before are before ``start``."""
  distance = place * rule.interval
  match rule.frequency:
    case "DAILY":
      return start.toordinal() + distance
    case "WEEKLY":
      back = (start.weekday() - rule.week_start) % 7
      return start.toordinal() - back + 7 * distance
    case "MONTHLY":
      months = start.year * 12 + start.month - 1 + distance
    case _:
      months = (start.year + distance) * 12
  if months > _LATEST_MONTH:
    return date.max.toordinal() + 1
  return date(months // 12, months % 12 + 1, 1).toordinal()


def _in_period(rule: Rule, low: int) -> Sequence[int]:
  """Return the days of the period that begins on a day, as far as months select them."""
  match rule.frequency:
    case "DAILY":
      return range(low, low + 1)
    case "WEEKLY":
      return range(low, low + 7)
    case "MONTHLY":
      begin = date.fromordinal(low)
      return range(low, low + monthrange(begin.year, begin.month)[1])
  year = date.fromordinal(low).year
  return [
    date(year, month, 1).toordinal() + n
    for month in range(1, 13)
    if not rule.months or month in rule.months
    for n in range(monthrange(year, month)[1])
  ]


def _matches(rule: Rule, ordinal: int) -> bool:
  """Tell whether a day is in each of the rule's sets."""
  day = date.fromordinal(ordinal)
  if rule.months and day.month not in rule.months:
    return False
  in_month = monthrange(day.year, day.month)[1]
  if rule.month_days and not rule.month_days & {day.day, day.day - in_month - 1}:
    return False
  new_year, year_end = date(day.year, 1, 1), date(day.year, 12, 31)
  from_start = ordinal - new_year.toordinal() + 1
  from_end = ordinal - year_end.toordinal() - 1
  if rule.year_days and not rule.year_days & {from_start, from_end}:
    return False
  if not rule.weekdays:
    return True
  if rule.frequency == "MONTHLY" or rule.months:
    from_start, from_end = day.day, day.day - in_month - 1
  nths = (0, (from_start + 6) // 7, -((-from_end + 6) // 7))
  return any((nth, day.weekday()) in rule.weekdays for nth in nths)


def _at_positions(rule: Rule, days: list[int]) -> list[int]:
  """Return the days of a period that BYSETPOS keeps."""
  if not rule.positions:
    return days
  size = len(days)
  places = {n - 1 if n > 0 else size + n for n in rule.positions}
  return [days[place] for place in sorted(places) if 0 <= place < size]
