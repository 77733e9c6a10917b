"""iCalendar files as dates: what an event takes, what recurs, what is refused."""

import time
from datetime import date, datetime, timedelta

import pytest
from dateutil.rrule import rrulestr
from hypothesis import given
from hypothesis import strategies as st
from schedule_oracle import examples

from hetuflow.errors import ScheduleError
from hetuflow.schedule import Calendar, import_definition, import_ics

DAY = timedelta(days=1)
FIRST, LAST = date(2026, 1, 1), date(2027, 12, 31)
WEEKDAYS = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"]


def file_of(*events: str) -> str:
  """A file of events, each given by its lines."""
  listed = [
    f"BEGIN:VEVENT\nUID:{number}\n{event}\nEND:VEVENT\n"
    for number, event in enumerate(events)
  ]
  return f"BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:test\n{''.join(listed)}END:VCALENDAR\n"


def dates(*events: str, first: date = FIRST, last: date = LAST) -> list[object]:
  """The dates of a file of events."""
  return import_ics(file_of(*events), first=first, last=last)


def test_an_event_of_whole_days_ends_before_its_end():
  assert dates("DTSTART;VALUE=DATE:20260105\nDTEND;VALUE=DATE:20260106") == [
    "2026-01-05"
  ]
  assert dates("DTSTART;VALUE=DATE:20260105\nDTEND;VALUE=DATE:20260108") == [
    {"from": "2026-01-05", "to": "2026-01-07"}
  ]
  assert dates("DTSTART;VALUE=DATE:20260105") == ["2026-01-05"]
  assert dates("DTSTART;VALUE=DATE:20260105\nDURATION:P2D") == [
    {"from": "2026-01-05", "to": "2026-01-06"}
  ]


def test_an_event_with_times_takes_the_days_its_wall_shows():
  assert dates("DTSTART:20260105T220000\nDTEND:20260106T000000") == ["2026-01-05"]
  assert dates("DTSTART:20260105T220000\nDTEND:20260106T000001") == [
    {"from": "2026-01-05", "to": "2026-01-06"}
  ]
  # 23:30 UTC is the next day in Tokyo, where the event begins.
  tokyo = "DTSTART;TZID=Asia/Tokyo:20260105T090000\nDTEND:20260105T233000Z"
  assert dates(tokyo) == [{"from": "2026-01-05", "to": "2026-01-06"}]


def test_days_on_end_become_one_span_and_files_may_hold_several_calendars():
  events = [f"DTSTART;VALUE=DATE:2026010{n}" for n in (7, 5, 6, 6, 9)]
  both = file_of(*events[:2]) + file_of(*events[2:])
  assert import_ics(both, first=FIRST, last=LAST) == [
    {"from": "2026-01-05", "to": "2026-01-07"},
    "2026-01-09",
  ]


def test_only_the_span_asked_for_is_taken():
  events = (
    "DTSTART;VALUE=DATE:20251230\nDTEND;VALUE=DATE:20260103",
    "DTSTART;VALUE=DATE:20280101",
    "DTSTART;VALUE=DATE:20271231\nDTEND;VALUE=DATE:99991231",
    "DTSTART;VALUE=DATE:20200101\nDTEND;VALUE=DATE:20200201\nRRULE:FREQ=YEARLY",
  )
  assert dates(*events, last=date(2026, 6, 1)) == [
    {"from": "2026-01-01", "to": "2026-01-31"}
  ]
  assert dates(*events)[-1] == "2027-12-31"
  assert dates(*events, first=LAST, last=FIRST) == []


def test_exceptions_additions_and_changes_of_what_recurs_are_heeded():
  series = (
    "DTSTART;VALUE=DATE:20260105\nRRULE:FREQ=WEEKLY;COUNT=4\n"
    "EXDATE;VALUE=DATE:20260112\nRDATE;VALUE=DATE:20260220,20260222"
  )
  moved = "RECURRENCE-ID;VALUE=DATE:20260119\nDTSTART;VALUE=DATE:20260121"
  text = file_of(series, moved).replace("UID:1", "UID:0")
  assert import_ics(text, first=FIRST, last=LAST) == [
    "2026-01-05",
    "2026-01-21",
    "2026-01-26",
    "2026-02-20",
    "2026-02-22",
  ]
  cancelled = file_of(series, f"{moved}\nSTATUS:CANCELLED").replace("UID:1", "UID:0")
  assert "2026-01-21" not in import_ics(cancelled, first=FIRST, last=LAST)
  assert "2026-01-19" not in import_ics(cancelled, first=FIRST, last=LAST)


def test_exceptions_in_utc_meet_the_day_on_the_wall_of_the_event():
  event = (
    "DTSTART;TZID=Asia/Tokyo:20260105T080000\nDURATION:PT1H\n"
    "RRULE:FREQ=DAILY;COUNT=3\nEXDATE:20260105T230000Z"
  )
  assert dates(event) == ["2026-01-05", "2026-01-07"]


