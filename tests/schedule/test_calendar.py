"""A calendar: which dates it holds, and what is no calendar."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schedule_oracle import examples

from hetuflow.errors import ScheduleError
from hetuflow.schedule import Calendar, CalendarUse

DAY = timedelta(days=1)
NAMES = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
BAVARIA = {"country": "DE", "subdivision": "BY"}


def held(definition: dict[str, object], first: date, last: date) -> list[str]:
  """The dates of a span that a calendar holds, as ISO text."""
  calendar = Calendar.parse(definition)
  days = [first + n * DAY for n in range((last - first).days + 1)]
  return [day.isoformat() for day in days if calendar.contains(day)]


def test_a_calendar_holds_single_dates_and_spans_with_both_ends():
  dates = ["2026-12-24", {"from": "2026-12-31", "to": "2027-01-02"}]
  assert held({"dates": dates}, date(2026, 12, 1), date(2027, 1, 31)) == [
    "2026-12-24",
    "2026-12-31",
    "2027-01-01",
    "2027-01-02",
  ]


def test_a_calendar_holds_days_of_the_week():
  assert held({"weekly": ["sat", "sun"]}, date(2026, 1, 1), date(2026, 1, 12)) == [
    "2026-01-03",
    "2026-01-04",
    "2026-01-10",
    "2026-01-11",
  ]


def test_a_calendar_holds_the_holidays_of_a_part_of_a_country():
  found = held({"holidays": BAVARIA}, date(2026, 1, 1), date(2026, 12, 31))
  everywhere = held(
    {"holidays": {"country": "DE", "subdivision": None}},
    date(2026, 1, 1),
    date(2026, 12, 31),
  )
  assert {"2026-01-01", "2026-10-03", "2026-12-26"} <= set(everywhere)
  assert {"2026-01-06", "2026-06-04", "2026-11-01"} <= set(found) - set(everywhere)


def test_a_category_of_holidays_can_be_chosen():
  wish = {"holidays": BAVARIA | {"categories": ["catholic"]}}
  found = held(wish, date(2026, 1, 1), date(2026, 12, 31))
  assert found == ["2026-08-15"]


def test_years_the_library_knows_nothing_of_have_no_holidays_and_no_warning():
  wish = {"holidays": {"country": "IN", "subdivision": "MH"}}
  assert "2026-01-26" in held(wish, date(2026, 1, 1), date(2026, 12, 31))
  assert isinstance(held(wish, date(2150, 1, 1), date(2150, 12, 31)), list)


def test_exceptions_are_taken_out_whatever_put_them_in():
  definition = {
    "dates": [{"from": "2026-01-01", "to": "2026-01-04"}],
    "weekly": ["sat"],
    "holidays": BAVARIA,
    "except": ["2026-01-01", {"from": "2026-01-03", "to": "2026-01-10"}],
  }
  assert held(definition, date(2026, 1, 1), date(2026, 1, 18)) == [
    "2026-01-02",
    "2026-01-17",
  ]


def test_nothing_is_held_before_1970_or_after_2199():
  calendar = Calendar.parse({"weekly": NAMES})
  days = (date(1969, 12, 31), date(1970, 1, 1), date(2199, 12, 31), date(2200, 1, 1))
  assert [calendar.contains(day) for day in days] == [False, True, True, False]


def test_equal_definitions_are_equal_calendars():
  first = Calendar.parse({"dates": ["2026-01-02", "2026-01-01"], "weekly": ["sat"]})
  second = Calendar.parse(
    {"dates": [{"from": "2026-01-01", "to": "2026-01-02"}], "weekly": ["sat", "sat"]}
  )
  first.year(2026)  # what has been worked out does not tell them apart
  assert first == second
  assert hash(first) == hash(second)


DAYS = st.dates(date(1970, 1, 1), date(2199, 12, 31))
SPANS = st.lists(
  st.tuples(DAYS, st.integers(0, 800)).filter(lambda span: span[0].year < 2190),
  max_size=6,
)


@examples(60)
@given(SPANS, SPANS, st.sets(st.sampled_from(NAMES)), st.data())
def test_a_date_is_held_when_a_part_holds_it_and_no_exception_does(
  spans, exceptions, weekly, data
):
  def written(listed):
    """Spans as they stand in a definition."""
    return [
      {"from": day.isoformat(), "to": (day + length * DAY).isoformat()}
      for day, length in listed
    ]

  calendar = Calendar.parse(
    {"dates": written(spans), "weekly": sorted(weekly), "except": written(exceptions)}
  )
  ends = [day + n * DAY for day, length in spans + exceptions for n in (0, length)]
  near = [end + n * DAY for end in ends for n in (-1, 0, 1)]
  near = [day for day in near if day.year >= 1970]
  for day in [*near, *data.draw(st.lists(DAYS, min_size=5, max_size=5))]:

    def among(listed, day=day):
      """Whether a span holds the day."""
      return any(start <= day <= start + length * DAY for start, length in listed)

    wanted = among(spans) or NAMES[day.weekday()] in weekly
    assert calendar.contains(day) == (wanted and not among(exceptions))


@pytest.mark.parametrize(
  ("field", "definition"),
  [
    ("definition", None),
    ("definition", []),
    ("definition", {}),
    ("definition", {"except": ["2026-01-01"]}),
    ("definition.days", {"days": []}),
    ("definition.ics", {"ics": "BEGIN:VCALENDAR"}),
    ("definition.dates", {"dates": "2026-01-01"}),
    ("definition.dates", {"dates": ["2026-01-01"] * 20_001}),
    ("definition.dates[1]", {"dates": ["2026-01-01", "2026-02-30"]}),
    ("definition.dates[0]", {"dates": ["20260101"]}),
    ("definition.dates[0]", {"dates": ["2026-W01-1"]}),
    ("definition.dates[0]", {"dates": ["1969-12-31"]}),
    ("definition.dates[0]", {"dates": ["2200-01-01"]}),
    ("definition.dates[0]", {"dates": [20260101]}),
    ("definition.dates[0]", {"dates": [None]}),
    ("definition.dates[0]", {"dates": [{"from": "2026-01-01"}]}),
    (
      "definition.dates[0]",
      {"dates": [{"from": "2026-01-01", "to": "2026-01-02", "by": 1}]},
    ),
    ("definition.dates[0].from", {"dates": [{"from": 1, "to": "2026-01-02"}]}),
    (
      "definition.dates[0].to",
      {"dates": [{"from": "2026-01-02", "to": "2026-01-01"}]},
    ),
    ("definition.except[0]", {"weekly": [], "except": ["tomorrow"]}),
    ("definition.weekly", {"weekly": "sat"}),
    ("definition.weekly[1]", {"weekly": ["sat", "Sunday"]}),
    ("definition.weekly[0]", {"weekly": [6]}),
    ("definition.weekly[0]", {"weekly": [["sat"]]}),
    ("definition.holidays", {"holidays": "DE"}),
    ("definition.holidays", {"holidays": {}}),
    ("definition.holidays", {"holidays": {"country": 49}}),
    ("definition.holidays.state", {"holidays": {"country": "DE", "state": "BY"}}),
    ("definition.holidays.country", {"holidays": {"country": "XX"}}),
    ("definition.holidays.country", {"holidays": {"country": "de"}}),
    ("definition.holidays.country", {"holidays": {"country": "HolidayBase"}}),
    ("definition.holidays.country", {"holidays": {"country": "__name__"}}),
    (
      "definition.holidays.subdivision",
      {"holidays": {"country": "DE", "subdivision": "XY"}},
    ),
    (
      "definition.holidays.subdivision",
      {"holidays": {"country": "DE", "subdivision": 7}},
    ),
    (
      "definition.holidays.categories",
      {"holidays": {"country": "DE", "categories": ["pagan"]}},
    ),
    (
      "definition.holidays.categories",
      {"holidays": {"country": "DE", "categories": "public"}},
    ),
  ],
)
def test_a_wrong_definition_is_refused_by_field(field, definition):
  with pytest.raises(ScheduleError) as refused:
    Calendar.parse(definition)
  assert refused.value.field == field


def test_every_country_the_library_lists_answers():
  import holidays

  for country in holidays.list_supported_countries(include_aliases=True):
    calendar = Calendar.parse({"holidays": {"country": country}})
    assert calendar.year(2026).bit_length() <= 365, country


def test_an_unknown_mode_is_refused():
  with pytest.raises(ScheduleError, match="include, exclude, next") as refused:
    CalendarUse(calendar=Calendar.parse({"weekly": []}), mode="skip")
  assert refused.value.field == "calendars"
