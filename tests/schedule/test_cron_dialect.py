"""Every word of the cron dialect, and what is refused."""

from datetime import UTC, datetime, timedelta

import pytest
from croniter import croniter
from schedule_oracle import utc

from hetuflow.errors import ScheduleError
from hetuflow.schedule import CronExpression, Timing, fire_times, next_fire, preview

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # wall times have no zone


def walls(text: str, start: str, count: int, hash_key: str | None = None) -> list[str]:
  """The first wall times of an expression, as short ISO text."""
  expression = CronExpression.parse(text, hash_key=hash_key)
  at = (datetime.fromisoformat(start) - EPOCH) // timedelta(seconds=1)
  found = []
  for _ in range(count):
    at = expression.next_wall(at)
    found.append((EPOCH + timedelta(seconds=at)).isoformat())
    at += 1
  return found


def days(text: str, start: str, count: int) -> list[str]:
  """The first dates of an expression."""
  return [wall[:10] for wall in walls(text, start, count)]


def test_five_fields_begin_with_the_minute():
  assert walls("5 4 * * *", "2025-01-01", 2) == [
    "2025-01-01T04:05:00",
    "2025-01-02T04:05:00",
  ]


def test_six_fields_begin_with_the_second():
  assert walls("15,45 30 4 * * *", "2025-01-01T04:30:20", 2) == [
    "2025-01-01T04:30:45",
    "2025-01-02T04:30:15",
  ]


def test_seven_fields_end_with_the_year():
  assert walls("0 0 0 1 1 ? 2030/50", "2025-01-01", 3) == [
    "2030-01-01T00:00:00",
    "2080-01-01T00:00:00",
    "2130-01-01T00:00:00",
  ]


@pytest.mark.parametrize(
  ("macro", "fields"),
  [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    (" @DAILY ", "0 0 * * *"),
  ],
)
def test_a_macro_stands_for_its_fields(macro, fields):
  assert walls(macro, "2025-03-05", 5) == walls(fields, "2025-03-05", 5)


@pytest.mark.parametrize(
  ("field", "selected"),
  [
    ("*", tuple(range(24))),
    ("7", (7,)),
    ("07", (7,)),
    ("1,3,2", (1, 2, 3)),
    ("1-4", (1, 2, 3, 4)),
    ("4-4", (4,)),
    ("22-2", (0, 1, 2, 22, 23)),
    ("*/6", (0, 6, 12, 18)),
    ("*/60", (0,)),
    ("5/6", (5, 11, 17, 23)),
    ("5-20/6", (5, 11, 17)),
    ("22-3/2", (0, 2, 22)),
    ("1-3,20-22/2,9", (1, 2, 3, 9, 20, 22)),
    ("*,3", tuple(range(24))),
  ],
)
def test_an_hour_field_selects(field, selected):
  assert CronExpression.parse(f"0 {field} * * *").hours == selected


@pytest.mark.parametrize(
  ("field", "selected"),
  [
    ("0", (0,)),
    ("7", (0,)),
    ("sun", (0,)),
    ("SAT-SUN", (0, 6)),
    ("6-7", (0, 6)),
    ("5-7", (0, 5, 6)),
    ("7-2", (0, 1, 2)),
    ("fri-Mon", (0, 1, 5, 6)),
    ("0-7", tuple(range(7))),
    ("0-7/2", (0, 2, 4, 6)),
    ("1-7/2", (0, 1, 3, 5)),
    ("2/2", (2, 4, 6)),
    ("Mon,Wed,FRI", (1, 3, 5)),
  ],
)
def test_a_weekday_field_selects(field, selected):
  expression = CronExpression.parse(f"0 0 * * {field}")
  assert expression.day_rule.weekdays.values == selected


def test_months_have_names_and_run_over_the_end_of_the_year():
  assert CronExpression.parse("0 0 1 nov-feb,Jun *").months == (1, 2, 6, 11, 12)


def test_days_of_the_month_run_over_its_end():
  assert days("0 0 30-2 * *", "2025-02-01", 6) == [
    "2025-02-01",
    "2025-02-02",
    "2025-03-01",
    "2025-03-02",
    "2025-03-30",
    "2025-03-31",
  ]


