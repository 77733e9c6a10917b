"""The implementation against the oracle that tries every minute or second."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from hypothesis import given
from hypothesis import strategies as st
from schedule_oracle import BOUNDS, EFFORT, Expression, Item, examples, search

from hetuflow.errors import ScheduleError
from hetuflow.schedule import DstPolicy, Timing, fire_times, next_fire
from hetuflow.schedule.zones import load_zone, segment_at

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
ZONES = sorted(
  name for name in available_timezones() if name not in ("Factory", "localtime")
)
# Zones whose changes are unusual, so that they are met in every run.
ODD_ZONES = [
  "Africa/Casablanca",
  "America/Havana",
  "America/New_York",
  "America/Santiago",
  "America/Sao_Paulo",
  "Antarctica/Troll",
  "Asia/Gaza",
  "Asia/Tehran",
  "Australia/Lord_Howe",
  "Europe/Berlin",
  "Europe/Dublin",
  "Pacific/Apia",
  "Pacific/Chatham",
]


@lru_cache(maxsize=2000)
def changes(zone_name: str, year: int) -> list[datetime]:
  """The hours of a year before which the offset of a zone changed."""
  zone = ZoneInfo(zone_name)
  hours = [datetime(year, 1, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(8760)]
  offsets = [hour.astimezone(zone).utcoffset() for hour in hours]
  return [
    hour
    for hour, offset, before in zip(hours[1:], offsets[1:], offsets, strict=False)
    if offset != before
  ]


@st.composite
def plain_items(draw: st.DrawFn, name: str) -> Item:
  """An item every field knows."""
  low, high = BOUNDS[name]
  value = st.integers(low, high)
  word = draw(st.sampled_from(["any", "one", "one", "span", "every", "from", "mix"]))
  match word:
    case "any":
      return Item("any")
    case "one":
      return Item("one", (draw(value),))
    case "span":
      return Item("span", (draw(value), draw(value)))
    case "every":
      return Item("every", (draw(st.integers(1, high + 5)),))
    case "from":
      return Item("from", (draw(value), draw(st.integers(1, high))))
  return Item("span_every", (draw(value), draw(value), draw(st.integers(1, high))))


@st.composite
def day_items(draw: st.DrawFn) -> Item:
  """An item only the day-of-month field knows."""
  word = draw(st.sampled_from(["last", "last_nearest", "nearest"]))
  low, high = (1, 31) if word == "nearest" else (0, 30)
  return Item(word, (draw(st.integers(low, high)),))


@st.composite
def weekday_items(draw: st.DrawFn) -> Item:
  """An item only the day-of-week field knows."""
  weekday = draw(st.integers(0, 6))
  if draw(st.booleans()):
    return Item("last_weekday", (weekday,))
  return Item("nth", (weekday, draw(st.integers(1, 5))))


def fields(name: str, special: st.SearchStrategy[Item] | None = None):
  """A field of one to three items."""
  item = plain_items(name)
  if special is not None:
    item = st.one_of(item, special)
  return st.lists(item, min_size=1, max_size=3).map(tuple)


ANY = st.just((Item("any"),))
FIXED_MINUTES = st.sampled_from(
  [
    (Item("span_every", (0, 59, 15)),),
    (Item("span", (50, 10)),),
    (Item("one", (0,)), Item("one", (30,))),
    (Item("one", (59,)),),
  ]
)
SMALL_HOURS = st.lists(
  st.integers(0, 4).map(lambda hour: Item("one", (hour,))), min_size=1, max_size=3
).map(tuple)
FREE_DAYS = fields("day", day_items()) | st.just((Item("either"),))
FREE_WEEKDAYS = fields("weekday", weekday_items()) | st.just((Item("either"),))


@st.composite
def expressions(draw: st.DrawFn, seconds: bool) -> Expression:
  """An expression; most name hours at which clocks change and leave the day open."""
  return Expression(
    (
      draw(fields("second")) if seconds else (Item("one", (0,)),),
      draw(st.one_of(FIXED_MINUTES, fields("minute"))),
      draw(st.one_of(SMALL_HOURS, SMALL_HOURS, fields("hour"))),
      draw(st.one_of(ANY, ANY, FREE_DAYS)),
      draw(st.one_of(ANY, ANY, ANY, fields("month"))),
      draw(st.one_of(ANY, ANY, FREE_WEEKDAYS)),
    )
  )


@st.composite
def moments(draw: st.DrawFn) -> tuple[str, datetime]:
  """A zone and a moment at a change of its clock, if the year drawn has one."""
  zone = draw(st.sampled_from(ODD_ZONES) | st.sampled_from(ZONES))
  year = draw(st.integers(2000, 2040))
  found = changes(zone, year)
  if found:
    return zone, draw(st.sampled_from(found))
  minute = draw(st.integers(0, 365 * 1440 - 1))
  return zone, datetime(year, 1, 1, tzinfo=UTC) + minute * MINUTE


POLICIES = st.tuples(
  st.sampled_from(["shift", "skip"]), st.sampled_from(["first", "both", "last"])
)


def compare(
  expression: Expression,
  zone: str,
  span: tuple[datetime, datetime],
  policy: tuple[str, str],
  unit: timedelta,
) -> None:
  """Assert that the implementation fires when the search says so."""
  gap, fold = policy
  after, until = span
  expected = [
    fire
    for fire in search(
      expression,
      ZoneInfo(zone),
      after - 1.3 * DAY,
      until + 1.3 * DAY,
      gap=gap,
      fold=fold,
      unit=unit,
    )
    if after < fire <= until
  ]
  timing = make_timing(expression, zone, policy)
  if timing is None:
    assert expected == []
    return
  found = fire_times(timing, after=after, until=until, limit=100_000)
  assert found == expected, (expression.text, zone, policy)
  following = next_fire(timing, after=after)
  if expected:
    assert following == expected[0]
  else:
    assert following is None or following > until


def make_timing(
  expression: Expression, zone: str, policy: tuple[str, str]
) -> Timing | None:
  """The definition for the implementation; None when it is refused as impossible."""
  gap, fold = policy
  try:
    return Timing(
      kind="cron",
      cron_expression=expression.text,
      timezone=zone,
      dst=DstPolicy(gap=gap, fold=fold),
    )
  except ScheduleError as error:
    if "never fire" not in str(error):
      raise
    return None


@examples(220)
@given(expressions(False), moments(), POLICIES, st.integers(-900, 900))
def test_every_minute_job_fires_exactly_when_a_search_says_so(
  expression, moment, policy, shift
):
  zone, change = moment
  middle = change + shift * MINUTE
  compare(expression, zone, (middle - 0.7 * DAY, middle + 0.7 * DAY), policy, MINUTE)


@examples(8)
@given(expressions(True), moments(), POLICIES)
def test_every_second_job_fires_exactly_when_a_search_says_so(
  expression, moment, policy
):
  zone, change = moment
  span = (change - timedelta(hours=2), change + timedelta(hours=2))
  compare(expression, zone, span, policy, SECOND)


@examples(60)
@given(
  fields("day", day_items()) | st.just((Item("either"),)),
  fields("month"),
  fields("weekday", weekday_items()) | st.just((Item("either"),)),
  st.integers(1970, 2190),
)
def test_dates_over_years_are_those_a_day_by_day_search_finds(
  days, months, weekdays, year
):
  zero, noon_hour = (Item("one", (0,)),), (Item("one", (12,)),)
  expression = Expression((zero, zero, noon_hour, days, months, weekdays))
  timing = make_timing(expression, "UTC", ("shift", "first"))
  noon = datetime(year, 1, 1, 12, tzinfo=UTC)
  expected = [
    noon + n * DAY for n in range(1461) if expression.on_day((noon + n * DAY).date())
  ]
  if timing is None:
    assert expected == []
    return
  found = fire_times(timing, after=noon - DAY, until=noon + 1460 * DAY, limit=2000)
  assert found == expected, expression.text


@examples(60)
@given(expressions(False), moments(), POLICIES, st.lists(st.integers(0, 2_000_000)))
def test_a_chain_of_next_fires_is_the_list_of_fire_times(
  expression, moment, policy, offsets
):
  zone, change = moment
  timing = make_timing(expression, zone, policy)
  if timing is None:
    return
  after = change - 2 * DAY
  fires = fire_times(timing, after=after, until=change + 400 * DAY, limit=60)
  assert fires == sorted(set(fires))
  at = after
  for fire in fires:
    assert next_fire(timing, after=at) == fire
    assert next_fire(timing, after=fire - timedelta(microseconds=1)) == fire
    at = fire


def test_the_segments_of_a_zone_hold_every_offset_of_every_three_hours():
  zones = ODD_ZONES if EFFORT == 1 else ZONES
  for name in zones:
    zone = load_zone(name)
    for instant in range(10 * 365 * 86_400, 70 * 365 * 86_400, 10_800 * 3 + 60):
      segment = segment_at(zone, instant)
      offset = datetime.fromtimestamp(instant, zone).utcoffset()
      assert offset is not None
      assert segment.offset == offset.total_seconds(), (name, instant)
      assert segment.start <= instant < segment.end
