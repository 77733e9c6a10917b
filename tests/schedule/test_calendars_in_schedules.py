"""Schedules under calendars: days left out, fires moved, against a search."""

import time
from collections.abc import Callable
from datetime import date, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schedule_oracle import Expression, Item, examples, search_shown, step, utc

from hetuflow.schedule import (
  Calendar,
  CalendarUse,
  DstPolicy,
  Timing,
  count_fires,
  fire_times,
  last_fires,
  next_fire,
  preview,
)
from hetuflow.schedule.calendar.opening import open_days

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
WEEKEND = Calendar.parse({"weekly": ["sat", "sun"]})
EVERY_DAY = Calendar.parse({"weekly": WEEKDAYS})
# Zones and changes of their clocks, among them a day that never was.
MOMENTS = [
  ("UTC", utc("2026-01-01")),
  ("Europe/Berlin", utc("2026-03-29T01:00")),
  ("Europe/Berlin", utc("2026-10-25T01:00")),
  ("America/St_Johns", utc("2007-11-04T02:31")),  # back over midnight: 00:01 to 23:01
  ("America/St_Johns", utc("2008-03-09T03:31")),
  ("America/Havana", utc("2026-03-08T05:00")),
  ("America/Santiago", utc("2026-04-05T03:00")),
  ("Australia/Lord_Howe", utc("2026-04-04T15:00")),
  ("Antarctica/Troll", utc("2026-10-25T01:00")),
  ("Pacific/Apia", utc("2011-12-30T10:00")),
]


def uses(*listed: tuple[Calendar, str]) -> tuple[CalendarUse, ...]:
  """Calendars with their modes."""
  return tuple(CalendarUse(calendar=found, mode=mode) for found, mode in listed)


def dates(*listed: str) -> Calendar:
  """A calendar of single dates."""
  return Calendar.parse({"dates": list(listed)})


def daily(text: str = "0 12 * * *", **more) -> Timing:
  """A cron definition, at noon if nothing else is said."""
  return Timing(kind="cron", cron_expression=text, **more)


def days(timing: Timing, start: str, count: int) -> list[str]:
  """The dates of the first fires."""
  found = preview(timing, start=utc(start), count=count)
  return [fire.date().isoformat() for fire in found]


def test_a_schedule_never_fires_on_the_days_of_a_calendar_to_exclude():
  timing = daily(calendars=uses((WEEKEND, "exclude")))
  assert days(timing, "2026-01-01", 3) == ["2026-01-01", "2026-01-02", "2026-01-05"]


def test_a_schedule_fires_only_on_the_days_of_each_calendar_to_include():
  timing = daily(calendars=uses((WEEKEND, "include")))
  assert days(timing, "2026-01-01", 3) == ["2026-01-03", "2026-01-04", "2026-01-10"]
  both = uses((WEEKEND, "include"), (dates("2026-01-04", "2026-01-05"), "include"))
  assert days(daily(calendars=both), "2026-01-01", 3) == ["2026-01-04"]


def test_a_fire_moves_to_the_next_or_previous_day_off_the_calendar():
  text = "0 12 1 * *"  # 1 February and 1 March 2026 are Sundays
  forward = daily(text, calendars=uses((WEEKEND, "next")))
  assert days(forward, "2026-01-15", 3) == ["2026-02-02", "2026-03-02", "2026-04-01"]
  backward = daily(text, calendars=uses((WEEKEND, "previous")))
  assert days(backward, "2026-01-15", 3) == ["2026-01-30", "2026-02-27", "2026-04-01"]


def test_fires_that_meet_by_moving_are_one():
  timing = daily(calendars=uses((WEEKEND, "next")))
  assert days(timing, "2026-01-02", 3) == ["2026-01-02", "2026-01-05", "2026-01-06"]


def test_a_fire_moves_off_all_calendars_that_move():
  feast = dates("2026-02-02")
  timing = daily("0 12 1 2 *", calendars=uses((WEEKEND, "next"), (feast, "next")))
  assert days(timing, "2026-01-01", 1) == ["2026-02-03"]
  # Sunday the first moves forward, Monday the second by itself backward: past Sunday.
  mixed = uses((WEEKEND, "next"), (feast, "previous"))
  assert days(daily("0 12 1 2 *", calendars=mixed), "2026-01-01", 1) == ["2026-02-03"]
  assert days(daily("0 12 2 2 *", calendars=mixed), "2026-01-01", 1) == ["2026-01-30"]


