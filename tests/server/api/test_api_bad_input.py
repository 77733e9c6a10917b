"""What is wrong is refused in one shape, with the place and what is expected."""

from typing import Any

import pytest
import trio
from quart.testing import WebsocketResponseError
from structlog.testing import capture_logs
from support.api import MAX_BODY_SIZE, Api, Reply

JOB = {"name": "backup", "config": {"cmd": "/bin/true"}}
CRON = {"kind": "cron", "cron_expression": "* * * * *"}
FIRST, LAST = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"
NOBODY = "0190a8b4-7c00-7000-8000-000000000002"


def errors(reply: Reply) -> dict[str, str]:
  """Check that the answer is a problem and return its errors by path."""
  assert reply.headers["Content-Type"] == "application/problem+json"
  assert reply.body["status"] == reply.status
  assert set(reply.body) == {"type", "title", "status", "detail", "errors", "trace_id"}
  return {error["path"]: error["message"] for error in reply.body["errors"]}


@pytest.mark.parametrize(
  ("body", "path", "message"),
  [
    ({"name": "x"}, "$.config", "required"),
    ({"config": {"cmd": "x"}, "name": 5}, "$.name", "expected a string"),
    (JOB | {"colour": "red"}, "$.colour", "unknown key"),
    (JOB | {"config": {"cmd": "x", "slots": 2}}, "$.config.slots", "unknown key"),
    (JOB | {"name": "a\0b"}, "$.name", "U+0000 is not allowed"),
    (JOB | {"name": ""}, "$.name", "expected a length between 1 and 200"),
    (
      JOB | {"config": {"cmd": "x", "executor": "docker"}},
      "$.config.executor",
      "this server has no such executor yet: process, shell, python",
    ),
    (
      JOB | {"schedules": [CRON, CRON | {"timezone": "Mars/Olympus"}]},
      "$.schedules[1].timezone",
      None,
    ),
    (
      JOB | {"schedules": [{"kind": "daemon"}]},
      "$.schedules[0].replicas",
      "expected exactly one of replicas",
    ),
    ([], "$", "expected an object"),
    (None, "$", "expected an object"),
  ],
)
async def test_an_invalid_job_is_refused_where_it_is_wrong(
  api: Api, body: Any, path: str, message: str | None
) -> None:
  data = b"null" if body is None else None
  reply = await api.post("jobs", body, data=data)
  assert reply.status == 422
  found = errors(reply)
  assert message in (found[path], None)
  assert (await api.get("jobs")).body["items"] == []


async def test_every_mistake_is_told_at_once(api: Api) -> None:
  body = {"name": 5, "config": {"cmd": "x", "timeout": -1, "priority": "high"}}
  reply = await api.post("jobs", body)
  assert set(errors(reply)) >= {"$.name", "$.config.priority"}


@pytest.mark.parametrize(
  ("wish", "path"),
  [
    ({"cron_expression": "61 * * * *"}, "$.cron_expression"),
    ({"cron_expression": "every day"}, "$.cron_expression"),
    ({"cron_expression": "* * * * *", "timezone": "Nowhere/Land"}, "$.timezone"),
    (
      {"cron_expression": "* * * * *", "run_at": "2030-01-01T00:00:00Z"},
      "$.run_at",
    ),
    ({"kind": "time", "interval_seconds": 0.1}, "$.interval_seconds"),
    ({"kind": "time", "run_at": "2030-01-01T00:00:00"}, "$.run_at"),
    ({"kind": "time", "run_at": "2001-01-01T00:00:00Z"}, "$.run_at"),
    ({"kind": "event"}, "$.event_name"),
    ({"cron_expression": "* * * * *", "start_at": FIRST}, "$.start_at"),
    ({"cron_expression": "* * * * *", "end_at": LAST}, "$.end_at"),
  ],
)
async def test_an_invalid_schedule_is_refused_where_it_is_wrong(
  api: Api, wish: dict[str, Any], path: str
) -> None:
  job = await api.make_job()
  reply = await api.post("schedules", {"kind": "cron", "job_id": job["id"]} | wish)
  assert reply.status == 422
  assert path in errors(reply)


@pytest.mark.parametrize("data", [b"{", b"", b"\xff", b'{"name": }', b"{'a': 1}"])
async def test_what_is_not_json_is_malformed(api: Api, data: bytes) -> None:
  reply = await api.post("jobs", data=data)
  assert reply.status == 400
  assert "not JSON" in errors(reply)["$"]