def test_l_is_the_last_day_of_each_month():
  assert days("0 0 L * *", "2024-01-15", 4) == [
    "2024-01-31",
    "2024-02-29",
    "2024-03-31",
    "2024-04-30",
  ]


def test_l_with_an_offset_counts_back_and_leaves_short_months_out():
  assert days("0 0 L-3 2 *", "2025-01-01", 2) == ["2025-02-25", "2026-02-25"]
  assert days("0 0 L-29 1-4 *", "2025-01-01", 3) == [
    "2025-01-02",
    "2025-03-02",
    "2025-04-01",
  ]


def test_lw_is_the_last_weekday_of_the_month():
  # 31 May 2025 is a Saturday, 30 November 2025 a Sunday.
  assert days("0 0 LW 5,6,11 *", "2025-01-01", 3) == [
    "2025-05-30",
    "2025-06-30",
    "2025-11-28",
  ]


def test_w_is_the_nearest_weekday_and_never_leaves_the_month():
  # 1 Feb 2025 is a Saturday, 15 June 2025 a Sunday, 31 August 2025 a Sunday.
  assert days("0 0 1W 2 *", "2025-01-01", 1) == ["2025-02-03"]
  assert days("0 0 15W 6 *", "2025-01-01", 1) == ["2025-06-16"]
  assert days("0 0 31W 8 *", "2025-01-01", 1) == ["2025-08-29"]
  assert days("0 0 15W 2 *", "2025-01-01", 1) == ["2025-02-14"]


def test_w_of_a_day_the_month_does_not_have_is_left_out():
  assert days("0 0 31W 4,5 *", "2025-01-01", 2) == ["2025-05-30", "2026-05-29"]


@pytest.mark.parametrize("field", ["5L", "L5", "friL", "FRIL"])
def test_a_weekday_with_l_is_its_last_in_the_month(field):
  assert days(f"0 0 * * {field}", "2025-01-01", 2) == ["2025-01-31", "2025-02-28"]


def test_seven_l_is_the_last_sunday():
  assert days("0 0 * * 7L", "2025-03-01", 1) == ["2025-03-30"]


@pytest.mark.parametrize("field", ["5#2", "fri#2"])
def test_a_weekday_with_a_number_is_the_nth_in_the_month(field):
  assert days(f"0 0 * * {field}", "2025-01-01", 2) == ["2025-01-10", "2025-02-14"]


def test_a_fifth_weekday_is_left_out_where_there_are_four():
  assert days("0 0 ? * mon#5", "2025-01-01", 3) == [
    "2025-03-31",
    "2025-06-30",
    "2025-09-29",
  ]


def test_words_of_the_day_fields_stand_in_lists():
  assert days("0 0 1,15W,L * *", "2025-06-01", 4) == [
    "2025-06-01",
    "2025-06-16",
    "2025-06-30",
    "2025-07-01",
  ]
  assert days("0 0 * * 1#1,5L,3", "2025-01-06", 4) == [
    "2025-01-06",
    "2025-01-08",
    "2025-01-15",
    "2025-01-22",
  ]


def test_either_day_field_matches_when_both_are_restricted():
  assert days("0 0 13 * 5", "2025-01-01", 4) == [
    "2025-01-03",
    "2025-01-10",
    "2025-01-13",
    "2025-01-17",
  ]


def test_both_day_fields_must_match_when_one_begins_with_a_star():
  assert days("0 0 */2 * 5", "2025-01-01", 3) == [
    "2025-01-03",
    "2025-01-17",
    "2025-01-31",
  ]
  assert days("0 0 13 * */5", "2025-01-01", 2) == ["2025-04-13", "2025-06-13"]


def test_a_full_range_is_not_a_star():
  assert days("0 0 1-31 * 5", "2025-01-01", 2) == ["2025-01-01", "2025-01-02"]


def test_a_question_mark_leaves_the_other_day_field_to_decide():
  assert days("0 0 ? * 5", "2025-01-01", 2) == ["2025-01-03", "2025-01-10"]
  assert days("0 0 13 * ?", "2025-01-01", 2) == ["2025-01-13", "2025-02-13"]
  assert days("0 0 ? * ?", "2025-01-01", 2) == ["2025-01-01", "2025-01-02"]


def test_h_is_the_same_for_the_same_key_whatever_the_process():
  # Fixed for ever: a change of these numbers would move every hashed schedule.
  assert walls("H H * * *", "2025-01-01", 1, "schedule-1") == ["2025-01-01T17:07:00"]


