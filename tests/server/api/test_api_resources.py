"""Each resource as a caller uses it."""

import random
from typing import Any
from uuid import UUID

import pytest
from support.api import Api, Wakes
from support.world import make_namespace, query, start_attempt

from hetuflow.protocol.model import (
  AgentForCreate,
  AgentId,
  NamespaceId,
  ServerForCreate,
  ServerId,
  TaskId,
  new_id,
)
from hetuflow.storage.agents import create_agent
from hetuflow.storage.connect import Database
from hetuflow.storage.servers import create_server

DAILY = {"kind": "cron", "cron_expression": "30 2 * * *", "timezone": "Europe/Berlin"}


async def test_a_namespace_lives(api: Api) -> None:
  made = await api.post("namespaces", {"id": "billing", "weight": 2})
  assert made.status == 201
  assert made.headers["Location"] == "/api/v1/namespaces/billing"
  assert (await api.get("namespaces/billing")).body == made.body
  changed = await api.patch("namespaces/billing", {"lead": 900})
  assert (changed.body["lead"], changed.body["weight"]) == (900.0, 2)
  listed = (await api.get("namespaces")).body
  assert [item["id"] for item in listed["items"]] == ["billing", "default"]
  await api.make_job(namespace_id="billing")
  refused = await api.delete("namespaces/billing")
  assert refused.status == 409
  assert refused.body["detail"] == "namespace 'billing' still has 1 jobs"


async def test_an_empty_namespace_can_go(api: Api) -> None:
  await api.post("namespaces", {"id": "billing"})
  job = await api.make_job(namespace_id="billing", schedules=[DAILY])
  await api.delete(f"jobs/{job['id']}")
  assert (await api.delete("namespaces/billing")).status == 204
  assert (await api.get("namespaces/billing")).status == 404


async def test_a_job_lives(api: Api, wakes: Wakes) -> None:
  made = await api.make_job(schedules=[DAILY])
  path = f"jobs/{made['id']}"
  assert (made["status"], made["version"]) == ("enabled", 1)
  assert (await api.get(path)).body == made
  assert ("schedules", "default") in wakes.heard
  [schedule] = (await api.get(f"schedules?job_id={made['id']}")).body["items"]
  assert schedule["timezone"] == "Europe/Berlin"

  changed = (await api.patch(path, {"config": {"cmd": "/bin/false"}})).body
  assert (changed["version"], changed["config"]["cmd"]) == (2, "/bin/false")
  first = (await api.get(f"{path}/versions?limit=1")).body
  assert first["next_cursor"] == "2"
  rest = (await api.get(f"{path}/versions?limit=1&cursor=2")).body
  assert [item["version"] for item in first["items"] + rest["items"]] == [2, 1]
  assert rest["next_cursor"] is None

  assert (await api.post(f"{path}/disable")).body["status"] == "disabled"
  assert (await api.post(f"{path}/enable")).body["status"] == "enabled"
  assert (await api.delete(path)).status == 204
  assert (await api.get(path)).body["status"] == "deleted"
  assert (await api.get("jobs")).body["items"] == []
  assert (await api.post(f"{path}/run")).status == 409


async def test_a_job_runs_when_asked_to(api: Api, wakes: Wakes) -> None:
  job = await api.make_job()
  made = await api.post(f"jobs/{job['id']}/run", {"parameters": {"day": 3}})
  assert made.status == 201
  assert (made.body["status"], made.body["parameters"]) == ("pending", {"day": 3})
  assert (await api.get(made.headers["Location"])).body == made.body
  assert wakes.heard == [("tasks", "default")]
  assert (await api.post(f"jobs/{job['id']}/run")).status == 201
  await api.post(f"jobs/{job['id']}/disable")
  assert (await api.post(f"jobs/{job['id']}/run")).status == 409


async def test_a_schedule_lives(api: Api, wakes: Wakes) -> None:
  job = await api.make_job()
  made = await api.post("schedules", DAILY | {"job_id": job["id"], "name": "nightly"})
  assert made.status == 201
  path = f"schedules/{made.body['id']}"
  assert made.body["next_run_at"].endswith(":30:00Z")
  assert (await api.get(path)).body == made.body
  assert ("schedules", "default") in wakes.heard
  changed = (await api.patch(path, {"end_at": None, "max_runs": 3})).body
  assert (changed["max_runs"], changed["name"]) == (3, "nightly")
  disabled = (await api.post(f"{path}/disable")).body
  assert (disabled["enabled"], disabled["next_run_at"]) == (False, None)
  assert (await api.post(f"{path}/enable")).body["enabled"] is True
  assert (await api.get("schedules?enabled=false")).body["items"] == []
  assert len((await api.get("schedules?enabled=true")).body["items"]) == 1
  assert (await api.delete(path)).status == 204
  assert (await api.get(path)).status == 404