@pytest.mark.parametrize("size", [MAX_BODY_SIZE + 1, 20 * 1024**2])
async def test_a_body_that_is_too_large_is_refused(api: Api, size: int) -> None:
  reply = await api.post("jobs", data=b" " * size)
  assert reply.status == 413
  assert errors(reply) == {}
  assert str(MAX_BODY_SIZE) in reply.body["detail"]


@pytest.mark.parametrize(
  "authorization",
  [
    "",
    "Bearer",
    "Bearer wrong",
    "Basic YTpi",
    "Bearer hfk_" + "0" * 32 + "_" + "a" * 43,
  ],
)
async def test_without_a_good_key_nobody_gets_in(api: Api, authorization: str) -> None:
  for path in ("jobs", "nothing/here", "system/info", "api-keys"):
    reply = await api.get(path, headers={"Authorization": authorization})
    assert reply.status == 401
    assert reply.headers["WWW-Authenticate"] == 'Bearer realm="hetuflow"'
    assert errors(reply) == {}


async def test_a_revoked_key_is_refused_at_once(api: Api) -> None:
  made = (await api.post("api-keys", {"name": "second"})).body
  theirs = {"Authorization": f"Bearer {made['key']}"}
  assert (await api.get("jobs", headers=theirs)).status == 200
  assert (await api.delete(f"api-keys/{made['id']}")).status == 204
  assert (await api.get("jobs", headers=theirs)).status == 401


async def test_a_name_that_is_taken_is_a_conflict_that_says_so(api: Api) -> None:
  await api.make_job("backup")
  reply = await api.post("jobs", JOB)
  assert reply.status == 409
  errors(reply)
  expected = "a job named 'backup' already exists in namespace 'default'"
  assert reply.body["detail"] == expected
  assert (await api.post("namespaces", {"id": "default"})).status == 409
  assert (await api.post("api-keys", {"name": "admin"})).status == 409


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize("resource", ["jobs", "schedules", "tasks"])
async def test_what_is_not_there_is_not_found(
  api: Api, method: str, resource: str
) -> None:
  body = {} if method == "PATCH" else None
  reply = await api.call(method, f"{resource}/{NOBODY}", body)
  assert reply.status == 404
  errors(reply)
  assert NOBODY in reply.body["detail"]


async def test_an_unknown_path_and_a_wrong_method_are_problems_too(api: Api) -> None:
  reply = await api.get("nothing")
  assert reply.status == 404
  errors(reply)
  reply = await api.get("jobs/not-an-id")
  assert reply.status == 404
  reply = await api.call("PUT", "jobs")
  assert reply.status == 405
  errors(reply)
  assert "POST" in reply.headers["Allow"]
  reply = await api.get("/elsewhere")
  assert reply.status == 404
  errors(reply)


@pytest.mark.parametrize(
  ("query", "path"),
  [
    ("limit=0", "$.limit"),
    ("limit=1001", "$.limit"),
    ("limit=ten", "$.limit"),
    ("limit=1&limit=2", "$.limit"),
    ("cursor=here", "$.cursor"),
    ("status=busy", "$.status"),
    ("colour=red", "$.colour"),
    ("name=%00", "$.name"),
  ],
)
async def test_a_wrong_query_is_refused(api: Api, query: str, path: str) -> None:
  reply = await api.get(f"jobs?{query}")
  assert reply.status == 422
  assert path in errors(reply)


async def test_a_problem_is_found_in_the_log_by_its_trace(api: Api) -> None:
  trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
  sent = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
  with capture_logs() as lines:
    reply = await api.get("nothing?token=abc&a=b", headers=sent)
  assert reply.body["trace_id"] == trace_id
  [line] = [line for line in lines if line["event"] == "http_request"]
  assert (line["status"], line["trace_id"]) == (404, trace_id)
  assert line["query"] == "token=***&a=b"


async def test_a_bug_is_told_without_its_inside(api: Api) -> None:
  @api.app.get("/broken")
  async def broken() -> str:
    raise RuntimeError("the inside")

  with capture_logs() as lines:
    reply = await api.get("/broken")
  assert reply.status == 500
  errors(reply)
  assert b"inside" not in reply.raw
  [line] = [line for line in lines if line["event"] == "request_failed"]
  assert line["trace_id"] == reply.body["trace_id"]