def test_what_moves_to_a_day_that_is_left_out_does_not_fire():
  timing = daily(
    "0 12 1 2-3 *",
    calendars=uses((WEEKEND, "next"), (dates("2026-02-02"), "exclude")),
  )
  assert days(timing, "2026-01-01", 1) == ["2026-03-02"]


def test_the_days_are_those_of_the_wall_in_the_time_zone():
  timing = daily(
    "0 6 * * *",
    timezone="Asia/Tokyo",
    calendars=uses((dates("2026-01-02"), "include")),
  )
  assert preview(timing, start=utc("2025-12-01"), count=2) == [utc("2026-01-01T21:00")]


def test_a_moved_fire_keeps_its_time_on_the_wall():
  timing = daily(
    "30 2 28 3 *",
    timezone="Europe/Berlin",
    calendars=uses((dates("2026-03-28"), "next")),
  )
  # 02:30 does not occur on 29 March 2026: the clock goes from 02:00 to 03:00.
  assert preview(timing, start=utc("2026-01-01"), count=1) == [utc("2026-03-29T01:00")]
  skipping = daily(
    "30 2 28 3 *",
    timezone="Europe/Berlin",
    dst=DstPolicy(gap="skip"),
    calendars=uses((dates("2026-03-28"), "next")),
  )
  # Nor does it a year later, when it needs no move.
  assert preview(skipping, start=utc("2026-01-01"), count=1) == [
    utc("2028-03-28T00:30")
  ]


def test_a_single_time_is_kept_moved_or_left_out():
  run_at = utc("2026-01-03T08:15:00.25")  # a Saturday

  def fires(mode: str) -> list[datetime]:
    """The fires of the single time."""
    timing = Timing(kind="time", run_at=run_at, calendars=uses((WEEKEND, mode)))
    return preview(timing, start=utc("2025-01-01"), count=3)

  assert fires("include") == [run_at]
  assert fires("exclude") == []
  assert fires("next") == [run_at + 2 * DAY]
  assert fires("previous") == [run_at - DAY]


def test_an_interval_keeps_its_own_times_and_takes_those_that_move():
  timing = Timing(
    kind="time",
    interval_seconds=9 * 3600,
    start_at=utc("2026-01-02T20:00"),  # a Friday evening
    calendars=uses((WEEKEND, "next")),
  )
  found = preview(timing, start=utc("2026-01-01"), count=10)
  assert [fire.strftime("%d %H") for fire in found] == [
    "02 20",
    "05 02",
    "05 05",  # of Saturday
    "05 08",  # of Sunday
    "05 11",
    "05 14",
    "05 17",
    "05 20",
    "05 23",
    "06 05",
  ]


def test_the_window_holds_for_fires_as_moved():
  timing = daily(
    "0 12 1 2 *",
    start_at=utc("2026-02-02"),
    end_at=utc("2026-02-28"),
    calendars=uses((WEEKEND, "next")),
  )
  assert days(timing, "2025-01-01", 3) == ["2026-02-02"]
  run = Timing(
    kind="time",
    run_at=utc("2026-01-03"),
    end_at=utc("2026-01-04"),
    calendars=uses((WEEKEND, "next")),
  )
  assert next_fire(run, after=utc("2025-01-01")) is None


def test_what_would_move_further_than_a_year_does_not_fire():
  span = Calendar.parse({"dates": [{"from": "2026-01-01", "to": "2027-06-30"}]})
  near = daily("0 0 12 1 7 ? 2026", calendars=uses((span, "next")))
  assert days(near, "2025-01-01", 2) == ["2027-07-01"]
  far = daily("0 0 12 1 1 ? 2026", calendars=uses((span, "next")))
  assert days(far, "2025-01-01", 2) == []
  back = daily("0 0 12 2 1 ? 2027", calendars=uses((span, "previous")))
  assert days(back, "2025-01-01", 2) == []


@pytest.mark.parametrize("mode", ["exclude", "next", "previous"])
@pytest.mark.parametrize(
  "definition",
  [
    {"kind": "cron", "cron_expression": "* * * * * *"},
    {"kind": "cron", "cron_expression": "0 0 29 2 *"},
    {"kind": "time", "interval_seconds": 1, "start_at": utc("2026-01-01")},
    {"kind": "time", "run_at": utc("2026-01-01")},
  ],
)
def test_a_calendar_of_all_days_gives_no_fire_in_bounded_time(mode, definition):
  timing = Timing(
    **definition, timezone="Europe/Berlin", calendars=uses((EVERY_DAY, mode))
  )
  begun = time.process_time()
  assert next_fire(timing, after=utc("2026-01-01")) is None
  assert count_fires(timing, after=utc("1970-01-01"), until=utc("2199-01-01")) == 0
  assert time.process_time() - begun < 1