def test_h_spreads_keys_over_the_whole_field():
  minutes = {
    CronExpression.parse("H * * * *", hash_key=str(n)).minutes[0] for n in range(2000)
  }
  assert minutes == set(range(60))


def test_h_keeps_to_its_range_and_step():
  for n in range(300):
    key = f"key-{n}"
    (minute,) = CronExpression.parse("H(10-29) * * * *", hash_key=key).minutes
    assert 10 <= minute <= 29
    minutes = CronExpression.parse("H/15 * * * *", hash_key=key).minutes
    assert minutes[0] < 15
    assert minutes == tuple(range(minutes[0], 60, 15))
    minutes = CronExpression.parse("H(0-29)/10 * * * *", hash_key=key).minutes
    assert minutes == (minutes[0], minutes[0] + 10, minutes[0] + 20)
    assert (
      max(CronExpression.parse("0 0 H * *", hash_key=key).day_rule.days.values) < 29
    )


def test_h_of_minute_and_hour_are_independent():
  pairs = set()
  for n in range(500):
    expression = CronExpression.parse("H H * * *", hash_key=str(n))
    pairs.add((expression.minutes, expression.hours))
  assert len(pairs) > 350


def test_h_without_a_key_is_refused():
  with pytest.raises(ScheduleError, match="minute 'H': H needs a key"):
    CronExpression.parse("H * * * *")


def test_the_29th_of_february_skips_the_century():
  assert days("0 0 29 2 *", "2095-01-01", 3) == [
    "2096-02-29",
    "2104-02-29",
    "2108-02-29",
  ]


def test_a_leap_day_on_a_sunday_is_found_decades_ahead():
  assert days("0 0 29 2 */7", "2025-01-01", 2) == ["2032-02-29", "2060-02-29"]


def test_nothing_fires_after_2199():
  timing = Timing(kind="cron", cron_expression="0 0 31 12 *")
  assert next_fire(timing, after=utc("2199-01-01")) == utc("2199-12-31")
  assert next_fire(timing, after=utc("2199-12-31")) is None
  assert next_fire(timing, after=datetime.max.replace(tzinfo=UTC)) is None


def test_a_moment_long_ago_is_answered_from_1970_on():
  timing = Timing(kind="cron", cron_expression="0 0 1 1 *")
  assert next_fire(timing, after=datetime.min.replace(tzinfo=UTC)) == utc("1970-01-01")


def test_wildcards_are_known_by_the_minute_or_hour_field():
  assert CronExpression.parse("*/5 2 * * *").wildcard
  assert CronExpression.parse("5 * * * *").wildcard
  assert CronExpression.parse("@hourly").wildcard
  assert not CronExpression.parse("* 5 2 * * *").wildcard
  assert not CronExpression.parse("0-59 0-23 * * *").wildcard


def test_equal_texts_share_one_parsed_expression():
  first = CronExpression.parse("1 2 3 4 *", hash_key="a")
  assert CronExpression.parse("1 2 3 4 *", hash_key="b") is first


@pytest.mark.parametrize(
  "text",
  [
    "* * * * *",
    "*/7 * * * *",
    "5/13 3-20/4 * * *",
    "0 22-2 * * *",
    "17 4 1,15 * *",
    "0 0 31 * *",
    "0 0 L * *",
    "30 6 * * 1-5",
    "30 6 * * sat-mon",
    "0 12 13 * 5",
    "0 12 1 jan,jul 0",
    "0 0 29 2 *",
    "0 0 * * 5#3",
    "0 0 * * L5",
    "15 10 * 2-11/3 *",
    "0 0 28-3 * *",
    "*/20 15 10 * * *",
    "1 2 3 4 5 * 2030-2050/5",
  ],
)
def test_plain_expressions_agree_with_croniter(text):
  start = utc("2024-01-31T22:17:05")
  timing = Timing(kind="cron", cron_expression=text)
  found = preview(timing, start=start, count=25)
  other = croniter(text, start, second_at_beginning=True, max_years_between_matches=60)
  assert found == [other.get_next(datetime) for _ in found]


