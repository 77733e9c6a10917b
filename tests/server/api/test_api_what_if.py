"""What load there will be: forecasts of what is there and of what is proposed."""

from typing import Any
from uuid import UUID

import pytest
import trio
from support.api import Api
from support.world import read_clock, start_attempt

from hetuflow.protocol.model import TaskId, new_id
from hetuflow.storage.connect import Database

START = "2026-03-02T00:00:00Z"
HOURLY = {"kind": "cron", "cron_expression": "0 * * * *"}
NIGHTLY = {"kind": "cron", "cron_expression": "30 2 * * *"}


async def ask(api: Api, **question: Any) -> Any:
  """Ask for a day from a Monday on, unless it is said otherwise."""
  reply = await api.post(
    "schedules/what-if", {"start_at": START, "days": 1.0} | question
  )
  assert reply.status == 200, reply.body
  return reply.body


async def test_nothing_is_to_be_expected_of_nothing(api: Api) -> None:
  found = await ask(api)
  assert found["peak"] == {"concurrency": 0, "at": None}
  assert (found["fires"], len(found["hours"]), found["schedules"]) == (0, 24, [])
  week = await api.post("schedules/what-if")
  assert (week.status, len(week.body["hours"])) == (200, 168)
  assert week.body["start_at"].endswith(":00:00Z")


async def test_all_schedules_are_added_up_and_some_may_be_left_out(api: Api) -> None:
  await api.make_job("a", schedules=[HOURLY | {"name": "h"}])
  await api.make_job("b", schedules=[NIGHTLY | {"name": "n"}])
  off = await api.make_job("c", schedules=[HOURLY])
  await api.post(f"jobs/{off['id']}/disable")
  found = await ask(api, default_duration=5400.0)
  assert found["fires"] == 25
  assert found["peak"] == {"concurrency": 3, "at": "2026-03-02T03:00:00Z"}
  third = found["hours"][3]
  assert third == {"at": "2026-03-02T03:00:00Z", "fires": 1, "mean": 2.5, "peak": 3}
  told = {each["name"]: each for each in found["schedules"]}
  assert (told["h"]["fires"], told["h"]["job_name"]) == (24, "a")
  assert (told["n"]["started"], told["n"]["measured"]) == (1, False)
  less = await ask(api, without=[told["h"]["schedule_id"]])
  assert less["fires"] == 1
  elsewhere = await ask(api, namespace_id="other")
  assert elsewhere["fires"] == 0


async def test_durations_are_those_measured_lately(
  api: Api, database: Database
) -> None:
  job = await api.make_job(schedules=[HOURLY])
  task = (await api.post(f"jobs/{job['id']}/run")).body
  attempt = await start_attempt(database, TaskId(UUID(task["id"])))
  now = await read_clock(database)
  await attempt.end(at=now)
  [told] = (await ask(api, default_duration=777.0))["schedules"]
  assert told["measured"] is True
  assert told["duration"] < 60
  [proposed, _] = (await ask(api, schedules=[HOURLY | {"job_id": job["id"]}]))[
    "schedules"
  ]
  assert (proposed["measured"], proposed["proposed"]) == (True, True)


async def test_what_is_proposed_meets_its_limits(api: Api) -> None:
  every_ten = {"kind": "cron", "cron_expression": "*/10 * * * *", "duration": 900.0}
  proposals = [
    every_ten | {"name": "skips", "overlap": "skip"},
    every_ten | {"name": "queues", "overlap": "queue"},
    every_ten | {"name": "two", "overlap": "queue", "max_concurrent": 2},
    every_ten | {"name": "late", "overlap": "queue", "start_deadline": 600.0},
    every_ten | {"name": "replaces", "overlap": "replace"},
    every_ten | {"name": "free"},
  ]
  found = await ask(api, schedules=proposals)
  told = {each["name"]: each for each in found["schedules"]}
  assert all(each["proposed"] and each["fires"] == 144 for each in told.values())
  assert (told["skips"]["skipped"], told["skips"]["started"]) == (72, 72)
  assert (told["queues"]["started"], told["queues"]["waiting"]) == (96, 48)
  assert (told["queues"]["grows"], told["queues"]["longest_queue"]) == (True, 48)
  assert (told["two"]["waiting"], told["two"]["grows"]) == (0, False)
  assert told["late"]["missed"] > 40
  assert told["late"]["grows"] is False
  assert told["late"]["longest_wait"] <= 600
  assert told["replaces"]["replaced"] == 143
  assert told["free"]["started"] == 144
  # In the order of their trouble, as all are proposed.
  assert found["schedules"][0]["name"] == "replaces"


