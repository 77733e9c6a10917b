"""Calendars as a caller uses them, and what heeds them."""

from typing import Any

import pytest
from support.api import Api, Wakes

from hetuflow.protocol.model import new_id

CLOSED = {
  "dates": ["2026-12-24", {"from": "2026-12-28", "to": "2026-12-30"}],
  "weekly": ["sat", "sun"],
  "except": ["2026-12-29"],
}
NIGHTLY = {"kind": "cron", "cron_expression": "30 2 * * *"}
EVENT = (
  "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:test\r\nBEGIN:VEVENT\r\nUID:1\r\n"
  "DTSTAMP:20260101T000000Z\r\nDTSTART;VALUE=DATE:20200101\r\n"
  "RRULE:FREQ=YEARLY\r\nSUMMARY:New Year\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
)


async def make_calendar(api: Api, **more: Any) -> dict[str, Any]:
  """Make a calendar and return it."""
  made = await api.post("calendars", {"name": "closed", "definition": CLOSED} | more)
  assert made.status == 201, made.body
  body: dict[str, Any] = made.body
  return body


async def test_a_calendar_lives(api: Api, wakes: Wakes) -> None:
  made = await api.post("calendars", {"name": "closed", "definition": CLOSED})
  assert (made.status, made.body["version"]) == (201, 1)
  path = f"calendars/{made.body['id']}"
  assert made.headers["Location"] == f"/api/v1/{path}"
  assert (await api.get(path)).body == made.body
  assert (await api.get("calendars?name=closed")).body["items"] == [made.body]
  again = await api.post("calendars", {"name": "closed", "definition": CLOSED})
  assert again.status == 409
  changed = await api.patch(path, {"definition": {"weekly": ["sun"]}, "version": 1})
  assert changed.body["version"] == 2
  assert ("schedules", "default") in wakes.heard
  stale = await api.patch(path, {"definition": CLOSED, "version": 1})
  assert stale.status == 409
  versions = (await api.get(f"{path}/versions?limit=1")).body
  assert [each["version"] for each in versions["items"]] == [2]
  cursor = versions["next_cursor"]
  older = (await api.get(f"{path}/versions?cursor={cursor}")).body["items"]
  assert [each["definition"] for each in older] == [CLOSED]
  assert (await api.delete(path)).status == 204
  assert (await api.get(path)).status == 404


async def test_the_days_in_a_calendar_can_be_looked_at(api: Api) -> None:
  path = f"calendars/{(await make_calendar(api))['id']}/days"
  shown = await api.get(f"{path}?from=2026-12-21&to=2027-01-01")
  assert shown.body == {
    "days": ["2026-12-24", "2026-12-26", "2026-12-27", "2026-12-28", "2026-12-30"]
  }
  assert (await api.get(f"{path}?from=2026-12-24&to=2026-12-24")).body == {
    "days": ["2026-12-24"]
  }
  year = (await api.get(f"{path}?from=2027-01-01")).body["days"]
  assert (len(year), year[-1]) == (105, "2028-01-01")
  assert len((await api.get(path)).body["days"]) >= 104


@pytest.mark.parametrize(
  ("query", "wrong"),
  [
    ("from=2026-02-30", "$.from"),
    ("to=tomorrow", "$.to"),
    ("from=2026-01-02&to=2026-01-01", "$.to"),
    ("from=2026-01-01&to=2040-01-01", "$.to"),
    ("from=9999-12-31&to=2026-01-01", "$.to"),
    ("until=2026-01-01", "$.until"),
    ("from=2026-01-01&from=2026-01-02", "$.from"),
  ],
)
async def test_a_span_of_days_that_is_none_is_refused(
  api: Api, query: str, wrong: str
) -> None:
  path = f"calendars/{(await make_calendar(api))['id']}/days"
  refused = await api.get(f"{path}?{query}")
  assert refused.status == 422
  assert refused.body["errors"][0]["path"] == wrong


async def test_a_calendar_is_made_of_an_icalendar_file(api: Api) -> None:
  made = await api.post("calendars", {"name": "new-year", "ics": EVENT})
  assert made.status == 201
  assert all(day.endswith("-01-01") for day in made.body["definition"]["dates"])
  refused = await api.post("calendars", {"name": "x", "ics": "BEGIN:NOTHING"})
  assert (refused.status, refused.body["errors"][0]["path"]) == (422, "$.ics")
  huge = await api.post("calendars", {"name": "x", "ics": "x" * 1_000_001})
  assert (huge.status, huge.body["errors"][0]["path"]) == (422, "$.ics")


@pytest.mark.parametrize(
  ("definition", "path"),
  [
    ({}, "$.definition"),
    ({"weekly": ["sat"], "monthly": []}, "$.definition.monthly"),
    ({"dates": ["2026-12-24", "24.12."]}, "$.definition.dates[1]"),
    ({"holidays": {"country": "DE", "subdivision": "QQ"}}, None),
  ],
)
async def test_what_is_no_definition_is_refused_with_its_path(
  api: Api, definition: dict[str, Any], path: str | None
) -> None:
  refused = await api.post("calendars", {"name": "x", "definition": definition})
  assert refused.status == 422
  expected = path or "$.definition.holidays.subdivision"
  assert refused.body["errors"][0]["path"] == expected


async def test_a_schedule_names_calendars_that_are_there(api: Api) -> None:
  job = await api.make_job()
  nightly = NIGHTLY | {"job_id": job["id"]}
  uses = [{"name": "closed"}, {"name": "nothing", "mode": "include"}]
  calendar = await make_calendar(api)
  refused = await api.post("schedules", nightly | {"calendars": uses})
  assert refused.status == 422
  assert refused.body["errors"][0]["path"] == "$.calendars[1].name"
  whole = {"name": "x", "config": {"cmd": "/bin/true"}}
  refused = await api.post(
    "jobs", whole | {"schedules": [NIGHTLY, NIGHTLY | {"calendars": uses}]}
  )
  assert refused.body["errors"][0]["path"] == "$.schedules[1].calendars[1].name"
  made = await api.post("schedules", nightly | {"name": "n", "calendars": uses[:1]})
  assert made.body["calendars"] == [{"name": "closed", "mode": "exclude"}]
  kept = await api.delete(f"calendars/{calendar['id']}")
  assert kept.status == 409
  assert "'n' of 'backup'" in kept.body["detail"]


async def test_a_preview_heeds_the_calendars_of_its_namespace(api: Api) -> None:
  await make_calendar(api)
  question = NIGHTLY | {"start_at": "2026-12-24T00:00:00Z", "count": 3}
  uses = [{"name": "closed", "mode": "next"}]
  reply = await api.post("schedules/preview", question | {"calendars": uses})
  assert reply.body == {
    "fire_times": [
      "2026-12-25T02:30:00Z",
      "2026-12-29T02:30:00Z",
      "2026-12-31T02:30:00Z",
    ]
  }
  elsewhere = question | {"calendars": uses, "namespace_id": "other"}
  refused = await api.post("schedules/preview", elsewhere)
  assert refused.body["errors"][0]["path"] == "$.calendars[0].name"


async def test_what_is_not_there_is_not_found(api: Api) -> None:
  path = f"calendars/{new_id()}"
  for reply in (
    await api.get(path),
    await api.get(f"{path}/days"),
    await api.get(f"{path}/versions"),
    await api.patch(path, {}),
    await api.delete(path),
  ):
    assert reply.status == 404