BAD_IN_EVERY_FIELD = [
  *["-", "--1", "-1", "1-", "1--2", "1-2-3", "1/2/3", "*/0", "*/", "/", "/5", "5/"],
  *["**", "*1", "1*", "*-5", "5-*", "1,,2", ",1", "1,", ",", "+1", "1.5", "0x1", "1e0"],
  *["abc", "ab", "monday", "#", "1#", "#1", "1W2", "WL", "LL", "L-", "W", "%", "$(1)"],
  *["H(", "H()", "H(5-2)", "H(1)", "H/0", "HH", "h(0-9999)", "1;2", "٣", "1-2/0"],
  *["99999", "12345678901234567890", "9999", "?1", "1?", "*?", "~", "1~3"],
]
BAD_BY_FIELD = {
  "second": ["60", "59-60", "JAN", "SUN", "L", "LW", "5L", "1#2", "15W", "?", "60/5"],
  "minute": ["60", "75", "0-60", "JAN", "SUN", "L", "LW", "5L", "1#2", "?", "H(0-60)"],
  "hour": ["24", "0-24", "25/2", "JAN", "SUN", "L", "LW", "5L", "1#2", "?", "H/30"],
  "day of month": [
    "0",
    "32",
    "0-5",
    "JAN",
    "SUN",
    "L5",
    "5L",
    "1#2",
    "0W",
    "32W",
    "L-31",
  ],
  "month": ["0", "13", "0-5", "SUN", "JAM", "L", "LW", "5L", "1#2", "15W", "?", "jan-"],
  "day of week": [
    "8",
    "0-8",
    "JAN",
    "SUX",
    "L",
    "LW",
    "15W",
    "1#0",
    "1#6",
    "8#1",
    "8L",
  ],
  "year": ["0", "1969", "2200", "2030-2020", "25", "JAN", "L", "5L", "1#2", "?", "H"],
}
BAD_FIELDS = [
  (index, name, bad)
  for index, name in enumerate(BAD_BY_FIELD)
  for bad in BAD_IN_EVERY_FIELD + BAD_BY_FIELD[name]
]


@pytest.mark.parametrize(("index", "name", "bad"), BAD_FIELDS)
def test_a_bad_field_is_refused_by_name_with_what_is_allowed(index, name, bad):
  fields = ["0", "0", "0", "1", "1", "*", "*"]
  fields[index] = bad
  with pytest.raises(ScheduleError) as refused:
    CronExpression.parse(" ".join(fields), hash_key="key")
  assert refused.value.field == "cron_expression"
  if bad.isascii():
    assert f"{name} {bad.upper()!r}: " in str(refused.value)
    assert "; allowed: " in str(refused.value)


def test_at_least_four_hundred_bad_fields_are_tried():
  assert len(BAD_FIELDS) >= 400


@pytest.mark.parametrize(
  ("text", "reason"),
  [
    ("", "0 fields"),
    ("   ", "0 fields"),
    ("* * * *", "4 fields"),
    ("* * * * * * * *", "8 fields"),
    ("@reboot", "names an event"),
    ("@fortnightly", "not known"),
    ("@daily @daily", "2 fields"),
    ("* * * * @daily", "day of week '@DAILY'"),
    ("0 0 30 2 *", "never fire"),
    ("0 0 31 4,6,9,11 *", "never fire"),
    ("0 0 31W 2 *", "never fire"),
    ("0 0 L-30 2,4 *", "never fire"),
    ("0 0 0 29 2 ? 2023", "never fire"),
    ("0 0 0 29 2 ? 2100", "never fire"),
    ("0 0 */30 2 *", None),
    ("0 0 1 * *" + " " * 2000, "at most"),
  ],
)
def test_a_bad_expression_is_refused_with_its_reason(text, reason):
  if reason is None:
    assert CronExpression.parse(text)
    return
  with pytest.raises(ScheduleError, match=reason):
    CronExpression.parse(text)


def test_a_restricted_weekday_saves_an_impossible_date():
  assert days("0 0 30 2 1", "2025-01-01", 2) == ["2025-02-03", "2025-02-10"]


def test_a_year_of_seconds_is_not_stepped_through():
  timing = Timing(kind="cron", cron_expression="59 59 23 31 12 ? 2199")
  fires = fire_times(
    timing, after=utc("1970-01-01"), until=datetime.max.replace(tzinfo=UTC), limit=5
  )
  assert fires == [utc("2199-12-31T23:59:59")]