async def test_the_limits_of_a_job_concern_what_is_proposed_for_it(api: Api) -> None:
  config = {"cmd": "/bin/true", "overlap": "queue", "start_deadline": 60.0}
  job = await api.make_job(config=config, schedules=[HOURLY | {"name": "there"}])
  proposed = HOURLY | {"name": "more", "job_id": job["id"]}
  found = await ask(api, schedules=[proposed], default_duration=600.0)
  told = {each["name"]: each for each in found["schedules"]}
  # Both are due at once and share one place, of which the first that was there is first.
  assert (told["there"]["started"], told["more"]["missed"]) == (24, 24)


async def test_the_room_of_a_namespace_is_shared(api: Api) -> None:
  await api.patch("namespaces/default", {"max_running": 2})
  proposals = [HOURLY | {"name": f"p{n}", "duration": 1200.0} for n in range(4)]
  found = await ask(api, schedules=proposals)
  assert found["peak"]["concurrency"] == 2
  waits = sorted(each["longest_wait"] for each in found["schedules"])
  assert waits == [0, 0, 1200, 1200]


async def test_daemons_run_all_the_time_and_fixed_delays_follow_themselves(
  api: Api,
) -> None:
  daemon = {"kind": "daemon", "replicas": 3}
  await api.make_job("d", schedules=[daemon])
  pause = {"kind": "time", "interval_seconds": 600, "fixed_delay": True}
  found = await ask(api, schedules=[pause | {"duration": 1200.0, "start_at": START}])
  assert found["fires"] == 48
  assert {hour["peak"] for hour in found["hours"]} == {4}
  assert {hour["mean"] for hour in found["hours"]} == {3.667}


async def test_clock_changes_in_the_span_are_told(api: Api) -> None:
  berlin = {"timezone": "Europe/Berlin"}
  await api.make_job(schedules=[NIGHTLY | berlin | {"name": "moved"}])
  proposals = [
    NIGHTLY | berlin | {"name": "left out", "dst": {"gap": "skip"}},
    {"kind": "cron", "cron_expression": "*/10 2 * * *"} | berlin | {"name": "wall"},
    HOURLY | {"name": "utc"},
  ]
  found = await ask(api, start_at="2026-03-28T00:00:00Z", days=7, schedules=proposals)
  [change] = found["clock_changes"]
  assert (change["timezone"], change["kind"]) == ("Europe/Berlin", "gap")
  assert (change["at"], change["seconds"]) == ("2026-03-29T01:00:00Z", 3600)
  effects = {each["name"]: each for each in change["schedules"]}
  assert effects.keys() == {"moved", "left out", "wall"}
  assert (effects["moved"]["moved"], effects["left out"]["skipped"]) == (1, 1)
  assert effects["wall"]["skipped"] == 6
  twice = proposals[0] | {"name": "twice", "dst": {"fold": "both"}}
  found = await ask(api, start_at="2026-10-24T00:00:00Z", days=3, schedules=[twice])
  [change] = found["clock_changes"]
  assert (change["kind"], change["schedules"][0]["doubled"]) == ("fold", 1)
  assert len(change["schedules"]) == 1


async def test_days_that_calendars_move_or_drop_are_told(api: Api) -> None:
  days = {"name": "closed", "definition": {"dates": ["2026-03-04", "2026-03-05"]}}
  await api.post("calendars", days)
  moved = NIGHTLY | {"name": "m", "calendars": [{"name": "closed", "mode": "next"}]}
  dropped = NIGHTLY | {"name": "d", "calendars": [{"name": "closed"}]}
  every = {"kind": "time", "interval_seconds": 3600, "start_at": START}
  interval = every | {
    "name": "i",
    "calendars": [{"name": "closed", "mode": "previous"}],
  }
  found = await ask(api, days=7, schedules=[moved, dropped, interval])
  told = {each["name"]: each for each in found["schedules"]}
  assert told["m"]["moved"] == [
    {"from_date": "2026-03-04", "to_date": "2026-03-06"},
    {"from_date": "2026-03-05", "to_date": "2026-03-06"},
  ]
  assert (told["m"]["dropped"], told["m"]["fires"]) == ([], 5)
  assert told["d"]["dropped"] == ["2026-03-04", "2026-03-05"]
  assert [each["to_date"] for each in told["i"]["moved"]] == ["2026-03-03"] * 2


