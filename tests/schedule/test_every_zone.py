"""Every zone, at each of its changes from 2000 to 2040, against the stepping oracle.

The changes are found by stepping as well, so that nothing here rests on our segments.
"""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import pytest
from schedule_oracle import EFFORT, Expression, Item, search_shown, step

from hetuflow.errors import ScheduleError
from hetuflow.schedule import DstPolicy, Timing, count_fires, fire_times, last_fires

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
BEGIN, END = datetime(2000, 1, 1, tzinfo=UTC), datetime(2041, 1, 1, tzinfo=UTC)
ZONES = sorted(available_timezones() - {"Factory", "localtime"})
REGIONS = sorted({name.split("/")[0] if "/" in name else "alone" for name in ZONES})
POLICIES = [
  (gap, fold) for gap in ("shift", "skip") for fold in ("first", "both", "last")
]
# Changes that are unlike the others: their size, their hour, their month, their number.
UNUSUAL = {
  "Africa/Casablanca": "2025-02-23T02:00",
  "America/Havana": "2025-03-09T05:00",
  "America/Santiago": "2025-09-07T04:00",
  "Antarctica/Troll": "2025-03-30T01:00",
  "Australia/Lord_Howe": "2025-04-05T15:00",
  "Pacific/Apia": "2011-12-30T10:00",
  "Pacific/Chatham": "2025-09-27T14:00",
}


def zones_of(region: str) -> list[str]:
  """The zones whose names begin with a region."""
  if region == "alone":
    return [name for name in ZONES if "/" not in name]
  return [name for name in ZONES if name.startswith(f"{region}/")]


@cache
def changes(name: str) -> tuple[tuple[datetime, timedelta], ...]:
  """The moments at which a zone changes its offset, and by how much."""
  zone = ZoneInfo(name)

  def offset(moment: datetime) -> timedelta:
    """The offset of the zone."""
    found = moment.astimezone(zone).utcoffset()
    assert found is not None
    return found

  stride = DAY if EFFORT <= 1 else DAY / 8
  found = []
  low, before = BEGIN, offset(BEGIN)
  while low < END:
    high = low + stride
    after = offset(high)
    if after != before:
      start, end = low, high
      while end - start > SECOND:
        middle = start + (end - start) // SECOND // 2 * SECOND
        start, end = (middle, end) if offset(middle) == before else (start, middle)
      found.append((end, after - before))
    low, before = high, after
  return tuple(found)


def an_hour_item(chance: random.Random, hour: int) -> Item:
  """An item of the hour field that mostly selects an hour close to a change."""
  near = (hour + chance.randint(-1, 2)) % 24
  match chance.randrange(6):
    case 0:
      return Item("any")
    case 1:
      return Item("every", (chance.randint(1, 6),))
    case 2:
      return Item("span", (near, (near + chance.randint(0, 3)) % 24))
    case _:
      return Item("one", (near,))


def a_minute_item(chance: random.Random) -> Item:
  """An item of the minute or second field."""
  match chance.randrange(6):
    case 0:
      return Item("any")
    case 1:
      return Item("every", (chance.randint(2, 40),))
    case 2:
      return Item("from", (chance.randint(0, 59), chance.randint(1, 40)))
    case 3:
      return Item("span", (chance.randint(0, 59), chance.randint(0, 59)))
    case _:
      return Item("one", (chance.choice([0, 30, chance.randint(0, 59)]),))


def day_fields(chance: random.Random, day: datetime) -> tuple[tuple[Item, ...], ...]:
  """The fields of day, month and weekday; mostly open, else about a given day."""
  days, months, weekdays = [Item("any")], [Item("any")], [Item("any")]
  match chance.randrange(8):
    case 0:
      days = [Item("one", (day.day,)), Item("one", (day.day % 28 + 1,))]
    case 1:
      days = [Item("last", (chance.randint(0, 3),)), Item("nearest", (day.day,))]
    case 2:
      weekdays = [Item("one", (day.isoweekday() % 7,))]
    case 3:
      weekdays = [Item("last_weekday", (day.isoweekday() % 7,))]
    case 4:
      weekdays = [Item("nth", (day.isoweekday() % 7, chance.randint(1, 5)))]
    case 5:
      months = [Item("one", (day.month,)), Item("one", (day.month % 12 + 1,))]
  return tuple(days), tuple(months), tuple(weekdays)


