"""Counting fires and finding the newest without listing them all."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schedule_oracle import examples, utc

from hetuflow.schedule import (
  Calendar,
  CalendarUse,
  DstPolicy,
  Timing,
  count_fires,
  fire_times,
  last_fires,
)

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
WEEKEND = Calendar.parse({"weekly": ["sat", "sun"]})
BAVARIA = Calendar.parse({"holidays": {"country": "DE", "subdivision": "BY"}})
CALENDARS = [
  (),
  (CalendarUse(calendar=WEEKEND, mode="exclude"),),
  (CalendarUse(calendar=WEEKEND, mode="next"),),
  (
    CalendarUse(calendar=WEEKEND, mode="previous"),
    CalendarUse(calendar=BAVARIA, mode="exclude"),
  ),
]
ZONES = [
  "UTC",
  "Africa/Casablanca",
  "America/Havana",
  "Antarctica/Troll",
  "Australia/Lord_Howe",
  "Europe/Berlin",
  "Pacific/Apia",
]
# Each is counted over some days; the rarer ones over as many weeks.
OFTEN = [
  "* * * * * *",
  "*/7 * 0-4 * * *",
  "0,30 */5 22-3 * * *",
  "0 30 1,2 * * *",
]
SELDOM = ["*/20 * * * *", "0 0 * * *", "30 2 * * *", "H 1,2 */3 * *", "15 3 L * *"]


def listed(timing: Timing, after: datetime, until: datetime) -> list[datetime]:
  """The fires of a span, one by one."""
  return fire_times(timing, after=after, until=until, limit=10_000_000)


def check(timing: Timing, after: datetime, until: datetime, count: int) -> None:
  """Assert that count and tail are those of the list."""
  expected = listed(timing, after, until)
  assert count_fires(timing, after=after, until=until) == len(expected)
  newest = last_fires(timing, after=after, until=until, count=count)
  assert newest == expected[-count:]


MOMENTS = st.datetimes(datetime(2009, 1, 1), datetime(2013, 1, 1)).map(  # noqa: DTZ001  # UTC is set next
  lambda moment: moment.replace(tzinfo=UTC)
)
POLICIES = st.builds(
  DstPolicy,
  gap=st.sampled_from(["shift", "skip"]),
  fold=st.sampled_from(["first", "both", "last"]),
)
# Of the changes of the clock of these zones between 2009 and 2013 some at least.
CHANGES = st.sampled_from(
  [
    utc("2011-12-30T10:00"),
    utc("2010-03-28T01:00"),
    utc("2010-10-31T01:00"),
    utc("2011-03-13T05:00"),
    utc("2011-11-13T05:00"),
    utc("2012-03-31T15:00"),
    utc("2011-10-01T15:30"),
    utc("2012-07-20T02:00"),
  ]
)


@examples(200)
@given(
  st.sampled_from(OFTEN),
  st.sampled_from(ZONES),
  POLICIES,
  st.sampled_from(CALENDARS),
  CHANGES,
  st.integers(-50_000, 30_000),
  st.integers(1, 60_000),
  st.integers(1, 50),
)
def test_what_fires_often_is_counted_as_it_is_listed(
  text, zone, dst, calendars, change, offset, length, count
):
  timing = Timing(
    kind="cron", cron_expression=text, timezone=zone, dst=dst, calendars=calendars
  )
  after = change + offset * SECOND
  check(timing, after, after + length * SECOND, count)


@examples(200)
@given(
  st.sampled_from(SELDOM),
  st.sampled_from(ZONES),
  POLICIES,
  st.sampled_from(CALENDARS),
  MOMENTS,
  st.floats(0.01, 120),
  st.integers(1, 50),
  st.sampled_from([None, 20, 60]),
)
def test_what_fires_seldom_is_counted_as_it_is_listed(
  text, zone, dst, calendars, after, length, count, window
):
  timing = Timing(
    kind="cron",
    cron_expression=text,
    timezone=zone,
    dst=dst,
    calendars=calendars,
    hash_key="a",
    start_at=None if window is None else after + 5 * DAY,
    end_at=None if window is None else after + window * DAY,
  )
  check(timing, after, after + length * DAY, count)


@examples(150)
@given(
  st.sampled_from([1.0, 1.1, 59.5, 3600.0, 25_203.5, 86_400.0, 604_800.0, None]),
  st.sampled_from(ZONES),
  POLICIES,
  st.sampled_from(CALENDARS),
  MOMENTS,
  st.floats(-3, 3),
  st.floats(0.01, 2000),
  st.integers(1, 50),
)
def test_a_series_is_counted_as_it_is_listed(
  interval, zone, dst, calendars, start, before, length, count
):
  series = {"run_at": start}
  if interval is not None:
    series = {"interval_seconds": interval, "start_at": start}
  timing = Timing(kind="time", timezone=zone, dst=dst, calendars=calendars, **series)
  after = start + before * DAY
  check(timing, after, after + length * timedelta(seconds=interval or 100), count)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Africa/Casablanca"])
@pytest.mark.parametrize("calendars", CALENDARS)
@pytest.mark.parametrize(
  "definition",
  [
    {"kind": "cron", "cron_expression": "* * * * * *"},
    {"kind": "cron", "cron_expression": "*/2 * 0-3 * * *"},
    {"kind": "time", "interval_seconds": 1.0, "start_at": utc("2020-01-01")},
  ],
)
def test_400_days_of_seconds_are_counted_in_some_milliseconds(
  zone, calendars, definition
):
  timing = Timing(**definition, timezone=zone, calendars=calendars)
  span = {"after": utc("2024-01-01"), "until": utc("2024-01-01") + 400 * DAY}
  begun = time.process_time()
  counted = count_fires(timing, **span)
  newest = last_fires(timing, **span, count=100)
  # The promise is a few milliseconds to some tens; listing takes a minute.
  assert time.process_time() - begun < 0.5
  assert counted > 1_000_000
  assert len(newest) == 100
  assert newest == sorted(set(newest))
  assert count_fires(timing, after=newest[0], until=span["until"]) == 99


def test_400_days_of_seconds_are_all_counted():
  span = {"after": utc("2024-01-01"), "until": utc("2024-01-01") + 400 * DAY}
  every = Timing(kind="cron", cron_expression="* * * * * *", timezone="Europe/Berlin")
  assert count_fires(every, **span) == 400 * 86_400
  assert last_fires(every, **span, count=2) == [
    span["until"] - SECOND,
    span["until"],
  ]


def test_a_century_is_counted():
  timing = Timing(kind="cron", cron_expression="0 0 * * *", timezone="Europe/Berlin")
  begun = time.process_time()
  counted = count_fires(timing, after=utc("2000-01-01"), until=utc("2100-01-01"))
  assert counted == 36_525
  assert time.process_time() - begun < 1


def test_an_empty_span_or_a_count_of_none_has_no_fires():
  timing = Timing(kind="cron", cron_expression="* * * * *")
  now = utc("2026-01-01")
  assert count_fires(timing, after=now, until=now) == 0
  assert count_fires(timing, after=now, until=now - DAY) == 0
  assert last_fires(timing, after=now, until=now, count=5) == []
  assert last_fires(timing, after=now, until=now - DAY, count=5) == []
  assert last_fires(timing, after=now, until=now + DAY, count=0) == []


def test_all_of_time_is_counted():
  timing = Timing(kind="cron", cron_expression="0 0 1 1 *", timezone="Europe/Berlin")
  ends = {
    "after": datetime.min.replace(tzinfo=UTC),
    "until": datetime.max.replace(tzinfo=UTC),
  }
  assert count_fires(timing, **ends) == 230
  assert last_fires(timing, **ends, count=1) == [utc("2198-12-31T23:00")]