@pytest.mark.parametrize(
  ("until", "last"),
  [
    ("20260107", "2026-01-07"),
    ("20260107T073000Z", "2026-01-07"),
    ("20260107T072959Z", "2026-01-06"),
    ("20260106T233000Z", "2026-01-06"),
  ],
)
def test_what_recurs_ends_with_until(until, last):
  event = f"DTSTART;TZID=Europe/Berlin:20260105T083000\nRRULE:FREQ=DAILY;UNTIL={until}"
  assert dates(event) == [{"from": "2026-01-05", "to": last}]


def test_a_cancelled_event_takes_no_days():
  assert dates("DTSTART;VALUE=DATE:20260105\nSTATUS:CANCELLED") == []


FREQUENCIES = st.sampled_from(["DAILY", "WEEKLY", "MONTHLY", "YEARLY"])


@st.composite
def rules(draw: st.DrawFn) -> str:
  """An RRULE of what is taken, mostly of few parts."""
  frequency = draw(FREQUENCIES)
  parts = [f"FREQ={frequency}"]

  def maybe(name: str, values: st.SearchStrategy[object]) -> None:
    """Add a part, or not."""
    if draw(st.integers(0, 3)) == 0:
      listed = draw(st.lists(values, min_size=1, max_size=3, unique=True))
      parts.append(f"{name}={','.join(map(str, listed))}")

  if draw(st.booleans()):
    parts.append(f"INTERVAL={draw(st.integers(1, 5))}")
  if draw(st.booleans()):
    parts.append(f"COUNT={draw(st.integers(1, 40))}")
  if draw(st.booleans()):
    parts.append(f"WKST={draw(st.sampled_from(WEEKDAYS))}")
  # With and without numbers in one rule, dateutil demands both where either is meant.
  numbers = st.just("")
  if frequency in ("MONTHLY", "YEARLY") and draw(st.booleans()):
    numbers = st.integers(-5, 5).filter(bool).map(str)
  maybe("BYMONTH", st.integers(1, 12))
  if frequency != "WEEKLY":
    maybe("BYMONTHDAY", st.integers(-31, 31).filter(bool))
  if frequency == "YEARLY":
    maybe("BYYEARDAY", st.integers(-366, 366).filter(bool))
  maybe("BYDAY", st.builds("{}{}".format, numbers, st.sampled_from(WEEKDAYS)))
  if len(parts) > 1 and any(part.startswith("BY") for part in parts):
    maybe("BYSETPOS", st.integers(-5, 5).filter(bool))
  return ";".join(parts)


def written_out(found: list[object]) -> list[date]:
  """The days of the dates of a file, one by one."""
  days = []
  for entry in found:
    ends = entry if isinstance(entry, dict) else {"from": entry, "to": entry}
    day = date.fromisoformat(ends["from"])
    while day <= date.fromisoformat(ends["to"]):
      days.append(day)
      day += DAY
  return days


@examples(250)
@given(rules(), st.dates(date(2024, 1, 1), date(2026, 6, 30)), st.integers(0, 900))
def test_what_recurs_is_what_dateutil_unrolls(rule, start, later):
  first, last = start + later * DAY, start + (later + 1500) * DAY
  midnight = datetime.combine(start, datetime.min.time())
  if "COUNT" in rule:
    # The start is always the first date; dateutil counts it only when the rule names it.
    count = int(rule.split("COUNT=")[1].split(";")[0])
    free = rule.replace(f";COUNT={count}", "")
    named = _unrolled(free, midnight, last)
    expected = sorted({start, *named})[:count]
  else:
    expected = sorted({start, *_unrolled(rule, midnight, last)})
  wanted = [day for day in expected if first <= day <= last]
  event = f"DTSTART;VALUE=DATE:{start:%Y%m%d}\nRRULE:{rule}"
  assert written_out(dates(event, first=first, last=last)) == wanted, rule


def _unrolled(rule: str, start: datetime, last: date) -> list[date]:
  """The dates of a rule up to one, as dateutil sees them."""
  text = f"{rule};UNTIL={last:%Y%m%d}T000000"
  with pytest.MonkeyPatch.context() as patch:
    # For a rule that names no date it would search until the year 9999.
    patch.setattr("datetime.MAXYEAR", last.year + 1)
    return [moment.date() for moment in rrulestr(text, dtstart=start)]


@pytest.mark.parametrize(
  "rule",
  [
    "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30",
    "FREQ=DAILY;INTERVAL=7;BYDAY=TU",
    "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30;COUNT=5",
    "FREQ=DAILY;COUNT=1000000",
    "FREQ=YEARLY;INTERVAL=10000",
  ],
)
def test_a_rule_that_names_little_or_much_is_unrolled_in_bounded_time(rule):
  begun = time.process_time()
  found = dates(f"DTSTART;VALUE=DATE:16040105\nRRULE:{rule}", last=date(2199, 12, 31))
  assert time.process_time() - begun < 5
  assert len(found) <= 1