async def test_a_preview_tells_when_a_timing_fires(api: Api) -> None:
  question = DAILY | {"start_at": "2026-03-28T00:00:00Z", "count": 3}
  reply = await api.post("schedules/preview", question)
  assert reply.status == 200
  assert reply.body == {
    "fire_times": [
      "2026-03-28T01:30:00Z",
      "2026-03-29T01:00:00Z",
      "2026-03-30T00:30:00Z",
    ]
  }
  wrong = await api.post("schedules/preview", DAILY | {"cron_expression": "61 * * * *"})
  assert wrong.status == 422


async def test_a_task_lives(api: Api) -> None:
  job = await api.make_job()
  at = "2099-01-01T00:00:00Z"
  made = await api.post("tasks", {"job_id": job["id"], "scheduled_at": at})
  assert (made.status, made.body["due_at"]) == (201, at)
  path = f"tasks/{made.body['id']}"
  assert (await api.patch(path, {"priority": 7})).body["priority"] == 7
  assert (await api.post(f"{path}/pause")).body["status"] == "paused"
  assert (await api.post(f"{path}/pause")).status == 409
  assert (await api.post(f"{path}/resume")).body["status"] == "pending"
  cancelled = await api.delete(path)
  assert (cancelled.status, cancelled.body["status"]) == (202, "cancelled")
  assert (await api.post(f"{path}/cancel")).status == 202
  assert (await api.post(f"{path}/retry")).body["status"] == "pending"
  listed = (await api.get(f"tasks?job_id={job['id']}&status=pending")).body
  assert [task["id"] for task in listed["items"]] == [made.body["id"]]


async def test_a_task_of_no_job_is_refused(api: Api) -> None:
  nobody = str(new_id())
  one = await api.post("tasks", {"job_id": nobody})
  assert (one.status, one.body["errors"][0]["path"]) == (422, "$.job_id")
  many = await api.post("tasks/batch", {"items": [{"job_id": nobody}]})
  assert (many.status, many.body["errors"][0]["path"]) == (422, "$.items[0].job_id")


async def test_ten_thousand_tasks_are_made_in_one_call(api: Api) -> None:
  job = await api.make_job()
  items = [{"job_id": job["id"], "parameters": {"n": n}} for n in range(10_000)]
  reply = await api.post("tasks/batch", {"items": items})
  assert reply.status == 201
  assert len(set(reply.body["ids"])) == 10_000
  last = (await api.get(f"tasks/{reply.body['ids'][-1]}")).body
  assert last["parameters"] == {"n": 9_999}


async def test_lists_come_in_pages_that_neither_overlap_nor_leave_out(api: Api) -> None:
  made = [(await api.make_job(f"job-{n}"))["id"] for n in range(7)]
  seen: list[str] = []
  cursor: str | None = ""
  while cursor is not None:
    query = f"&cursor={cursor}" if cursor else ""
    body = (await api.get(f"jobs?limit=3{query}")).body
    seen += [job["id"] for job in body["items"]]
    cursor = body["next_cursor"]
  assert seen == made[::-1]


async def test_an_instance_is_read_killed_and_its_task_retried(
  api: Api, database: Database
) -> None:
  job = await api.make_job()
  task = (await api.post(f"jobs/{job['id']}/run")).body
  attempt = await start_attempt(database, TaskId(UUID(task["id"])))
  path = f"task-instances/{attempt.id}"
  instance = (await api.get(path)).body
  assert (instance["status"], instance["attempt"]) == ("dispatched", 1)
  listed = (await api.get(f"task-instances?task_id={task['id']}")).body["items"]
  assert listed == [instance]
  assert (await api.post(f"{path}/retry")).status == 409
  assert (await api.post(f"{path}/kill")).status == 202
  asked = (await api.get(f"tasks/{task['id']}")).body
  assert asked["cancel_requested_at"] is not None
  assert (asked["status"], asked["reason"]) == ("dispatched", "killed by request")
  await attempt.end(exit_code=3)
  assert (await api.get(path)).body["exit_code"] == 3
  assert (await api.post(f"{path}/kill")).status == 409
  retried = await api.post(f"{path}/retry")
  assert (retried.status, retried.body["status"]) == (200, "pending")


