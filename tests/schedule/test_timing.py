"""One definition of times: cron, a single time or an interval, within a window."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schedule_oracle import examples, utc

from hetuflow.errors import ScheduleError
from hetuflow.schedule import (
  Calendar,
  CalendarUse,
  Timing,
  fire_times,
  jitter,
  next_fire,
  preview,
)

FOREVER = datetime.max.replace(tzinfo=UTC)


def cron(text: str, **more) -> Timing:
  """A cron definition."""
  return Timing(kind="cron", cron_expression=text, **more)


def every(seconds: float, **more) -> Timing:
  """An interval definition."""
  return Timing(kind="time", interval_seconds=seconds, **more)


def test_fires_lie_strictly_after_and_up_to_until():
  found = fire_times(
    cron("0 * * * *"), after=utc("2025-01-01"), until=utc("2025-01-01T02:00"), limit=9
  )
  assert found == [utc("2025-01-01T01:00"), utc("2025-01-01T02:00")]


def test_a_fraction_of_a_second_before_a_fire_still_meets_it():
  after = utc("2025-01-01T00:59:59.999999")
  assert next_fire(cron("0 * * * *"), after=after) == utc("2025-01-01T01:00")


def test_a_limit_keeps_the_earliest_fires():
  timing = cron("* * * * *")
  found = fire_times(timing, after=utc("2025-01-01"), until=FOREVER, limit=2)
  assert found == [utc("2025-01-01T00:01"), utc("2025-01-01T00:02")]
  assert fire_times(timing, after=utc("2025-01-01"), until=FOREVER, limit=0) == []


def test_a_preview_includes_its_start():
  found = preview(cron("0 0 * * *"), start=utc("2025-01-01"), count=2)
  assert found == [utc("2025-01-01"), utc("2025-01-02")]


def test_moments_of_other_zones_are_answered_in_utc():
  tokyo = timezone(timedelta(hours=9))
  fire = next_fire(cron("0 * * * *"), after=datetime(2025, 1, 1, 9, 30, tzinfo=tokyo))
  assert fire == utc("2025-01-01T01:00")
  assert fire.tzinfo is UTC


def test_a_window_holds_both_of_its_ends():
  timing = cron("0 * * * *", start_at=utc("2025-01-01"), end_at=utc("2025-01-01T02:00"))
  found = fire_times(timing, after=utc("2024-01-01"), until=FOREVER, limit=9)
  assert found == [utc(f"2025-01-01T0{hour}:00") for hour in range(3)]


def test_a_window_between_two_fires_is_empty():
  timing = cron(
    "0 * * * *", start_at=utc("2025-01-01T00:01"), end_at=utc("2025-01-01T00:59")
  )
  assert next_fire(timing, after=utc("2024-01-01")) is None


def test_a_single_time_fires_once_with_its_microseconds():
  run_at = utc("2025-01-01T10:00:00.123456")
  timing = Timing(kind="time", run_at=run_at)
  assert preview(timing, start=utc("2024-01-01"), count=5) == [run_at]
  assert next_fire(timing, after=run_at) is None


def test_an_interval_counts_from_start_at_itself():
  timing = every(90, start_at=utc("2025-01-01T00:00:30"))
  assert preview(timing, start=utc("2024-01-01"), count=3) == [
    utc("2025-01-01T00:00:30"),
    utc("2025-01-01T00:02:00"),
    utc("2025-01-01T00:03:30"),
  ]


def test_an_interval_counts_from_the_second_it_was_made_without_a_start():
  timing = every(60, created_at=utc("2025-01-01T00:00:07.9"))
  assert next_fire(timing, after=utc("2025-01-01T00:00:08")) == utc(
    "2025-01-01T00:01:07"
  )


def test_an_interval_never_drifts():
  timing = every(1.1, start_at=utc("2025-01-01"))
  fire = next_fire(timing, after=utc("2035-01-01"))
  steps, rest = divmod(fire - utc("2025-01-01"), timedelta(microseconds=1_100_000))
  assert steps > 0
  assert rest == timedelta(0)


def test_an_interval_goes_on_through_a_change_of_the_clock():
  timing = every(86_400, start_at=utc("2025-03-29T12:00"), timezone="Europe/Berlin")
  found = preview(timing, start=utc("2025-03-29T12:00"), count=2)
  assert found == [utc("2025-03-29T12:00"), utc("2025-03-30T12:00")]


@examples(200)
@given(
  st.integers(0, 4_000_000_000_000_000),
  st.integers(1_000_000, 10_000_000_000_000),
  st.integers(-1_000_000_000_000, 6_000_000_000_000_000),
)
def test_an_interval_fires_next_at_the_first_multiple_after(anchor, step, after):
  epoch = utc("1970-01-01")
  start, moment = (epoch + timedelta(microseconds=n) for n in (anchor, after))
  fire = next_fire(every(step / 1_000_000, start_at=start), after=moment)
  assert fire is not None
  assert fire > moment
  assert (fire - start) % timedelta(microseconds=step) == timedelta(0)
  assert fire == start or fire - timedelta(microseconds=step) <= moment


@pytest.mark.parametrize(
  ("field", "definition"),
  [
    ("kind", {"kind": "daemon"}),
    ("cron_expression", {"kind": "cron"}),
    ("cron_expression", {"kind": "cron", "cron_expression": "61 * * * *"}),
    ("cron_expression", {"cron_expression": "* * * * *", "interval_seconds": 5}),
    (
      "run_at",
      {"kind": "cron", "cron_expression": "@daily", "run_at": utc("2025-01-01")},
    ),
    ("run_at", {}),
    ("run_at", {"run_at": utc("2025-01-01"), "interval_seconds": 5}),
    ("run_at", {"run_at": datetime(2025, 1, 1)}),  # noqa: DTZ001  # the case itself
    ("run_at", {"run_at": utc("2025-01-01"), "start_at": utc("2025-01-02")}),
    ("run_at", {"run_at": utc("2025-01-01"), "end_at": utc("2024-01-02")}),
    ("run_at", {"run_at": utc("2300-01-01")}),
    ("start_at", {"interval_seconds": 5}),
    ("end_at", {"start_at": utc("2025-01-01"), "end_at": utc("2025-01-01")}),
    ("interval_seconds", {"interval_seconds": 0.999}),
    ("interval_seconds", {"interval_seconds": -5}),
    ("interval_seconds", {"interval_seconds": float("nan")}),
    ("interval_seconds", {"interval_seconds": float("inf")}),
    ("jitter_seconds", {"jitter_seconds": -1}),
    ("jitter_seconds", {"jitter_seconds": float("nan")}),
    ("jitter_seconds", {"jitter_seconds": 1e9}),
    ("timezone", {"timezone": "Europe/Atlantis"}),
  ],
)
def test_a_wrong_definition_is_refused_by_field(field, definition):
  if {"start_at", "jitter_seconds", "timezone"} & set(definition) and not {
    "run_at",
    "interval_seconds",
  } & set(definition):
    definition = {"interval_seconds": 5, "created_at": utc("2025-01-01")} | definition
  with pytest.raises(ScheduleError) as refused:
    Timing(**{"kind": "time", **definition})
  assert refused.value.field == field


def test_jitter_is_the_same_for_the_same_occurrence_and_within_its_bound():
  timing = cron("* * * * *", jitter_seconds=2.5)
  moments = preview(timing, start=utc("2025-01-01"), count=2000)
  delays = [jitter(timing, moment, "a") for moment in moments]
  assert delays == [jitter(timing, moment, "a") for moment in moments]
  assert delays != [jitter(timing, moment, "b") for moment in moments]
  assert timedelta(0) <= min(delays) < timedelta(seconds=0.05)
  assert timedelta(seconds=2.45) < max(delays) < timedelta(seconds=2.5)
  mean = sum(delays, timedelta(0)) / len(delays)
  assert abs(mean - timedelta(seconds=1.25)) < timedelta(seconds=0.1)


def test_without_jitter_nothing_is_delayed():
  assert jitter(cron("* * * * *"), utc("2025-01-01"), "a") == timedelta(0)


def test_jitter_belongs_to_the_planned_time_whatever_led_to_it():
  at = utc("2026-01-05T12:00")
  weekend = Calendar.parse({"weekly": ["sat", "sun"]})
  moved = cron(
    "0 12 * * *",
    jitter_seconds=60,
    timezone="UTC",
    calendars=(CalendarUse(calendar=weekend, mode="next"),),
  )
  plain = every(3600, jitter_seconds=60, start_at=utc("2020-01-01"))
  assert at in preview(moved, start=utc("2026-01-03"), count=1)
  assert jitter(moved, at, "job") == jitter(plain, at, "job") > timedelta(0)
  # Fixed for ever: a change would let planned tasks start at another time.
  assert jitter(plain, at, "job") == timedelta(microseconds=50_183_500)


def test_jitter_spreads_schedules_that_plan_the_same_time():
  timing = cron("0 0 * * *", jitter_seconds=600)
  delays = {jitter(timing, utc("2026-01-01"), str(n)) for n in range(500)}
  assert len(delays) == 500
  assert {delay // timedelta(seconds=60) for delay in delays} == set(range(10))


def test_h_gives_each_job_its_own_time_and_keeps_it():
  def first(key: str) -> datetime:
    """The first fire of a job that leaves hour and minute to its key."""
    return preview(cron("H H * * *", hash_key=key), start=utc("2026-01-01"), count=1)[0]

  jobs = {key: first(key) for key in map(str, range(200))}
  assert len(set(jobs.values())) > 150
  for key, at in jobs.items():
    times = preview(cron("H H * * *", hash_key=key), start=utc("2026-01-01"), count=3)
    assert times == [at + n * timedelta(days=1) for n in range(3)]