@pytest.mark.parametrize("text", ["* * * * * *", "0 0 * * 6", "0 0 13 * *"])
def test_calendars_that_leave_nothing_are_searched_in_bounded_time(text):
  saturday = Calendar.parse({"weekly": ["sat"]})
  timing = daily(text, calendars=uses((saturday, "include"), (WEEKEND, "exclude")))
  begun = time.process_time()
  assert next_fire(timing, after=utc("2026-01-01")) is None
  assert count_fires(timing, after=utc("1970-01-01"), until=utc("2199-01-01")) == 0
  assert time.process_time() - begun < 1


def test_schedules_with_the_same_calendars_share_what_is_worked_out():
  first, second = (
    daily(calendars=uses((Calendar.parse({"weekly": ["sat"]}), "exclude")))
    for _ in range(2)
  )
  assert first == second
  assert first.calendars[0].calendar is not second.calendars[0].calendar
  assert open_days(first.calendars) is open_days(second.calendars)


# The search below finds the day a date moves to by walking from it.


def target_of(day: date, holds: dict[str, list[Callable[[date], bool]]]) -> date | None:
  """The day on which something planned on a date is carried out, if any."""

  def among(mode: str, asked: date) -> bool:
    """Whether a calendar with a mode holds a date."""
    return any(contains(asked) for contains in holds.get(mode, []))

  planned, stride = day, DAY if among("next", day) else -DAY
  while among("next", day) or among("previous", day):
    day += stride
    if abs(day - planned) > 40 * DAY:  # the calendars cover every day of the week
      return None
  if not all(contains(day) for contains in holds.get("include", [])):
    return None
  return None if among("exclude", day) else day


class Moved:
  """An expression whose days are those it moves to."""

  def __init__(self, expression: Expression, holds) -> None:
    self.fields = expression.fields
    self.wildcard = expression.wildcard
    self._expression = expression
    self._holds = holds

  def on_day(self, day: date) -> bool:
    """Whether something planned around a date moves to it."""
    near = [day + n * DAY for n in range(-30, 31)]
    return any(
      self._expression.on_day(other) and target_of(other, self._holds) == day
      for other in near
    )


@st.composite
def calendars(draw: st.DrawFn, middle: date):
  """Some calendars about a date: as definitions with modes, and as predicates."""
  listed, holds = [], {}
  for _ in range(draw(st.integers(1, 3))):
    mode = draw(st.sampled_from(["include", "exclude", "next", "next", "previous"]))
    free = draw(st.sampled_from(WEEKDAYS))
    weekly = draw(st.sets(st.sampled_from(WEEKDAYS), max_size=3)) - {free}
    offsets = draw(st.sets(st.integers(-9, 9), max_size=9))
    if mode == "include":
      weekly = set(WEEKDAYS) - weekly
    some = {middle + n * DAY for n in offsets}
    listed.append(
      (
        Calendar.parse(
          {
            "dates": [day.isoformat() for day in sorted(some)],
            "weekly": sorted(weekly),
          }
        ),
        mode,
      )
    )
    holds.setdefault(mode, []).append(
      lambda day, some=some, weekly=weekly: (
        day in some or WEEKDAYS[day.isoweekday() % 7] in weekly
      )
    )
  return uses(*listed), holds


@cache
def shown_around(name: str, middle: datetime) -> list[tuple[datetime, datetime]]:
  """What the clock of a zone shows in the minutes of some weeks."""
  return step(ZoneInfo(name), middle - 12 * DAY, middle + 12 * DAY, MINUTE)


POLICIES = st.tuples(
  st.sampled_from(["shift", "skip"]), st.sampled_from(["first", "both", "last"])
)
HOURS = st.sampled_from(
  [(Item("one", (h,)),) for h in (0, 1, 2, 3, 12, 23)]
  + [(Item("any"),), (Item("span", (22, 3)),), (Item("one", (0,)), Item("one", (23,)))]
)
MINUTES = st.sampled_from(
  [(Item("one", (0,)),), (Item("one", (30,)),), (Item("span_every", (0, 59, 20)),)]
)
DATES = st.sampled_from(
  [
    (Item("any"),),
    (Item("every", (2,)),),
    (Item("span", (25, 5)),),
    (Item("last", (0,)),),
  ]
)


def check(timing: Timing, expected: list[datetime], span, inside) -> None:
  """Assert that all questions about a span have the answers of a list."""
  after, until = span
  assert fire_times(timing, after=after, until=until, limit=100_000) == expected
  assert count_fires(timing, after=after, until=until) == len(expected)
  assert last_fires(timing, after=after, until=until, count=4) == expected[-4:]
  for part in inside:
    begin = after + part * (until - after)
    later = [fire for fire in expected if fire > begin]
    found = next_fire(timing, after=begin)
    assert found == later[0] if later else found is None or found > until


