"""A second, slow opinion about cron: try every minute, or every second, and look.

Nothing here is shared with the implementation. An expression is built from items, so it
is rendered to text for the implementation and matched here item by item.
"""

import calendar
import os
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from attrs import frozen
from hypothesis import settings

DAY = timedelta(days=1)
BOUNDS = {
  "second": (0, 59),
  "minute": (0, 59),
  "hour": (0, 23),
  "day": (1, 31),
  "month": (1, 12),
  "weekday": (0, 6),
}
# HETUFLOW_TEST_EFFORT=20 tries twenty times as many examples.
EFFORT = int(os.environ.get("HETUFLOW_TEST_EFFORT", "1"))


def examples(count: int) -> settings:
  """Settings for a property: deterministic, as many examples as the effort allows."""
  return settings(
    max_examples=count * EFFORT,
    deadline=None,
    derandomize=EFFORT == 1,
    database=None,
  )


@frozen
class Item:
  """One item of a field: a word of the little language below and its numbers."""

  word: str
  numbers: tuple[int, ...] = ()

  @property
  def text(self) -> str:
    """The item as it is written in an expression."""
    return {
      "any": "*",
      "either": "?",
      "one": "{0}",
      "span": "{0}-{1}",
      "every": "*/{0}",
      "from": "{0}/{1}",
      "span_every": "{0}-{1}/{2}",
      "last": "L-{0}" if self.numbers and self.numbers[0] else "L",
      "last_nearest": "L-{0}W" if self.numbers and self.numbers[0] else "LW",
      "nearest": "{0}W",
      "last_weekday": "{0}L",
      "nth": "{0}#{1}",
    }[self.word].format(*self.numbers)

  def has(self, value: int, low: int, high: int) -> bool:
    """Whether a plain item selects a value of a field with these bounds."""
    match self.word, self.numbers:
      case (("any" | "either"), _):
        return True
      case "one", (number,):
        return value == number
      case "every", (step,):
        return (value - low) % step == 0
      case "from", (first, step):
        return value >= first and (value - first) % step == 0
      case "span", (first, last):
        return self._spans(value, first, last, 1, high - low + 1)
      case "span_every", (first, last, step):
        return self._spans(value, first, last, step, high - low + 1)
    return False

  @staticmethod
  def _spans(value: int, first: int, last: int, step: int, size: int) -> bool:
    """Whether a value is met when counting from first to last around the circle."""
    at = first
    met = []
    while True:
      met.append(at)
      if at == last:
        break
      at += 1
      if at - first > 2 * size:
        raise AssertionError((first, last))
      if last < first and at - size == last:
        met.append(at)
        break
    return value in {n if n == value else n - size for n in met[::step]}

  def has_day(self, day: date) -> bool:
    """Whether a special item of the day fields selects a day."""
    length = calendar.monthrange(day.year, day.month)[1]
    match self.word, self.numbers:
      case "last", (offset,):
        return day.day + offset == length
      case "last_nearest", (offset,):
        return day.day == _closest_workday(day, length - offset, length)
      case "nearest", (target,):
        return day.day == _closest_workday(day, target, length)
      case "last_weekday", (weekday,):
        return day.isoweekday() % 7 == weekday and (day + 7 * DAY).month != day.month
      case "nth", (weekday, nth):
        same = [n for n in range(1, length + 1) if (n - day.day) % 7 == 0]
        return (
          day.isoweekday() % 7 == weekday
          and nth <= len(same)
          and same[nth - 1] == day.day
        )
    return False


def _closest_workday(day: date, target: int, length: int) -> int | None:
  """The Monday to Friday of the month that is closest to a target day, if it exists."""
  if not 1 <= target <= length:
    return None
  workdays = [n for n in range(1, length + 1) if day.replace(day=n).isoweekday() <= 5]
  return min(workdays, key=lambda n: abs(n - target))


@frozen
class Expression:
  """Six lists of items: second, minute, hour, day, month, weekday."""

  fields: tuple[tuple[Item, ...], ...]

  @property
  def text(self) -> str:
    """Six fields, seconds first."""
    return " ".join(",".join(item.text for item in items) for items in self.fields)

  @property
  def wildcard(self) -> bool:
    """Whether the job follows the wall clock."""
    return any(items[0].text.startswith("*") for items in self.fields[1:3])

  def on_day(self, day: date) -> bool:
    """Whether a date is selected."""
    _, _, _, days, months, weekdays = self.fields
    if not any(item.has(day.month, 1, 12) for item in months):
      return False
    by_day = any(item.has(day.day, 1, 31) or item.has_day(day) for item in days)
    weekday = day.isoweekday() % 7
    by_weekday = any(item.has(weekday, 0, 6) or item.has_day(day) for item in weekdays)
    if days[0].text[0] in "*?" or weekdays[0].text[0] in "*?":
      return by_day and by_weekday
    return by_day or by_weekday

  def at(self, wall: datetime) -> bool:
    """Whether a time of day is selected."""
    values = (wall.second, wall.minute, wall.hour)
    names = ("second", "minute", "hour")
    return all(
      any(item.has(value, *BOUNDS[name]) for item in items)
      for value, name, items in zip(values, names, self.fields, strict=False)
    )


def search(
  expression: Expression,
  zone: ZoneInfo,
  low: datetime,
  high: datetime,
  *,
  gap: str,
  fold: str,
  unit: timedelta,
) -> list[datetime]:
  """Every fire between two moments, found by trying each unit of time.

  The answer is reliable from a day and more after ``low`` to a day before ``high``.
  """
  shown: dict[datetime, list[datetime]] = {}
  opened: list[tuple[datetime, datetime, datetime]] = []
  moment, before = low, None
  while moment <= high:
    wall = moment.astimezone(zone).replace(tzinfo=None, fold=0)
    shown.setdefault(wall, []).append(moment)
    if before is not None and wall - before > unit:
      opened.append((before, wall, moment))
    before = wall
    moment += unit
  fires: set[datetime] = set()
  days: dict[date, bool] = {}
  wall, last = min(shown), max(shown)
  while wall <= last:
    day = wall.date()
    if day not in days:
      days[day] = expression.on_day(day)
    if not days[day]:
      wall = datetime.combine(day + DAY, datetime.min.time())
      continue
    if expression.at(wall):
      moments = shown.get(wall, [])
      if expression.wildcard or fold == "both":
        fires.update(moments)
      elif moments:
        fires.add(moments[0] if fold == "first" else moments[-1])
      if not moments and not expression.wildcard and gap == "shift":
        fires.update(after for a, b, after in opened if a < wall < b)
    wall += unit
  return sorted(fires)


def utc(text: str) -> datetime:
  """A UTC moment from ISO text without offset."""
  return datetime.fromisoformat(text).replace(tzinfo=UTC)
