"""Calendars, previews and forecasts on the command line, against a real server."""

import json
from pathlib import Path

import pytest
import trio
from support.commands import Command

pytestmark = pytest.mark.usefixtures("world")

LIMIT_S = 60.0
START = "2026-12-21T00:00+00:00"
EVENT = (
  "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:test\r\nBEGIN:VEVENT\r\nUID:1\r\n"
  "DTSTAMP:20260101T000000Z\r\nDTSTART;VALUE=DATE:20200101\r\n"
  "RRULE:FREQ=YEARLY\r\nSUMMARY:New Year\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
)


async def test_a_calendar_is_made_looked_at_heeded_and_deleted(cli: Command) -> None:
  days = ("--date", "2026-12-22", "--date", "2026-12-24..2026-12-26")
  with trio.fail_after(LIMIT_S):
    (await cli("calendars", "create", "closed", *days, "--weekly", "sun")).ok()
    plain = (await cli("calendars", "list")).ok().text
    assert "sun, 2 dates" in plain
    span = ("--from", "2026-12-21", "--to", "2026-12-31")
    shown = (await cli("calendars", "days", "closed", *span)).ok().text
    assert "Tue 22, Thu 24, Fri 25, Sat 26, Sun 27" in shown
    preview = ("preview", "0 6 * * *", "--from", START, "-n", "3", "--json")
    times = (await cli(*preview, "--calendar", "closed:next")).ok().json["fire_times"]
    assert [time[:10] for time in times] == ["2026-12-21", "2026-12-23", "2026-12-28"]
    use = ("--cron", "0 6 * * *", "--calendar", "closed")
    (await cli("jobs", "create", "heeds", *use, "--", "/bin/true")).ok()
    [schedule] = (await cli("schedules", "list", "--job", "heeds", "--json")).ok().json
    assert schedule["calendars"] == [{"name": "closed", "mode": "exclude"}]
    refused = await cli("calendars", "delete", "closed")
    assert refused.code == 1
    assert "'heeds'" in refused.complaint
    upcoming = (await cli("schedules", "next", schedule["id"], "-n", "4")).ok().text
    assert len(upcoming.splitlines()) == 4
    assert "Sun" not in upcoming
    every_day = [
      word
      for day in ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
      for word in ("--weekly", day)
    ]
    (await cli("calendars", "update", "closed", *every_day)).ok()
    never = await cli("schedules", "next", schedule["id"])
    assert (never.code, never.out, never.err) == (0, b"", b"never\n")
    (await cli("jobs", "delete", "--yes", "heeds")).ok()
    (await cli("calendars", "delete", "closed")).ok()
    assert (await cli("calendars", "show", "closed")).code == 1


async def test_a_calendar_comes_from_files(cli: Command, tmp_path: Path) -> None:
  ics, toml = tmp_path / "year.ics", tmp_path / "closed.toml"
  ics.write_text(EVENT, newline="")
  toml.write_text('weekly = ["sat"]\nholidays = { country = "DE", subdivision = "BY" }')
  with trio.fail_after(LIMIT_S):
    made = (await cli("calendars", "create", "filed", "--file", toml, "--json")).ok()
    assert made.json["definition"]["holidays"]["country"] == "DE"
    changed = await cli("calendars", "update", "filed", "--ics", ics, "--json")
    definition = changed.ok().json["definition"]
    assert definition["weekly"] == ["sat"]
    assert all(day.endswith("-01-01") for day in definition["dates"])
    assert changed.json["version"] == 2
    both = await cli("calendars", "create", "x", "--file", toml, "--weekly", "sun")
    assert both.code == 2
    assert (await cli("calendars", "update", "filed")).code == 2
    wrong = await cli("calendars", "create", "x", "--date", "tomorrow")
    assert wrong.code == 1
    assert "$.definition.dates[0]" in wrong.complaint
    (await cli("calendars", "delete", "filed")).ok()


async def test_what_if_shows_the_load_and_the_trouble(
  cli: Command, tmp_path: Path
) -> None:
  file = tmp_path / "proposals.json"
  berlin = {"kind": "cron", "timezone": "Europe/Berlin"}
  proposals = [
    {
      "kind": "cron",
      "cron_expression": "*/10 * * * *",
      "name": "dense",
      "duration": 900.0,
      "overlap": "skip",
    },
    berlin | {"cron_expression": "30 2 * * *", "name": "nightly", "duration": 60.0},
  ]
  file.write_text(json.dumps({"schedules": proposals}))
  question = ("what-if", "--from", "2026-03-28T00:00+00:00", "--days", "2")
  with trio.fail_after(LIMIT_S):
    (
      await cli("jobs", "create", "there", "--cron", "0 0 * * *", "--", "/bin/true")
    ).ok()
    found = (await cli(*question, "--file", file, "--json")).ok().json
    assert found["fires"] == 2 * 144 + 2 + 2
    assert {each["name"] for each in found["schedules"][:2]} == {"dense", "nightly"}
    plain = (await cli(*question, "--file", file)).ok().text
    assert "292 planned times, at most 2 at once" in plain
    assert "144 skipped" in plain
    assert "dense (proposed)" in plain
    assert "█" in plain
    assert "Europe/Berlin: the clock goes forward by 60 min" in plain
    assert "nightly: 1 moved" in plain
    [schedule] = (await cli("schedules", "list", "--job", "there", "--json")).ok().json
    without = (await cli(*question, "--without", schedule["id"], "--json")).ok().json
    assert without["fires"] == 0
    file.write_text('{"jobs": []}')
    refused = await cli(*question, "--file", file)
    assert refused.code == 2
    file.write_text('{"schedules": [{"kind": "cron", "cron_expression": "x"}]}')
    refused = await cli(*question, "--file", file)
    assert refused.code == 1
    assert "$.schedules[0].cron_expression" in refused.complaint
    (await cli("jobs", "delete", "--yes", "there")).ok()