@pytest.mark.parametrize("moment", [FIRST, LAST])
async def test_moments_that_mean_infinity_are_refused(api: Api, moment: str) -> None:
  job = await api.make_job()
  task = (await api.post(f"jobs/{job['id']}/run")).body
  wish = {"job_id": job["id"], "scheduled_at": moment}
  calls = [
    await api.post("tasks", wish),
    await api.post("tasks/batch", {"items": [wish]}),
    await api.post(f"jobs/{job['id']}/run", {"scheduled_at": moment}),
    await api.patch(f"tasks/{task['id']}", {"scheduled_at": moment}),
    await api.post(
      "schedules/preview",
      {"kind": "time", "interval_seconds": 60, "start_at": moment},
    ),
  ]
  for reply in calls:
    assert reply.status == 422
    [path] = errors(reply)
    assert path.endswith("_at")
  assert len((await api.get("tasks")).body["items"]) == 1


async def test_a_namespace_of_an_impossible_name_is_not_found(api: Api) -> None:
  for name in ("%00", "A", "a/b"):
    assert (await api.get(f"namespaces/{name}")).status == 404
  for cursor in ("%00", "A"):
    reply = await api.get(f"namespaces?cursor={cursor}")
    assert (reply.status, list(errors(reply))) == (422, ["$.cursor"])


@pytest.mark.parametrize("cursor", ["-5", "0", "x", "99999999999"])
async def test_a_wrong_version_is_no_cursor(api: Api, cursor: str) -> None:
  job = await api.make_job()
  reply = await api.get(f"jobs/{job['id']}/versions?cursor={cursor}")
  assert (reply.status, list(errors(reply))) == (422, ["$.cursor"])


@pytest.mark.parametrize(("path", "status"), [("/nothing", 404), ("/api/v1/jobs", 405)])
async def test_a_websocket_that_is_not_served_is_refused_by_a_problem(
  api: Api, path: str, status: int
) -> None:
  with capture_logs() as lines:
    async with api.app.test_client().websocket(f"{path}?token=abc") as socket:
      with pytest.raises(WebsocketResponseError) as refused:
        await socket.receive()
  response = refused.value.response
  problem = await response.get_json(force=True)
  assert (response.status_code, problem["status"]) == (status, status)
  [line] = [line for line in lines if line["event"] == "http_request"]
  assert line["trace_id"] == problem["trace_id"]
  assert (line["path"], line["query"]) == (path, "token=***")


@pytest.mark.parametrize(
  "moment", ["9998-12-31T23:59:59-01:00", "1900-01-01T00:00:00+01:00"]
)
async def test_a_moment_that_its_offset_moves_out_of_bounds_spoils_no_list(
  api: Api, moment: str
) -> None:
  job = await api.make_job()
  task = {"job_id": job["id"], "scheduled_at": moment}
  schedule = CRON | {"job_id": job["id"], "end_at": moment}
  assert (await api.post("tasks", task)).status == 422
  assert (await api.post("schedules", schedule)).status == 422
  assert (await api.get("tasks")).body["items"] == []
  assert (await api.get("schedules")).body["items"] == []


async def test_what_no_agent_could_be_sent_is_refused_by_its_path(api: Api) -> None:
  job = await api.make_job()
  # Each is an integer of 301 digits when it comes out of the database.
  run = {"parameters": {"a": [1e300] * 14_000}}
  task = run | {"job_id": job["id"]}
  reply = await api.post(f"jobs/{job['id']}/run", run)
  assert (reply.status, list(errors(reply))) == (422, ["$.parameters"])
  reply = await api.post("tasks/batch", {"items": [task]})
  assert (reply.status, list(errors(reply))) == (422, ["$.items[0].parameters"])
  reply = await api.post("schedules", CRON | task)
  assert (reply.status, list(errors(reply))) == (422, ["$.parameters"])
  assert (await api.get("tasks")).body["items"] == []


async def test_a_body_that_does_not_come_is_not_waited_for(api: Api) -> None:
  api.app.config["BODY_TIMEOUT"] = 0.05
  headers = {"Authorization": f"Bearer {api.key}", "Content-Length": "100"}
  client = api.app.test_client()
  with trio.fail_after(20):
    async with client.request(
      "/api/v1/jobs", method="POST", headers=headers
    ) as connection:
      await connection.send(b"{")
      await connection.receive()
      response = await connection.as_response()
  assert response.status_code == 408
  assert response.content_type == "application/problem+json"
