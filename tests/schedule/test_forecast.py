"""What clocks and calendars do to schedules, and the load of many within a budget."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from schedule_oracle import examples

from hetuflow.protocol.states import OverlapPolicy
from hetuflow.schedule import (
  Calendar,
  CalendarUse,
  DstPolicy,
  Timing,
  count_fires,
  fire_times,
  load_zone,
)
from hetuflow.schedule.forecast import (
  Limits,
  Outlook,
  Source,
  clock_changes,
  effect_of,
  find_moves,
  foresee,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
START = datetime(2026, 3, 2, tzinfo=UTC)
SECOND = 1_000_000
HOUR = 3600 * SECOND
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Pacific/Apia", "Asia/Kathmandu")


def micros(moment: datetime) -> int:
  """Return a moment in microseconds since the epoch."""
  return (moment - EPOCH) // timedelta(microseconds=1)


def outlook_of(*sources: Source, hours: int = 24, budget: int = 10**6) -> Outlook:
  """Take all steps at once."""
  start = micros(START)
  steps = foresee(sources, start=start, end=start + hours * HOUR, budget=budget)
  while True:
    try:
      next(steps)
    except StopIteration as end:
      return end.value


def cron(text: str, **more) -> Timing:
  """A cron definition."""
  return Timing(kind="cron", cron_expression=text, **more)


@pytest.mark.parametrize(
  "zone", ["Europe/Berlin", "America/New_York", "Australia/Perth"]
)
@pytest.mark.parametrize("expression", ["30 2 * * *", "*/7 * * * *", "15 1,2,3 * * *"])
@pytest.mark.parametrize("gap", ["shift", "skip"])
@pytest.mark.parametrize("fold", ["first", "both", "last"])
def test_effects_are_what_is_fired_otherwise_than_on_a_day_without_a_change(
  zone, expression, gap, fold
):
  timing = cron(expression, timezone=zone, dst=DstPolicy(gap=gap, fold=fold))
  plain = cron(expression, timezone="UTC")
  start = datetime(2026, 1, 1, tzinfo=UTC)
  changes = clock_changes(
    load_zone(zone), start=micros(start), end=micros(start + timedelta(days=365))
  )
  assert len(changes) == (0 if zone == "Australia/Perth" else 2)
  for change in changes:
    at = EPOCH + timedelta(seconds=change.at)
    day = at.astimezone(ZoneInfo(zone)).date()
    midnight = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))
    following = midnight.replace(day=day.day + 1)
    fires = count_fires(
      timing,
      after=midnight - timedelta(microseconds=1),
      until=following - timedelta(microseconds=1),
    )
    usual = midnight.replace(tzinfo=UTC) - timedelta(microseconds=1)
    wanted = count_fires(plain, after=usual, until=usual + timedelta(days=1))
    effect = effect_of(timing, change)
    # What is moved to the end of a gap may meet there what fires anyway.
    assert wanted - effect.skipped + effect.doubled - fires in (0, effect.moved)
    assert fires <= wanted + effect.doubled


def test_changes_outside_a_window_do_not_concern_a_schedule():
  timing = cron("30 2 * * *", timezone="Europe/Berlin", end_at=START)
  span = {"start": micros(START), "end": micros(START + timedelta(days=60))}
  [change] = clock_changes(load_zone("Europe/Berlin"), **span)
  assert effect_of(timing, change).moved == 0
  assert effect_of(attrs.evolve(timing, end_at=None), change).moved == 1
  assert clock_changes(load_zone("UTC"), **span) == []


@st.composite
def under_calendars(draw) -> Timing:
  """A schedule that fires once a day or less, under some calendars."""
  days = st.integers(0, 27).map(lambda n: (date(2026, 3, 1) + timedelta(n)).isoformat())
  uses = []
  for _ in range(draw(st.integers(1, 3))):
    dates = draw(st.lists(days, min_size=1, max_size=12))
    weekly = draw(st.sampled_from([[], ["sat", "sun"], ["mon"]]))
    calendar = Calendar.parse({"dates": dates, "weekly": weekly})
    mode = draw(st.sampled_from(["exclude", "include", "next", "previous"]))
    uses.append(CalendarUse(calendar=calendar, mode=mode))
  expression = draw(st.sampled_from(["0 12 * * *", "0 12 * * 1-5", "0 12 */3 * *"]))
  zone = draw(st.sampled_from(ZONES))
  return cron(expression, timezone=zone, calendars=tuple(uses))


@given(timing=under_calendars())
@examples(200)
def test_days_fire_by_themselves_or_because_others_move_to_them(timing):
  zone = ZoneInfo(timing.timezone)
  start = datetime(2026, 3, 1, tzinfo=zone)
  end = datetime(2026, 4, 1, tzinfo=zone)

  def days_of(one: Timing, first: datetime, last: datetime) -> set[date]:
    """Return the days on which something fires."""
    found = fire_times(
      one, after=first - timedelta(microseconds=1), until=last, limit=10_000
    )
    return {at.astimezone(zone).date() for at in found if at < last}

  moves = find_moves(timing, start=micros(start), end=micros(end))
  plain = days_of(attrs.evolve(timing, calendars=()), start, end)
  stay = plain - {source for source, _ in moves.moved} - set(moves.dropped)
  fired = days_of(timing, start - timedelta(days=40), end + timedelta(days=40))
  inside = {day for day in fired if start.date() <= day < end.date()}
  assert stay <= inside
  assert {target for _, target in moves.moved} <= fired
  # Whatever else fires was planned on a day outside of the span.
  others = inside - stay - {target for _, target in moves.moved}
  around = find_moves(
    timing,
    start=micros(start - timedelta(days=40)),
    end=micros(end + timedelta(days=40)),
  )
  assert others <= {target for _, target in around.moved}
  assert not (set(moves.dropped) & fired)


def test_intervals_keep_what_calendars_leave_of_them():
  calendar = Calendar.parse({"dates": ["2026-03-03"]})
  timing = Timing(
    kind="time",
    interval_seconds=3600,
    start_at=START,
    calendars=(CalendarUse(calendar=calendar, mode="exclude"),),
  )
  span = {"start": micros(START), "end": micros(START + timedelta(days=3))}
  moves = find_moves(timing, **span)
  assert (moves.moved, moves.dropped) == ([], [date(2026, 3, 3)])
  free = find_moves(attrs.evolve(timing, calendars=()), **span)
  assert (free.moved, free.dropped) == ([], [])


@given(
  every=st.integers(20, 600),
  seconds=st.integers(1, 900),
  overlap=st.sampled_from(OverlapPolicy),
  places=st.sampled_from([1, 2, 3]),
  limited=st.booleans(),
)
@examples(60)
def test_what_is_counted_comes_close_to_what_is_simulated(
  every, seconds, overlap, places, limited
):
  limits = Limits(lane="x", places=places, overlap=overlap) if limited else Limits()
  source = Source(
    timing=Timing(kind="time", interval_seconds=every, start_at=START),
    key="x",
    duration=seconds * SECOND,
    limits=limits,
  )
  exact, even = outlook_of(source), outlook_of(source, budget=0)
  assert (exact.steady, even.steady) == ([False], [True])
  one, other = exact.tallies[0], even.tallies[0]
  assert one.due == other.due
  assert sum(hour.fires for hour in even.hours) == pytest.approx(one.due)
  if overlap is not OverlapPolicy.SKIP or not limited:
    # What skips runs in whole spacings, which an even load does not know.
    assert abs(one.started - other.started) <= places + 1
    assert abs(one.waiting - other.waiting) <= places + 1
    assert exact.growing == even.growing or other.waiting <= places + 1
    busy = [sum(hour.busy for hour in each.hours) for each in (exact, even)]
    assert busy[1] == pytest.approx(busy[0], rel=0.05, abs=(places + 1) * seconds * 1e6)


def test_the_budget_goes_to_those_that_fire_least():
  rare, often = cron("0 * * * *"), cron("* * * * *")
  sources = [
    Source(timing=often, key="often", duration=SECOND),
    Source(timing=rare, key="rare", duration=SECOND),
    Source(timing=None, key="daemon", duration=SECOND, replicas=2),
  ]
  found = outlook_of(*sources, budget=1_000)
  assert found.steady == [True, False, False]
  assert [tally.due for tally in found.tallies] == [1_440, 24, 0]
  assert [round(hour.fires) for hour in found.hours] == [61] * 24
  assert {hour.peak for hour in found.hours} == {4}


def test_jitter_spreads_and_runs_that_are_left_end_a_schedule():
  timing = cron("0 * * * *", jitter_seconds=600.0)
  limits = Limits(lane="x", overlap=OverlapPolicy.QUEUE)
  one = Source(timing=timing, key="a", duration=SECOND, limits=limits, most=5)
  found = outlook_of(one, attrs.evolve(one, key="b"))
  assert [tally.due for tally in found.tallies] == [5, 5]
  # Both are due at the same time but for their jitter, and take turns.
  assert max(hour.peak for hour in found.hours) <= 2


def test_pauses_are_counted_from_the_end_of_a_task():
  timing = Timing(kind="time", interval_seconds=600, start_at=START)
  source = Source(timing=timing, key="x", duration=1200 * SECOND, delay=600 * SECOND)
  for budget in (10**6, 0):
    found = outlook_of(source, budget=budget)
    assert found.tallies[0].due == 48
    assert found.hours[3].busy == pytest.approx(2400 * SECOND)
