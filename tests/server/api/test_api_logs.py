"""The output of a task instance, read and followed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import attrs
import msgspec
import pytest
import trio
from support.api import Api
from support.programs import wait_until
from support.world import Attempt, start_attempt

from hetuflow.protocol.model import TaskId, new_id
from hetuflow.protocol.states import LogStream
from hetuflow.storage.access import create_api_key
from hetuflow.storage.connect import Database

OUT, ERR = LogStream.STDOUT, LogStream.STDERR
LIMIT_SECONDS = 20


@pytest.fixture
async def attempt(api: Api, database: Database) -> Attempt:
  """Output on both streams, of an instance that runs."""
  job = await api.make_job()
  task = (await api.post(f"jobs/{job['id']}/run")).body
  running = await start_attempt(database, TaskId(UUID(task["id"])))
  await running.print(OUT, 0, b"one\n")
  await running.print(ERR, 0, b"\xff\0")
  await running.print(OUT, 4, b"two\n")
  return running


async def test_output_comes_in_pages(api: Api, attempt: Attempt) -> None:
  path = f"task-instances/{attempt.id}/logs"
  body = (await api.get(path)).body
  assert [item["data"] for item in body["items"]] == ["one\n", "/wA=", "two\n"]
  assert [item["encoding"] for item in body["items"]] == ["utf8", "base64", "utf8"]
  assert (body["next_offset"], body["complete"]) == (3, False)
  rest = (await api.get(f"{path}?offset=2")).body
  assert [item["data"] for item in rest["items"]] == ["two\n"]
  out = (await api.get(f"{path}?stream=stdout&offset=2")).body
  assert [item["data"] for item in out["items"]] == ["e\n", "two\n"]
  assert out["next_offset"] == 8
  await attempt.end()
  assert (await api.get(path)).body["complete"] is True


async def test_output_comes_as_the_bytes_it_is(api: Api, attempt: Attempt) -> None:
  path = f"task-instances/{attempt.id}/logs"
  plain = {"Accept": "text/plain"}
  reply = await api.get(path, headers=plain)
  assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"
  assert reply.raw == b"one\n\xff\0two\n"
  assert (await api.get(f"{path}?stream=stderr", headers=plain)).raw == b"\xff\0"


@pytest.mark.parametrize("query", ["stream=both", "offset=-1", "offset=x", "tail=1"])
async def test_a_wrong_question_is_refused(
  api: Api, attempt: Attempt, query: str
) -> None:
  reply = await api.get(f"task-instances/{attempt.id}/logs?{query}")
  assert reply.status == 422


async def test_there_is_no_output_of_nobody(api: Api) -> None:
  sent = {"Accept": "text/event-stream"}
  reply = await api.get(f"task-instances/{new_id()}/logs", headers=sent)
  assert reply.status == 404


class Events:
  """Reads server-sent events."""

  def __init__(self, connection: Any) -> None:
    self._connection = connection
    self._buffer = b""

  async def next(self) -> tuple[str, Any]:
    """Return name and data of the next event."""
    while b"\n\n" not in self._buffer:
      self._buffer += await self._connection.receive()
    event, self._buffer = self._buffer.split(b"\n\n", 1)
    name, data = event.split(b"\n")
    parsed = msgspec.json.decode(data.removeprefix(b"data: "))
    return name.removeprefix(b"event: ").decode(), parsed


@asynccontextmanager
async def following(
  api: Api, attempt: Attempt, query: str = ""
) -> AsyncIterator[Events]:
  """Follow the output of an attempt."""
  headers = {"Authorization": f"Bearer {api.key}", "Accept": "text/event-stream"}
  path = f"/api/v1/task-instances/{attempt.id}/logs{query}"
  with trio.fail_after(LIMIT_SECONDS):
    async with api.app.test_client().request(path, headers=headers) as connection:
      await connection.send_complete()
      yield Events(connection)
      await connection.disconnect()


async def test_output_is_followed_to_its_end(api: Api, attempt: Attempt) -> None:
  async with following(api, attempt) as events:
    assert [(await events.next())[1]["data"] for _ in range(3)] == [
      "one\n",
      "/wA=",
      "two\n",
    ]
    await attempt.print(OUT, 8, b"three\n")
    name, chunk = await events.next()
    assert name == "chunk"
    assert chunk == {
      "stream": "stdout",
      "offset": 8,
      "data": "three\n",
      "encoding": "utf8",
    }
    await attempt.end(exit_code=3)
    assert await events.next() == ("end", {"status": "failed", "exit_code": 3})


async def test_following_goes_on_behind_an_offset(api: Api, attempt: Attempt) -> None:
  await attempt.end()
  async with following(api, attempt, "?stream=stdout&offset=4") as events:
    assert (await events.next())[1]["data"] == "two\n"
    assert await events.next() == ("end", {"status": "succeeded", "exit_code": 0})


async def test_followers_leave_when_the_server_drains(
  api: Api, attempt: Attempt
) -> None:
  headers = {"Authorization": f"Bearer {api.key}", "Accept": "text/event-stream"}
  path = f"/api/v1/task-instances/{attempt.id}/logs"
  with trio.fail_after(LIMIT_SECONDS):
    async with api.app.test_client().request(path, headers=headers) as connection:
      await connection.send_complete()
      await connection.receive()
      api.services.draining.set()
      response = await connection.as_response()
    assert response.status_code == 200


async def test_following_ends_when_the_key_is_revoked(
  api: Api, attempt: Attempt
) -> None:
  other, key = await create_api_key(api.services.database, "other")
  async with following(attrs.evolve(api, key=key), attempt) as events:
    assert (await events.next())[0] == "chunk"
    assert (await api.delete(f"api-keys/{other.id}")).status == 204
    await wait_until(lambda: not api.services.followers)


async def test_more_followers_than_a_server_takes_are_told_to_come_again(
  api: Api, attempt: Attempt
) -> None:
  path = f"task-instances/{attempt.id}/logs"
  headers = {"Accept": "text/event-stream"}
  full = attrs.evolve(api.services, max_followers=1)
  api.app.extensions["hetuflow"] = full
  async with following(api, attempt) as events:
    assert (await events.next())[0] == "chunk"
    refused = await api.get(path, headers=headers)
    assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
    assert (await api.get(path)).status == 200
    await attempt.end()
    await wait_until(lambda: not full.followers)
