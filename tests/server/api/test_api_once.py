"""``Idempotency-Key``: asked twice, done once."""

from typing import Any

import trio
from support.api import Api, Reply

JOB = {"name": "backup", "config": {"cmd": "/bin/true"}}
KEY = {"Idempotency-Key": "k1"}


async def test_the_second_request_gets_the_first_answer(api: Api) -> None:
  first = await api.post("jobs", JOB, headers=KEY)
  second = await api.post("jobs", JOB, headers=KEY)
  assert (first.status, second.status) == (201, 201)
  assert second.body == first.body
  assert second.headers["Location"] == first.headers["Location"]


async def test_many_at_once_are_one(api: Api) -> None:
  job = await api.make_job()
  replies: list[Reply] = []

  async def run() -> None:
    replies.append(await api.post(f"jobs/{job['id']}/run", {}, headers=KEY))

  async with trio.open_nursery() as nursery:
    for _ in range(6):
      nursery.start_soon(run)
  assert {reply.status for reply in replies} == {201}
  assert len({reply.body["id"] for reply in replies}) == 1
  assert len((await api.get("tasks")).body["items"]) == 1


async def test_a_key_belongs_to_its_body(api: Api) -> None:
  await api.post("jobs", JOB, headers=KEY)
  reply = await api.post("jobs", JOB | {"name": "other"}, headers=KEY)
  assert reply.status == 422
  assert reply.body["errors"][0]["path"] == "Idempotency-Key"


async def test_a_key_belongs_to_its_path_and_its_caller(api: Api) -> None:
  await api.post("jobs", JOB, headers=KEY)
  made = await api.post("namespaces", {"id": "billing"}, headers=KEY)
  assert made.status == 201
  other = (await api.post("api-keys", {"name": "other"})).body["key"]
  theirs = KEY | {"Authorization": f"Bearer {other}"}
  assert (await api.post("jobs", JOB, headers=theirs)).status == 409


async def test_a_failure_leaves_the_key_free(api: Api) -> None:
  wish: dict[str, Any] = JOB | {"namespace_id": "billing"}
  assert (await api.post("jobs", wish, headers=KEY)).status == 404
  await api.post("namespaces", {"id": "billing"})
  assert (await api.post("jobs", wish, headers=KEY)).status == 201


async def test_a_batch_is_made_once(api: Api) -> None:
  job = await api.make_job()
  batch = {"items": [{"job_id": job["id"]}] * 3}
  first = await api.post("tasks/batch", batch, headers=KEY)
  second = await api.post("tasks/batch", batch, headers=KEY)
  assert first.body == second.body
  assert len((await api.get("tasks")).body["items"]) == 3


async def test_a_key_that_is_too_long_is_refused(api: Api) -> None:
  reply = await api.post("jobs", JOB, headers={"Idempotency-Key": "k" * 256})
  assert reply.status == 422