async def test_agents_are_read_and_renamed(api: Api, database: Database) -> None:
  agent_id = AgentId(new_id())
  agent = AgentForCreate(
    id=agent_id, namespace_ids=[NamespaceId("default")], name="web-1"
  )
  await create_agent(database, agent)
  path = f"agents/{agent_id}"
  assert (await api.get(path)).body["name"] == "web-1"
  changed = await api.patch(path, {"labels": {"disk": "ssd"}})
  assert changed.body["labels"] == {"disk": "ssd"}
  assert len((await api.get("agents?status=offline")).body["items"]) == 1


@pytest.mark.parametrize(
  ("path", "wish", "secret"),
  [
    ("api-keys", {"name": "ci"}, "key"),
    ("agent-tokens", {"name": "ci", "namespace_ids": ["default", "*"]}, "token"),
  ],
)
async def test_a_secret_is_shown_once(
  api: Api, path: str, wish: dict[str, Any], secret: str
) -> None:
  made = await api.post(path, wish)
  assert made.status == 201
  text = made.body.pop(secret)
  listed = await api.get(path)
  assert made.body in listed.body["items"]
  assert text.encode() not in listed.raw
  assert (await api.delete(f"{path}/{made.body['id']}")).status == 204
  assert made.body not in (await api.get(path)).body["items"]
  assert (await api.delete(f"{path}/{made.body['id']}")).status == 404


async def test_the_last_key_stays(api: Api) -> None:
  [key] = (await api.get("api-keys")).body["items"]
  refused = await api.delete(f"api-keys/{key['id']}")
  assert refused.status == 409
  assert (await api.get("api-keys")).status == 200


async def test_servers_are_listed_with_their_life(api: Api, database: Database) -> None:
  server_id = ServerId(new_id())
  await create_server(
    database,
    ServerForCreate(id=server_id, name="one", url="http://127.0.0.1:1", version="1"),
    ttl=4.0,
  )
  [server] = (await api.get("servers?alive=true")).body["items"]
  assert (server["id"], server["alive"]) == (str(server_id), True)
  assert (await api.get(f"servers/{server_id}")).body["name"] == "one"
  assert (await api.get("servers?alive=false")).body["items"] == []


async def test_the_system_tells_how_it_is(api: Api) -> None:
  nobody = {"Authorization": ""}
  for path in ("system/health", "system/health/ready"):
    reply = await api.get(path, headers=nobody)
    assert (reply.status, reply.body["status"]) == (200, "ok")
  live = await api.get("system/health/live", headers=nobody)
  assert live.body == {"status": "ok"}
  info = (await api.get("system/info")).body
  assert info["version"] == "0.0.test"
  assert info["database"]["version"]
  assert (await api.get("system/tree")).body["state"] == "running"
  assert (await api.get("system/metrics")).body == {}
  api.services.draining.set()
  draining = await api.get("system/health/ready", headers=nobody)
  assert (draining.status, draining.body["status"]) == (503, "draining")


async def test_filters_narrow_lists(api: Api, database: Database) -> None:
  await make_namespace(database, "other")
  here = await api.make_job("a")
  there = await api.make_job("a", namespace_id="other")
  listed = (await api.get("jobs?namespace_id=other&name=a")).body["items"]
  assert [job["id"] for job in listed] == [there["id"]]
  assert here["id"] != there["id"]


async def test_a_job_whose_configuration_is_refused_by_now_is_shown_and_mended(
  api: Api, database: Database
) -> None:
  whole, spoilt = await api.make_job(), await api.make_job("spoilt")
  stored = {"cmd": "/bin/true", "timeout": -1}
  spoil = "UPDATE sched_job_version SET config = $config::jsonb WHERE job_id = $id"
  await database.fetch(query(spoil), id=UUID(spoilt["id"]), config=stored)
  path = f"jobs/{spoilt['id']}"
  shown = (await api.get(path)).body
  assert (shown["config"], shown["unusable"]["stored"]) == (None, stored)
  assert shown["unusable"]["problem"].endswith("@ $.timeout")
  assert (await api.get("jobs")).body["items"] == [shown, whole]
  assert (await api.get(f"{path}/versions")).body["items"][0]["config"] is None
  mended = (await api.patch(path, {"config": {"cmd": "/bin/true"}})).body
  assert (mended["config"]["cmd"], mended["unusable"]) == ("/bin/true", None)
  assert (await api.delete(path)).status == 204


async def test_a_job_may_ask_for_labels_longer_than_an_index_bears(api: Api) -> None:
  labels = {"place": random.Random(0).randbytes(10_000).hex()}
  wish = {"name": "far", "config": {"cmd": "/bin/true", "labels": labels}}
  made = await api.post("jobs", wish)
  assert made.status == 201
  again = await api.post("jobs", wish | {"name": "farther"})
  assert again.body["config"]["labels"] == labels
