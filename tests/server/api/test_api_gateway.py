"""Orders for agents, and the sessions of this server, through the API."""

import pytest
from support.api import Api, Sessions, Wakes
from support.members import join

from hetuflow.protocol.model import new_id
from hetuflow.server.sessions import Sessions as Connected
from hetuflow.storage.connect import Database


async def test_agents_are_drained_and_resumed(
  api: Api, database: Database, wakes: Wakes
) -> None:
  agent = await join(database, Connected())
  path = f"agents/{agent.agent_id}"
  drained = await api.post(f"{path}/drain")
  assert (drained.status, drained.body["status"]) == (200, "draining")
  assert [
    each["id"] for each in (await api.get("agents?status=draining")).body["items"]
  ]
  assert (await api.get("agents?status=online")).body["items"] == []
  resumed = await api.post(f"{path}/resume")
  assert (resumed.status, resumed.body["status"]) == (200, "online")
  assert wakes.heard == [("agents", "")] * 2


async def test_only_who_is_connected_can_be_disconnected(
  api: Api, database: Database
) -> None:
  sessions = Connected()
  agent = await join(database, sessions)
  path = f"agents/{agent.agent_id}/disconnect"
  assert (await api.post(path)).status == 202
  await api.post(f"agents/{agent.agent_id}/drain")
  assert (await api.post(f"agents/{new_id()}/disconnect")).status == 404


@pytest.mark.parametrize("order", ["drain", "resume", "disconnect"])
async def test_an_agent_that_is_not_there_is_told_nothing(api: Api, order: str) -> None:
  assert (await api.post(f"agents/{new_id()}/{order}")).status == 404


async def test_a_broadcast_says_for_how_many_it_is(
  api: Api, database: Database
) -> None:
  sessions = Connected()
  await join(database, sessions, labels={"rack": "7"})
  await join(database, sessions, labels={"rack": "8"})
  wish = {"command": "drain", "namespace_id": "default", "labels": {"rack": "7"}}
  reply = await api.post("gateway/broadcast", wish)
  assert (reply.status, reply.body) == (202, {"agents": 1})
  assert (await api.post("gateway/broadcast", {"command": "resume"})).body == {
    "agents": 2
  }
  assert (await api.post("gateway/broadcast", {"command": "kill"})).status == 422


async def test_the_sessions_of_this_server_are_listed(
  api: Api, database: Database, sessions: Sessions
) -> None:
  agent = await join(database, Connected(), name="web-1", run=3)
  sessions.sessions.append(agent)
  [shown] = (await api.get("gateway/connections")).body["items"]
  assert (shown["agent_id"], shown["name"]) == (str(agent.agent_id), "web-1")
  assert (shown["run"], shown["draining"]) == (3, False)
  assert (await api.get("gateway/stats")).body["connections"] == 1