def an_expression(
  chance: random.Random, wall: datetime, *, seconds: bool
) -> Expression:
  """An expression for the time around a change that is seen on the wall."""
  second = a_minute_item(chance) if seconds else Item("one", (0,))
  minutes = tuple(a_minute_item(chance) for _ in range(chance.randint(1, 2)))
  hours = tuple(an_hour_item(chance, wall.hour) for _ in range(chance.randint(1, 2)))
  return Expression(((second,), minutes, hours, *day_fields(chance, wall)))


def compare(
  name: str, change: datetime, size: timedelta, *, unit: timedelta, cases: int
) -> Iterator[int]:
  """Assert that some expressions fire around a change when stepping says so."""
  zone = ZoneInfo(name)
  chance = random.Random(f"{name} {change} {unit} {EFFORT}")
  # What the clock shows twice lies no further apart than the change.
  margin = abs(size) + unit
  reach = margin + chance.randint(40, 110) * (MINUTE if unit == MINUTE else 2 * SECOND)
  shown = step(zone, change - reach - margin, change + reach + margin, unit)
  for _ in range(cases):
    gap, fold = chance.choice(POLICIES)
    expression = an_expression(chance, shown[0][1] + reach, seconds=unit == SECOND)
    found = search_shown(expression, shown, gap=gap, fold=fold, unit=unit)
    after, until = change - reach, change + reach
    expected = [fire for fire in found if after < fire <= until]
    try:
      timing = Timing(
        kind="cron",
        cron_expression=expression.text,
        timezone=name,
        dst=DstPolicy(gap=gap, fold=fold),
      )
    except ScheduleError as error:
      if "never fire" not in str(error) or expected:
        raise
      continue
    span = {"after": after, "until": until}
    case = expression.text, name, change, gap, fold
    assert fire_times(timing, **span, limit=100_000) == expected, case
    assert count_fires(timing, **span) == len(expected), case
    assert last_fires(timing, **span, count=3) == expected[-3:], case
    yield 1


@pytest.mark.parametrize("region", REGIONS)
def test_around_each_change_of_each_zone_the_minutes_are_those_of_the_search(
  region,
):
  met, cases = 0, 0
  for name in zones_of(region):
    chance = random.Random(f"{name} {EFFORT}")
    found = changes(name)
    if not found:
      quiet = BEGIN + chance.randrange(40 * 365 * 1440) * MINUTE
      cases += sum(compare(name, quiet, timedelta(0), unit=MINUTE, cases=2))
    for number, (change, size) in enumerate(found):
      # Below full effort some changes are left out, but never all of a zone.
      if number and chance.random() > EFFORT:
        continue
      met += 1
      count = max(round(EFFORT), 1)
      cases += sum(compare(name, change, size, unit=MINUTE, cases=count))
  assert cases > 0
  print(f"minutes: {met} changes {cases} cases")  # seen with -rP


@pytest.mark.parametrize("region", REGIONS)
def test_around_a_change_of_each_zone_the_seconds_are_those_of_the_search(
  region,
):
  cases = 0
  for name in zones_of(region):
    found = changes(name)
    chance = random.Random(f"{name} {EFFORT} seconds")
    for _ in range(max(round(EFFORT / 4), 1) if chance.random() < EFFORT else 0):
      if found:
        change, size = chance.choice(found)
        if abs(size) < timedelta(hours=12):
          cases += sum(compare(name, change, size, unit=SECOND, cases=1))
  print(f"seconds: {cases} cases")


@pytest.mark.parametrize(("name", "moment"), UNUSUAL.items())
def test_at_an_unusual_change_all_policies_are_those_of_the_search(name, moment):
  change = datetime.fromisoformat(moment).replace(tzinfo=UTC)
  sizes = dict(changes(name))
  assert change in sizes
  assert sum(compare(name, change, sizes[change], unit=MINUTE, cases=60)) > 50


def test_every_zone_of_the_database_is_visited():
  visited = [name for region in REGIONS for name in zones_of(region)]
  assert sorted(visited) == ZONES
  assert len(ZONES) > 500
