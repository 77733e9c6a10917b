"""Calls as plain data: what is sent, and how answers are read."""

import inspect
import json
import socket
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest

from hetuflow.client import (
  ApiError,
  AsyncClient,
  Call,
  Client,
  Place,
  ServerUnreachable,
)
from hetuflow.client.calls import jobs, schedules, system, tasks
from hetuflow.protocol.model import UNSET, JobForUpdate
from hetuflow.protocol.model.task import JobForRun

ID = UUID("0190a8b4-7c00-7000-8000-000000000002")
JOB = {
  "id": str(ID),
  "namespace_id": "default",
  "name": "backup",
  "description": "",
  "status": "enabled",
  "config": {"cmd": "/usr/local/bin/backup"},
  "version": 1,
  "created_at": "2026-01-01T00:00:00Z",
  "updated_at": "2026-01-01T00:00:00Z",
}


def answer(value: Any) -> bytes:
  """Write an answer as a server would."""
  return json.dumps(value).encode()


def test_a_filter_that_is_not_given_is_not_sent() -> None:
  call = schedules.list_schedules(namespace_id="default", enabled=False)
  assert call.path == "/api/v1/schedules"
  assert call.parameters() == {"namespace_id": "default", "enabled": "false"}
  assert call.content() is None


def test_what_stands_in_a_path_is_quoted() -> None:
  assert system.get_namespace("a/../b?c").path == "/api/v1/namespaces/a%2F..%2Fb%3Fc"


def test_a_page_leads_to_the_next_with_the_same_filters() -> None:
  call = jobs.list_jobs(namespace_id="default", limit=1)
  page = call.result(200, answer({"items": [JOB], "next_cursor": "abc"}))
  assert [job.name for job in page.items] == ["backup"]
  assert page.next_cursor == "abc"
  assert call.after("abc").parameters() == {
    "namespace_id": "default",
    "limit": "1",
    "cursor": "abc",
  }


def test_fields_of_a_newer_server_are_ignored() -> None:
  assert jobs.get_job(ID).result(200, answer({**JOB, "mood": "good"})).id == ID


def test_a_change_sends_only_what_changes() -> None:
  call = jobs.update_job(ID, JobForUpdate(description="nightly"))
  assert call.method == "PATCH"
  assert json.loads(call.content() or b"") == {"description": "nightly"}
  assert JobForUpdate().name is UNSET


def test_a_body_is_announced_as_json() -> None:
  call = jobs.run_job(ID, JobForRun(priority=5))
  assert call.path == f"/api/v1/jobs/{ID}/run"
  assert call.headers()["Content-Type"] == "application/json"
  assert json.loads(call.content() or b"")["priority"] == 5


def test_an_idempotency_key_travels_in_its_header() -> None:
  call = jobs.create_job({"name": "a"}, idempotency_key="once")
  assert call.headers()["Idempotency-Key"] == "once"


def test_only_reading_is_repeated() -> None:
  assert jobs.get_job(ID).repeatable
  assert not jobs.run_job(ID).repeatable
  assert not jobs.delete_job(ID).repeatable


def test_an_empty_answer_to_a_delete_is_good() -> None:
  assert jobs.delete_job(ID).result(204, b"") is None


def test_a_problem_becomes_an_error_with_its_fields() -> None:
  problem = {
    "type": "about:blank",
    "title": "Invalid value",
    "status": 422,
    "detail": "the body is wrong",
    "errors": [{"path": "$.name", "message": "required"}],
    "trace_id": "4bf9",
  }
  with pytest.raises(ApiError) as error:
    jobs.get_job(ID).result(422, answer(problem))
  assert error.value.status == 422
  assert error.value.errors == (("$.name", "required"),)
  assert error.value.trace_id == "4bf9"
  assert str(error.value) == (
    "Invalid value: the body is wrong: required @ $.name (HTTP 422)"
  )


def test_a_page_of_a_proxy_is_told_in_brief() -> None:
  with pytest.raises(ApiError) as error:
    jobs.get_job(ID).result(502, b"<html>" + b"x" * 10_000)
  assert error.value.title == "Bad Gateway"
  assert len(error.value.detail) == 300


@pytest.mark.parametrize(
  "body",
  [b"<html>", b"[]", b"{}", answer({"items": 5}), answer({"items": [{}]})],
)
def test_an_answer_that_is_not_understood_is_an_error(body: bytes) -> None:
  with pytest.raises(ApiError):
    jobs.list_jobs().result(200, body)


@pytest.mark.parametrize("module", [jobs, schedules, tasks, system])
def test_every_call_stands_under_the_root_of_the_api(module: ModuleType) -> None:
  for name in module.__all__:
    describe = getattr(module, name)
    if inspect.isclass(describe):
      continue
    required = [
      each
      for each in inspect.signature(describe).parameters.values()
      if each.default is inspect.Parameter.empty
    ]
    bodies = ("job", "change", "schedule", "timing", "task", "namespace")
    call = describe(
      *(
        {} if each.name in bodies else [] if each.name == "tasks" else ID
        for each in required
      )
    )
    assert isinstance(call, Call)
    assert call.path.startswith("/api/v1/")


def closed_port() -> Place:
  """Return a place where nobody listens."""
  with socket.socket() as held:
    held.bind(("127.0.0.1", 0))
    return Place(url=f"http://127.0.0.1:{held.getsockname()[1]}", key="k")


def test_a_server_that_is_not_there_is_told_with_what_to_do() -> None:
  with Client(closed_port()) as client, pytest.raises(ServerUnreachable) as error:
    client.send(jobs.run_job(ID))
  assert "hetuflow up" in str(error.value)


async def test_under_trio_a_server_that_is_not_there_is_told_alike() -> None:
  async with AsyncClient(closed_port()) as client:
    with pytest.raises(ServerUnreachable, match="hetuflow up"):
      await client.send(jobs.run_job(ID))
