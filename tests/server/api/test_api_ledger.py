"""The ledger and backfills as a caller sees them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from support.api import Api
from support.world import query

from hetuflow.storage.connect import Database

EACH_MINUTE = {"kind": "cron", "cron_expression": "* * * * *"}


def moment(minutes: float) -> str:
  """Write a time so many minutes ago."""
  at = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=minutes)
  return at.isoformat()


async def make_schedule(api: Api) -> str:
  """Make a schedule; return its path."""
  job = await api.make_job(schedules=[EACH_MINUTE])
  [schedule] = (await api.get(f"schedules?job_id={job['id']}")).body["items"]
  return f"schedules/{schedule['id']}"


async def test_a_backfill_makes_tasks_and_the_ledger_shows_them(api: Api) -> None:
  path = await make_schedule(api)
  span = {"start_at": moment(20), "end_at": moment(11)}
  made = await api.post(f"{path}/backfill", span)
  assert made.status == 201
  assert made.body["tasks"] == len(made.body["ids"]) == 10
  task = (await api.get(f"tasks/{made.body['ids'][0]}")).body
  assert (task["cause"], task["status"]) == ("backfill", "pending")
  assert (await api.post(f"{path}/backfill", span)).body == {"tasks": 0, "ids": []}
  where = f"from={quote(span['start_at'])}&to={quote(moment(0))}"
  first = (await api.get(f"{path}/ledger?{where}&limit=6")).body
  assert first["totals"]["waiting"] == 10
  assert first["check"]["complete"] is True
  rest = (
    await api.get(f"{path}/ledger?{where}&limit=6&cursor={first['next_cursor']}")
  ).body
  assert (rest["totals"], rest["check"], rest["next_cursor"]) == (None, None, None)
  items = [*first["items"], *rest["items"]]
  assert [item["task_id"] for item in items] == made.body["ids"]
  assert {item["outcome"] for item in items} == {"waiting"}
  assert [item["planned_at"] for item in items] == sorted(
    item["planned_at"] for item in items
  )


async def test_a_key_gives_the_first_answer_of_a_backfill_again(api: Api) -> None:
  path = await make_schedule(api)
  span = {"start_at": moment(20), "end_at": moment(11)}
  key = {"Idempotency-Key": "once"}
  made = await api.post(f"{path}/backfill", span, headers=key)
  again = await api.post(f"{path}/backfill", span, headers=key)
  assert again.body == made.body
  assert made.body["tasks"] == 10


@pytest.mark.parametrize(
  ("span", "path"),
  [
    ({"start_at": moment(9), "end_at": moment(-600)}, "$.end_at"),
    ({"start_at": moment(9), "end_at": moment(10)}, "$.end_at"),
    ({"start_at": moment(90_000), "end_at": moment(1)}, "$.end_at"),
    ({"start_at": moment(9)}, "$.end_at"),
    ({"start_at": moment(9), "end_at": moment(1), "dry": True}, "$.dry"),
  ],
  ids=["future", "backwards", "too much", "open", "unknown"],
)
async def test_a_span_that_cannot_be_is_refused(
  api: Api, span: dict[str, Any], path: str
) -> None:
  reply = await api.post(f"{await make_schedule(api)}/backfill", span)
  assert reply.status == 422
  assert [error["path"] for error in reply.body["errors"]] == [path]


async def test_a_disabled_job_is_not_backfilled(api: Api) -> None:
  path = await make_schedule(api)
  job_id = (await api.get(path)).body["job_id"]
  await api.post(f"jobs/{job_id}/disable")
  span = {"start_at": moment(9), "end_at": moment(1)}
  assert (await api.post(f"{path}/backfill", span)).status == 409


@pytest.mark.parametrize(
  "wrong", ["from=monday", "to=2026-01-01", "cursor=x", "limit=0", "since=1"]
)
async def test_a_question_about_a_ledger_that_makes_no_sense_is_refused(
  api: Api, wrong: str
) -> None:
  reply = await api.get(f"{await make_schedule(api)}/ledger?{wrong}")
  assert reply.status == 422
  name = wrong.partition("=")[0]
  assert [error["path"] for error in reply.body["errors"]] == [f"$.{name}"]


async def test_a_ledger_is_shown_of_what_can_no_longer_be_understood(
  api: Api, database: Database
) -> None:
  path = await make_schedule(api)
  spoil = query("UPDATE sched_schedule SET cron_expression = 'x'")
  await database.fetch(spoil)
  shown = await api.get(f"{path}/ledger")
  assert (shown.status, shown.body["check"]) == (200, None)
  span = {"start_at": moment(9), "end_at": moment(1)}
  refused = await api.post(f"{path}/backfill", span)
  assert refused.status == 422
  missing = path[:-4] + "0000"
  assert (await api.get(f"{missing}/ledger")).status == 404
  assert (await api.post(f"{missing}/backfill", span)).status == 404
