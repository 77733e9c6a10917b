"""Fires on the days on which clocks change, in the zones that do it oddly."""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from schedule_oracle import utc

from hetuflow.errors import ScheduleError
from hetuflow.schedule import DstPolicy, Timing, fire_times, next_fire
from hetuflow.schedule.zones import load_zone, segment_at


def fires(text: str, zone: str, after: str, until: str, gap="shift", fold="first"):
  """The fires of an expression between two UTC moments, as short ISO text."""
  timing = Timing(
    kind="cron",
    cron_expression=text,
    timezone=zone,
    dst=DstPolicy(gap=gap, fold=fold),
  )
  found = fire_times(timing, after=utc(after), until=utc(until), limit=10_000)
  return [fire.strftime("%m-%d %H:%M") for fire in found]


# zone, a fixed time in the gap, the day around it in UTC, the first instant after it
GAPS = [
  ("Europe/Berlin", "30 2 * * *", "2025-03-29T12:00", "03-30 01:00"),
  ("America/New_York", "30 2 * * *", "2025-03-08T18:00", "03-09 07:00"),
  ("Europe/Dublin", "30 1 * * *", "2025-03-29T12:00", "03-30 01:00"),
  ("Australia/Lord_Howe", "15 2 * * *", "2025-10-04T02:00", "10-04 15:30"),
  ("Pacific/Chatham", "0 3 * * *", "2025-09-27T02:00", "09-27 14:00"),
  ("Antarctica/Troll", "0 2 * * *", "2025-03-29T12:00", "03-30 01:00"),
  ("Africa/Casablanca", "30 2 * * *", "2025-04-05T12:00", "04-06 02:00"),
  ("America/Havana", "0 0 * * *", "2025-03-08T17:00", "03-09 05:00"),
  ("America/Santiago", "0 0 * * *", "2025-09-06T16:00", "09-07 04:00"),
  ("Asia/Gaza", "30 2 * * *", "2025-04-11T12:00", "04-12 00:00"),
]
# zone, a fixed time in the fold, the day around it in UTC, its first and last occurrence
FOLDS = [
  ("Europe/Berlin", "30 2 * * *", "2025-10-25T12:00", "10-26 00:30", "10-26 01:30"),
  ("America/New_York", "30 1 * * *", "2025-11-01T18:00", "11-02 05:30", "11-02 06:30"),
  ("Europe/Dublin", "30 1 * * *", "2025-10-25T12:00", "10-26 00:30", "10-26 01:30"),
  (
    "Australia/Lord_Howe",
    "45 1 * * *",
    "2025-04-05T02:00",
    "04-05 14:45",
    "04-05 15:15",
  ),
  ("Pacific/Chatham", "0 3 * * *", "2025-04-05T02:00", "04-05 13:15", "04-05 14:15"),
  ("Antarctica/Troll", "0 2 * * *", "2025-10-25T12:00", "10-26 00:00", "10-26 02:00"),
  ("Africa/Casablanca", "30 2 * * *", "2025-02-22T12:00", "02-23 01:30", "02-23 02:30"),
  ("America/Havana", "30 0 * * *", "2025-11-01T17:00", "11-02 04:30", "11-02 05:30"),
  ("America/Santiago", "30 23 * * *", "2025-04-05T15:00", "04-06 02:30", "04-06 03:30"),
]


def day_after(start: str) -> str:
  """The same time a day later, as ISO text."""
  return f"{start[:8]}{int(start[8:10]) + 1:02}{start[10:]}"


@pytest.mark.parametrize(("zone", "text", "start", "shifted"), GAPS)
def test_a_fixed_time_in_a_gap_fires_as_the_gap_ends(zone, text, start, shifted):
  assert fires(text, zone, start, day_after(start)) == [shifted]


@pytest.mark.parametrize(("zone", "text", "start", "shifted"), GAPS)
def test_a_fixed_time_in_a_gap_is_skipped_on_request(zone, text, start, shifted):
  assert fires(text, zone, start, day_after(start), gap="skip") == []


@pytest.mark.parametrize(("zone", "text", "start", "first", "last"), FOLDS)
def test_a_fixed_time_in_a_fold_fires_as_its_policy_says(
  zone, text, start, first, last
):
  until = day_after(start)
  assert fires(text, zone, start, until) == [first]
  assert fires(text, zone, start, until, fold="last") == [last]
  assert fires(text, zone, start, until, fold="both") == [first, last]


@pytest.mark.parametrize("zone", sorted({case[0] for case in GAPS + FOLDS}))
@pytest.mark.parametrize("fold", ["first", "last"])
def test_a_fixed_time_job_runs_on_each_day_exactly_once(zone, fold):
  new_year = datetime(2025, 1, 1, tzinfo=ZoneInfo(zone))
  for minute in range(0, 1440, 15):
    timing = Timing(
      kind="cron",
      cron_expression=f"{minute % 60} {minute // 60} * * *",
      timezone=zone,
      dst=DstPolicy(fold=fold),
    )
    found = fire_times(
      timing,
      after=new_year - timedelta(seconds=1),
      until=new_year.replace(year=2026) - timedelta(seconds=1),
      limit=1000,
    )
    days = [fire.astimezone(new_year.tzinfo).date() for fire in found]
    assert days == [date(2025, 1, 1) + timedelta(days=n) for n in range(365)]