PARTS = st.lists(st.floats(0, 1), min_size=3, max_size=3)


@examples(120)
@given(st.sampled_from(MOMENTS), POLICIES, st.data(), PARTS)
def test_cron_under_calendars_fires_exactly_when_a_search_says_so(
  moment, policy, data, inside
):
  (name, middle), (gap, fold) = moment, policy
  zero, star = (Item("one", (0,)),), (Item("any"),)
  expression = Expression(
    (zero, data.draw(MINUTES), data.draw(HOURS), data.draw(DATES), star, star)
  )
  chosen, holds = data.draw(calendars(middle.date()))
  shown = shown_around(name, middle)
  found = search_shown(Moved(expression, holds), shown, gap=gap, fold=fold, unit=MINUTE)
  span = middle - 8 * DAY, middle + 8 * DAY
  timing = Timing(
    kind="cron",
    cron_expression=expression.text,
    timezone=name,
    dst=DstPolicy(gap=gap, fold=fold),
    calendars=chosen,
  )
  check(timing, [at for at in found if span[0] < at <= span[1]], span, inside)


@cache
def walls_around(name: str, middle: datetime):
  """When a zone shows each wall time of some weeks, and its gaps with their ends."""
  at_wall: dict[datetime, list[datetime]] = {}
  opened = []
  for (_, before), (moment, wall) in pairwise(shown_around(name, middle)):
    at_wall.setdefault(wall, []).append(moment)
    if wall - before > MINUTE:
      opened.append((before, wall, moment))
  return at_wall, opened


def moved_times(times, name, middle, holds, policy) -> list[datetime]:
  """What becomes of the times of a series under calendars, by looking at each."""
  gap, fold = policy
  zone = ZoneInfo(name)
  at_wall, opened = walls_around(name, middle)
  found = set()
  targets: dict[date, date | None] = {}
  for at in times:
    wall = at.astimezone(zone).replace(tzinfo=None, fold=0)
    if wall.date() not in targets:
      targets[wall.date()] = target_of(wall.date(), holds)
    target = targets[wall.date()]
    if target == wall.date():
      found.add(at)
    elif target is not None:
      wall = datetime.combine(target, wall.time())
      same = at_wall.get(wall, [])
      part = {"first": slice(1), "both": slice(None), "last": slice(-1, None)}[fold]
      found.update(same[part])
      if not same and gap == "shift":
        found.update(moment for low, high, moment in opened if low < wall < high)
  return sorted(found)


@examples(120)
@given(
  st.sampled_from(MOMENTS),
  POLICIES,
  st.sampled_from([10, 30, 60, 70, 420, 1440, 2000, 10080, None]),
  st.integers(-2000, 300),
  st.data(),
  PARTS,
)
def test_a_series_under_calendars_fires_exactly_when_a_search_says_so(
  moment, policy, minutes, begin, data, inside
):
  name, middle = moment
  chosen, holds = data.draw(calendars(middle.date()))
  anchor = middle + begin * 10 * MINUTE
  low, high = middle - 40 * DAY, middle + 40 * DAY
  times = [anchor]
  while minutes is not None and times[-1] < high:
    times.append(times[-1] + minutes * MINUTE)
  times = [at for at in times if low < at]
  found = moved_times(times, name, middle, holds, policy)
  span = middle - 8 * DAY, middle + 8 * DAY
  series = {"run_at": anchor}
  if minutes is not None:
    series = {"interval_seconds": minutes * 60.0, "created_at": anchor}
  timing = Timing(
    kind="time",
    timezone=name,
    dst=DstPolicy(gap=policy[0], fold=policy[1]),
    calendars=chosen,
    **series,
  )
  check(timing, [at for at in found if span[0] < at <= span[1]], span, inside)


def test_the_fires_are_one_sequence_wherever_one_begins():
  timing = daily(
    "*/30 * * * *",
    timezone="Europe/Berlin",
    calendars=uses((WEEKEND, "previous"), (dates("2026-03-27"), "next")),
  )
  begin, end = utc("2026-03-20"), utc("2026-04-10")
  whole = fire_times(timing, after=begin, until=end, limit=10_000)
  assert whole == sorted(set(whole))
  at = begin
  while at < end:
    rest = [fire for fire in whole if fire > at]
    assert next_fire(timing, after=at) == rest[0] if rest else True
    at += timedelta(minutes=47)
