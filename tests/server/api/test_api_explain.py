"""Explanations through the API."""

from support.api import Api
from support.members import join

from hetuflow.protocol.model import new_id
from hetuflow.server.sessions import Sessions
from hetuflow.storage.connect import Database


async def test_a_task_is_explained_by_its_id(api: Api, database: Database) -> None:
  await join(database, Sessions(), name="web-1")
  job = await api.make_job()
  task = (await api.post(f"jobs/{job['id']}/run")).body
  reply = await api.get(f"tasks/{task['id']}/explain")
  assert reply.status == 200
  assert reply.body["task_id"] == task["id"]
  assert reply.body["status"] == "pending"
  assert reply.body["reasons"][0]["code"] == "claimable"
  assert "web-1 can take it" in reply.body["verdict"]


async def test_a_task_that_is_not_there_is_not_explained(api: Api) -> None:
  assert (await api.get(f"tasks/{new_id()}/explain")).status == 404
