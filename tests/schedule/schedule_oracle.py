"""A second, slow opinion about cron: try every minute, or every second, and look.

Nothing here is shared with the implementation. An expression is built from items, so it
is rendered to text for the implementation and matched here item by item.
"""

import calendar
import os
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
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
# HETUFLOW_TEST_EFFORT=20 tries twenty times as many examples, 0.1 a tenth of them.
EFFORT = float(os.environ.get("HETUFLOW_TEST_EFFORT", "1"))


def examples(count: int) -> settings:
  """Settings for a property: deterministic, as many examples as the effort allows."""
  return settings(
    max_examples=max(round(count * EFFORT), 1),
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


@lru_cache(maxsize=100_000)
def selected(items: tuple[Item, ...], name: str) -> frozenset[int]:
  """The values of a field of the time of day that are selected."""
  low, high = BOUNDS[name]
  return frozenset(
    value
    for value in range(low, high + 1)
    if any(item.has(value, low, high) for item in items)
  )


def step(
  zone: ZoneInfo, low: datetime, high: datetime, unit: timedelta
) -> list[tuple[datetime, datetime]]:
  """Each moment from one to another, with what the clock on the wall shows."""
  shown = []
  moment = low
  while moment <= high:
    shown.append((moment, moment.astimezone(zone).replace(tzinfo=None, fold=0)))
    moment += unit
  return shown


def search_shown(
  expression: Expression,
  shown: list[tuple[datetime, datetime]],
  *,
  gap: str,
  fold: str,
  unit: timedelta,
) -> list[datetime]:
  """Every fire among stepped moments.

  Reliable but near the ends, where a wall time's other moment may lie outside.
  """
  seconds, minutes, hours = (
    selected(items, name)
    for items, name in zip(
      expression.fields, ("second", "minute", "hour"), strict=False
    )
  )
  days: dict[date, bool] = {}

  def fires_at(wall: datetime) -> bool:
    """Whether a wall time is selected; days are looked at once."""
    if wall.minute not in minutes or wall.hour not in hours:
      return False
    if wall.second not in seconds:
      return False
    day = wall.date()
    if day not in days:
      days[day] = expression.on_day(day)
    return days[day]

  moments: dict[datetime, list[datetime]] = {}
  shifted: set[datetime] = set()
  last = shown[0][1]
  for moment, wall in shown:
    missing = last + unit
    while missing < wall:
      if fires_at(missing):
        shifted.add(moment)
      missing += unit
    last = wall
    if fires_at(wall):
      moments.setdefault(wall, []).append(moment)
  if expression.wildcard:
    return sorted(moment for found in moments.values() for moment in found)
  part = {"first": slice(1), "both": slice(None), "last": slice(-1, None)}[fold]
  fires = {moment for found in moments.values() for moment in found[part]}
  return sorted(fires | shifted if gap == "shift" else fires)


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
  shown = step(zone, low, high, unit)
  return search_shown(expression, shown, gap=gap, fold=fold, unit=unit)


def utc(text: str) -> datetime:
  """A UTC moment from ISO text without offset."""
  return datetime.fromisoformat(text).replace(tzinfo=UTC)
