"""Agents in a real database, apart from what their claims become."""

import pytest
import trio
from support.members import SET_LEASE, claim_one, join, make_tasks
from support.world import make_job, make_namespace

from hetuflow.errors import Conflict, NotFound, Refused
from hetuflow.protocol.messages import AgentRegisterRequest, HeartbeatRequest
from hetuflow.protocol.model import (
  AgentFilter,
  AgentForCreate,
  AgentForUpdate,
  AgentId,
  AgentMetrics,
  NamespaceId,
  ServerId,
  new_id,
)
from hetuflow.protocol.states import AgentStatus
from hetuflow.server.session import Session
from hetuflow.server.sessions import Sessions
from hetuflow.storage.agents import (
  Heartbeat,
  close_session,
  create_agent,
  delete_agent,
  get_agent,
  query_agents,
  renew_sessions,
  update_agent,
)
from hetuflow.storage.connect import Database
from hetuflow.storage.registration import register_agent

DEFAULT = NamespaceId("default")


async def register(database: Database, **more: object) -> None:
  """Register an agent with a fresh session."""
  fields = {
    "protocol_version": 1,
    "agent_id": AgentId(new_id()),
    "epoch": 1,
    "name": "agent",
    "namespace_ids": [DEFAULT],
  }
  await register_agent(
    database,
    AgentRegisterRequest(**(fields | more)),  # type: ignore[arg-type]  # as they come
    session_id=new_id(),
    server_id=ServerId(new_id()),
    lease=30.0,
  )


def beat(session: Session, **more: object) -> Heartbeat:
  """Make a heartbeat."""
  return Heartbeat(
    agent_id=session.agent_id,
    session_id=session.id,
    status=AgentStatus.ONLINE,
    request=HeartbeatRequest(sent_at=1.0, **more),  # type: ignore[arg-type]  # as they come
  )


async def test_an_agent_is_read_changed_and_forgotten(database: Database) -> None:
  await make_namespace(database, "other")
  known = AgentForCreate(
    id=AgentId(new_id()), namespace_ids=[DEFAULT], name="web-1", labels={"disk": "ssd"}
  )
  made = await create_agent(database, known)
  assert (made.status, made.labels) == (AgentStatus.OFFLINE, {"disk": "ssd"})
  with pytest.raises(Conflict):
    await create_agent(database, known)
  changed = await update_agent(
    database, made.id, AgentForUpdate(name="web-2", labels={"rack": "7"})
  )
  assert (changed.name, changed.labels) == ("web-2", {"disk": "ssd", "rack": "7"})
  await register(database, name="elsewhere", namespace_ids=[NamespaceId("other")])
  wanted = AgentFilter(namespace_id="default")
  assert await query_agents(database, wanted, limit=9) == [changed]
  online = AgentFilter(status=AgentStatus.ONLINE)
  [other] = await query_agents(database, online, limit=9)
  assert other.name == "elsewhere"
  assert await query_agents(database, AgentFilter(), limit=1, cursor=other.id) == [
    changed
  ]
  await delete_agent(database, made.id)
  with pytest.raises(NotFound):
    await get_agent(database, made.id)
  with pytest.raises(NotFound):
    await delete_agent(database, made.id)
  with pytest.raises(NotFound):
    await update_agent(database, made.id, AgentForUpdate(name="x"))


async def test_overrides_of_operators_outlive_a_registration(
  database: Database,
) -> None:
  agent_id = AgentId(new_id())
  await register(database, agent_id=agent_id, labels={"disk": "ssd", "rack": "1"})
  await update_agent(database, agent_id, AgentForUpdate(labels={"rack": "7"}))
  await register(database, agent_id=agent_id, epoch=2, labels={"rack": "2"})
  assert (await get_agent(database, agent_id)).labels == {"rack": "7"}


async def test_an_older_start_does_not_come_back(database: Database) -> None:
  agent_id = AgentId(new_id())
  await register(database, agent_id=agent_id, epoch=5)
  await register(database, agent_id=agent_id, epoch=5)
  with pytest.raises(Refused, match="later start"):
    await register(database, agent_id=agent_id, epoch=4)
  with pytest.raises(Refused, match="no namespace nowhere"):
    await register(database, namespace_ids=[DEFAULT, NamespaceId("nowhere")])


async def test_a_registration_that_was_given_up_does_not_replace_the_one_after(
  database: Database,
) -> None:
  agent_id = AgentId(new_id())
  await register(database, agent_id=agent_id, epoch=2, session_number=8)
  with pytest.raises(Refused, match="later start or session"):
    await register(database, agent_id=agent_id, epoch=2, session_number=7)
  await register(database, agent_id=agent_id, epoch=2, session_number=8)
  await register(database, agent_id=agent_id, epoch=3, session_number=1)


async def test_an_agent_is_offline_once_its_lease_or_session_has_ended(
  database: Database,
) -> None:
  agent = await join(database, Sessions())
  other = await join(database, Sessions())
  await database.fetch(SET_LEASE, id=agent.agent_id, seconds=-1.0)
  assert (await get_agent(database, agent.agent_id)).status is AgentStatus.OFFLINE
  metrics = AgentMetrics(running=3)
  renewed = await renew_sessions(database, [beat(agent, metrics=metrics)], lease=9.0)
  assert set(renewed) == {agent.id}
  read = await get_agent(database, agent.agent_id)
  assert (read.status, read.metrics) == (AgentStatus.ONLINE, metrics)
  # Only the live session closes it.
  await close_session(database, agent.agent_id, other.id)
  assert (await get_agent(database, agent.agent_id)).status is AgentStatus.ONLINE
  await close_session(database, agent.agent_id, agent.id)
  assert (await get_agent(database, agent.agent_id)).status is AgentStatus.OFFLINE
  beats = [beat(agent), beat(other)]
  assert set(await renew_sessions(database, beats, lease=9.0)) == {other.id}


async def test_an_agent_with_work_or_a_connection_is_not_forgotten(
  database: Database,
) -> None:
  job = await make_job(database)
  await make_tasks(database, job)
  row = await claim_one(database, job)
  agent_id = AgentId(row["agent_id"])
  with pytest.raises(Conflict, match="connected or has work"):
    await delete_agent(database, agent_id)
  await database.fetch(SET_LEASE, id=agent_id, seconds=-1.0)
  with pytest.raises(Conflict, match="connected or has work"):
    await delete_agent(database, agent_id)


async def test_heartbeats_in_any_order_do_not_deadlock(database: Database) -> None:
  sessions = Sessions()
  agents = [await join(database, sessions) for _ in range(30)]

  async def renew(reverse: bool) -> None:
    for _ in range(10):
      order = agents[::-1] if reverse else agents
      renewed = await renew_sessions(database, [beat(one) for one in order], lease=9.0)
      assert len(renewed) == 30

  with trio.fail_after(20):
    async with trio.open_nursery() as nursery:
      for number in range(4):
        nursery.start_soon(renew, bool(number % 2))