def test_a_wildcard_hour_follows_the_wall_clock_through_a_gap():
  assert fires(
    "30 * * * *", "Europe/Berlin", "2025-03-30T00:00", "2025-03-30T03:00"
  ) == [
    "03-30 00:30",
    "03-30 01:30",
    "03-30 02:30",
  ]


def test_a_wildcard_minute_does_not_catch_up_an_hour_that_never_was():
  span = ("2025-03-29T12:00", "2025-03-30T12:00")
  assert fires("*/15 2 * * *", "Europe/Berlin", *span) == []
  assert fires("0-59/15 2 * * *", "Europe/Berlin", *span) == ["03-30 01:00"]


@pytest.mark.parametrize("fold", ["first", "both", "last"])
def test_a_wildcard_fires_in_both_hours_of_a_fold(fold):
  span = ("2025-10-25T23:45", "2025-10-26T02:15")
  assert fires("*/30 * * * *", "Europe/Berlin", *span, fold=fold) == [
    "10-26 00:00",
    "10-26 00:30",
    "10-26 01:00",
    "10-26 01:30",
    "10-26 02:00",
  ]


def test_times_shifted_to_the_same_instant_fire_once():
  span = ("2025-03-29T12:00", "2025-03-30T12:00")
  assert fires("30 1,2 * * *", "Antarctica/Troll", *span) == ["03-30 01:00"]
  assert fires("10,20,30 2,3 * * *", "Europe/Berlin", *span) == [
    "03-30 01:00",
    "03-30 01:10",
    "03-30 01:20",
    "03-30 01:30",
  ]
  assert fires("30 2 * * *", "Europe/Berlin", *span) == ["03-30 01:00"]
  assert fires("0,30 2,3 * * *", "Europe/Berlin", *span) == [
    "03-30 01:00",
    "03-30 01:30",
  ]


def test_a_day_that_never_was_fires_as_the_next_begins():
  # Samoa went from 29 to 31 December 2011 at midnight, 10:00 UTC.
  span = ("2011-12-29T12:00", "2011-12-31T09:00")
  assert fires("0 12 * * *", "Pacific/Apia", *span) == [
    "12-29 22:00",
    "12-30 10:00",
    "12-30 22:00",
  ]
  assert fires("0 12 30 * *", "Pacific/Apia", *span) == ["12-30 10:00"]
  assert fires("0 12 30 * *", "Pacific/Apia", *span, gap="skip") == []
  assert fires("0 */12 * * *", "Pacific/Apia", *span) == [
    "12-29 22:00",
    "12-30 10:00",
    "12-30 22:00",
  ]


def test_ramadan_moves_the_clock_of_casablanca_four_times_in_two_years():
  found = fires("0 9 1 * *", "Africa/Casablanca", "2025-02-01", "2025-05-02")
  assert found == ["02-01 08:00", "03-01 09:00", "04-01 09:00", "05-01 08:00"]


def test_the_second_hour_of_a_fold_is_seen_from_within_the_first():
  timing = Timing(
    kind="cron",
    cron_expression="0 30 1 2 11 ? 2025",
    timezone="America/New_York",
    dst=DstPolicy(fold="both"),
  )
  assert next_fire(timing, after=utc("2025-11-02T05:45")) == utc("2025-11-02T06:30")
  assert next_fire(timing, after=utc("2025-11-02T06:30")) is None
  yearly = Timing(
    kind="cron",
    cron_expression="*/30 1 2 11 *",
    timezone="America/New_York",
  )
  assert next_fire(yearly, after=utc("2025-11-02T05:45")) == utc("2025-11-02T06:00")


def test_a_single_time_in_a_skipped_gap_never_fires():
  timing = Timing(
    kind="cron",
    cron_expression="0 30 2 30 3 ? 2025",
    timezone="Europe/Berlin",
    dst=DstPolicy(gap="skip"),
  )
  assert next_fire(timing, after=utc("2025-01-01")) is None


def test_offsets_with_seconds_are_kept():
  # Liberia was 44 minutes and 30 seconds behind until 7 January 1972.
  timing = Timing(kind="cron", cron_expression="0 0 * * *", timezone="Africa/Monrovia")
  assert next_fire(timing, after=utc("1971-06-01")) == utc("1971-06-01T00:44:30")


def test_a_fixed_offset_zone_is_one_segment():
  segment = segment_at(load_zone("Etc/GMT-5"), 0)
  assert (segment.before, segment.offset, segment.after) == (18000, 18000, 18000)
  assert segment.end > 200 * 366 * 86_400


@pytest.mark.parametrize(
  "name",
  ["", "Mars/Olympus", "../etc/passwd", "/etc/passwd", "America", "localtime", "a\0b"],
)
def test_an_unknown_zone_is_refused(name):
  with pytest.raises(ScheduleError, match="IANA name") as refused:
    load_zone(name)
  assert refused.value.field == "timezone"


@pytest.mark.parametrize(("gap", "fold"), [("late", "first"), ("shift", "never")])
def test_an_unknown_policy_is_refused(gap, fold):
  with pytest.raises(ScheduleError, match="allowed: ") as refused:
    DstPolicy(gap=gap, fold=fold)
  assert refused.value.field == "dst"