def test_too_much_recurrence_is_refused():
  event = "DTSTART;VALUE=DATE:19700101\nRRULE:FREQ=DAILY;BYMONTHDAY=31"
  with pytest.raises(ScheduleError, match="too much recurs") as refused:
    dates(*[event] * 40, first=date(1970, 1, 1), last=date(2199, 12, 31))
  assert refused.value.field == "definition.ics"


@pytest.mark.parametrize(
  ("text", "reason"),
  [
    (None, "expected the text"),
    (b"BEGIN:VCALENDAR", "expected the text"),
    ("x" * 1_000_001, "at most 1000000"),
    ("", "BEGIN:VCALENDAR"),
    ("<html>", "not an .ics file"),
    ("BEGIN:VCALENDAR\n", "END:VCALENDAR"),
    ("BEGIN:VEVENT\nDTSTART:20260101\nEND:VEVENT\n", "BEGIN:VCALENDAR"),
    (file_of("SUMMARY:Feast"), "'Feast': No DTSTART"),
    (file_of("DTSTART:soon"), "DTSTART"),
    (file_of("DTSTART;VALUE=DATE:20260105\nDTEND;VALUE=DATE:never"), "DTEND"),
    (file_of("DTSTART;VALUE=DATE:20260105\nRRULE:FREQ=HOURLY"), "HOURLY is not"),
    (file_of("DTSTART;VALUE=DATE:20260105\nRRULE:COUNT=3"), "no frequency"),
    (file_of("DTSTART;VALUE=DATE:20260105\nRRULE:FREQ=DAILY;BYHOUR=1"), "BYHOUR"),
    (file_of("DTSTART;VALUE=DATE:20260105\nRRULE:FREQ=YEARLY;BYWEEKNO=1"), "BYWEEKNO"),
    (file_of("DTSTART;VALUE=DATE:20260105\nRRULE:FREQ=WEEKLY;BYDAY=1MO"), "BYDAY"),
    (file_of("DTSTART;VALUE=DATE:20260105\nRRULE:FREQ=YEARLY;BYMONTH=13"), "13"),
    (file_of("DTSTART;VALUE=DATE:20260105\nRRULE:FREQ=DAILY;INTERVAL=0"), "INTERVAL"),
    (
      file_of("DTSTART;VALUE=DATE:20260105\nRRULE:FREQ=DAILY;WKST=XX"),
      "RRULE Expected weekday",
    ),
    (file_of("DTSTART;VALUE=DATE:20260105\nRDATE;VALUE=PERIOD:bad"), "RDATE"),
    (
      file_of(
        "DTSTART:20260105T000000Z\nRDATE;VALUE=PERIOD:20260106T000000Z/20260108T000000Z"
      ),
      "a period is not taken",
    ),
    (
      file_of(
        "DTSTART;VALUE=DATE:20260105\nRECURRENCE-ID;RANGE=THISANDFUTURE:20260105"
      ),
      "RANGE is not taken",
    ),
    (
      file_of("DTSTART;VALUE=DATE:20260105\nEXRULE:FREQ=DAILY"),
      "EXRULE is not taken",
    ),
  ],
)
def test_what_is_not_understood_is_refused_with_its_reason(text, reason):
  with pytest.raises(ScheduleError, match=reason) as refused:
    import_ics(text, first=FIRST, last=LAST)
  assert refused.value.field == "definition.ics"


def test_a_definition_is_kept_with_the_dates_of_its_file():
  wish = {
    "dates": ["2026-03-03"],
    "weekly": ["sun"],
    "ics": file_of("DTSTART;VALUE=DATE:20260105"),
  }
  kept = import_definition(wish, first=FIRST, last=LAST)
  assert kept == {"dates": ["2026-03-03", "2026-01-05"], "weekly": ["sun"]}
  assert Calendar.parse(kept).contains(date(2026, 1, 5))
  assert import_definition(kept, first=FIRST, last=LAST) == kept
  assert "ics" in wish


@pytest.mark.parametrize(
  ("field", "wish"),
  [
    ("definition.ics", {"ics": 5}),
    ("definition.dates", {"ics": file_of(), "dates": "2026-01-01"}),
    ("definition.weekly[0]", {"ics": file_of(), "weekly": ["x"]}),
    ("definition.url", {"url": "https://example.org/x.ics"}),
  ],
)
def test_a_wrong_definition_is_refused_when_it_is_imported(field, wish):
  with pytest.raises(ScheduleError) as refused:
    import_definition(wish, first=FIRST, last=LAST)
  assert refused.value.field == field