async def test_what_fires_too_often_is_counted_and_spread(api: Api) -> None:
  second = {"kind": "time", "interval_seconds": 1, "start_at": START, "name": "dense"}
  proposals = [
    second | {"duration": 2.5},
    HOURLY | {"name": "rare", "duration": 60.0},
    second | {"name": "queue", "duration": 2.0, "overlap": "queue"},
    second | {"name": "skip", "duration": 2.0, "overlap": "skip"},
  ]
  found = await ask(api, days=7, schedules=proposals)
  told = {each["name"]: each for each in found["schedules"]}
  assert {name: each["steady"] for name, each in told.items()} == {
    "dense": True,
    "rare": False,
    "queue": True,
    "skip": True,
  }
  assert told["dense"]["fires"] == 7 * 86_400
  assert told["queue"]["waiting"] == told["skip"]["skipped"] == 7 * 43_200
  assert told["queue"]["grows"] is True
  hour = found["hours"][5]
  assert hour["fires"] == 3 * 3600 + 1
  assert hour["mean"] == pytest.approx(2.5 + 1 + 1 + 60 / 3600, abs=0.001)
  assert hour["peak"] == 3 + 1 + 1 + 1


async def test_a_forecast_lets_others_run_again_and_again(api: Api) -> None:
  minute = {"kind": "cron", "cron_expression": "* * * * *"}
  proposals = [minute | {"name": f"p{n}", "overlap": "queue"} for n in range(4)]
  passes = 0

  async def count() -> None:
    """Count how often something else gets to run."""
    nonlocal passes
    while True:
      await trio.lowlevel.checkpoint()
      passes += 1

  async with trio.open_nursery() as nursery:
    nursery.start_soon(count)
    found = await ask(api, days=7, schedules=proposals)
    nursery.cancel_scope.cancel()
  assert found["fires"] == 4 * 10_080
  # Each fire comes, is simulated and ends; others run after every 100 of these steps.
  assert passes > 3 * 4 * 10_080 / 100


@pytest.mark.parametrize(
  ("question", "path"),
  [
    ({"days": 1000}, "$.days"),
    ({"schedules": [HOURLY | {"cron_expression": "61 * * * *"}]}, None),
    ({"schedules": [HOURLY, {"kind": "daemon", "replicas": 1}]}, "$.schedules[1].kind"),
    ({"schedules": [HOURLY | {"calendars": [{"name": "x"}]}]}, "calendars"),
    ({"schedules": [HOURLY | {"namespace_id": "nowhere"}]}, "namespace"),
    ({"schedules": [HOURLY | {"job_id": str(new_id())}]}, "$.schedules[0].job_id"),
  ],
)
async def test_what_cannot_be_is_refused_with_its_path(
  api: Api, question: dict[str, Any], path: str | None
) -> None:
  refused = await api.post("schedules/what-if", question)
  assert refused.status == 422
  expected = {
    None: "$.schedules[0].cron_expression",
    "calendars": "$.schedules[0].calendars[0].name",
    "namespace": "$.schedules[0].namespace_id",
  }.get(path, path)
  assert refused.body["errors"][0]["path"] == expected


async def test_only_so_many_schedules_are_told_about(api: Api) -> None:
  await api.make_job(schedules=[HOURLY for _ in range(5)])
  found = await ask(api, limit=2, schedules=[NIGHTLY | {"name": "mine"}])
  assert found["schedules"][0]["name"] == "mine"
  assert (len(found["schedules"]), found["left_off"]) == (2, 4)


async def test_a_schedule_tells_when_it_fires_next(api: Api) -> None:
  job = await api.make_job(schedules=[HOURLY | {"max_runs": 3}])
  [schedule] = (await api.get(f"schedules?job_id={job['id']}")).body["items"]
  path = f"schedules/{schedule['id']}"
  times = (await api.get(f"{path}/next")).body["fire_times"]
  assert times[0] == schedule["next_run_at"]
  assert len(times) == 3
  assert (await api.get(f"{path}/next?count=2")).body["fire_times"] == times[:2]
  for query in ("count=0", "count=1001", "count=x", "n=2"):
    assert (await api.get(f"{path}/next?{query}")).status == 422
  await api.post(f"{path}/disable")
  assert (await api.get(f"{path}/next")).body == {"fire_times": []}
  assert (await api.get(f"schedules/{new_id()}/next")).status == 404


async def test_what_has_no_times_of_its_own_tells_none(api: Api) -> None:
  pause = {"kind": "time", "interval_seconds": 600, "fixed_delay": True, "name": "p"}
  daemon = {"kind": "daemon", "replicas": 1, "name": "d"}
  job = await api.make_job(schedules=[pause, daemon])
  listed = (await api.get(f"schedules?job_id={job['id']}")).body["items"]
  paths = {each["name"]: f"schedules/{each['id']}/next" for each in listed}
  assert len((await api.get(paths["p"])).body["fire_times"]) <= 1
  refused = await api.get(paths["d"])
  assert (refused.status, refused.body["errors"][0]["path"]) == (422, "$.kind")
