"""What operators want of agents reaches them over real connections of two servers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from gateway_scene import Peer, Scene, open_gateway

from hetuflow.protocol.messages import (
  AcquireTaskRequest,
  AgentCommand,
  AgentCommandKind,
  HeartbeatRequest,
  HeartbeatResponse,
)
from hetuflow.protocol.model import AgentId, AgentOrder, NamespaceId, new_id
from hetuflow.protocol.states import AgentStatus
from hetuflow.server.scheduling.notifier import Notifier
from hetuflow.storage.agents import get_agent
from hetuflow.storage.connect import Database
from hetuflow.storage.orders import order_agents

DRAIN, RESUME = AgentCommandKind.DRAIN, AgentCommandKind.RESUME


@attrs.frozen
class Servers:
  """Two gateways on one database, each with its ear to it, or deaf."""

  here: Scene
  there: Scene


@asynccontextmanager
async def two_servers(
  database: Database, *, deaf: bool = False
) -> AsyncIterator[Servers]:
  """Run two gateways; a deaf one is never notified."""
  async with (
    open_gateway(database) as here,
    open_gateway(database) as there,
    trio.open_nursery() as nursery,
  ):
    for scene in () if deaf else (here, there):
      listening = trio.Event()
      notifier = Notifier(database, _ear(scene, listening))
      await nursery.start(notifier.run)
      await listening.wait()
    yield Servers(here, there)
    nursery.cancel_scope.cancel()


def _ear(scene: Scene, listening: trio.Event) -> Any:
  """Make what a gateway's server does with a notification."""

  def hear(payload: str | None) -> None:
    """Pass hints on, as the tree does."""
    listening.set()
    if payload in (None, "agents"):
      scene.presence.hint()

  return hear


@pytest.fixture
async def servers(database: Database) -> AsyncIterator[Servers]:
  with trio.fail_after(60):
    async with two_servers(database) as running:
      yield running


async def told(peer: Peer) -> AgentCommandKind:
  """Receive what must be a command."""
  payload = (await peer.receive()).payload
  assert isinstance(payload, AgentCommand), payload
  return payload.command


async def beat(peer: Peer) -> None:
  """Send a heartbeat and receive its answer."""
  await peer.send("heartbeat_request", HeartbeatRequest(sent_at=1.0))
  assert isinstance((await peer.receive()).payload, HeartbeatResponse)


async def test_a_drained_agent_is_told_wherever_it_is_and_gets_nothing_until_resumed(
  database: Database, servers: Servers
) -> None:
  agent_id = AgentId(new_id())
  async with servers.there.connect() as peer:
    await peer.register(agent_id=agent_id)
    await peer.send("acquire_task_request", AcquireTaskRequest(run=4, hold=9))
    await beat(peer)
    session = servers.there.sessions.get(agent_id)
    assert session is not None
    assert (session.run, session.hold) == (4, 9)
    assert await order_agents(database, AgentOrder.DRAIN, agent_ids=[agent_id]) == 1
    assert await told(peer) is DRAIN
    assert (await get_agent(database, agent_id)).status is AgentStatus.DRAINING
    await peer.send("acquire_task_request", AcquireTaskRequest(run=4))
    await beat(peer)
    assert (session.run, session.hold) == (0, 0)
    assert session.describe().draining
    await order_agents(database, AgentOrder.RESUME, agent_ids=[agent_id])
    assert await told(peer) is RESUME
    await peer.send("acquire_task_request", AcquireTaskRequest(run=3))
    await beat(peer)
    assert session.run == 3
    assert (await get_agent(database, agent_id)).status is AgentStatus.ONLINE


async def test_a_drain_lasts_over_reconnects_to_another_server(
  database: Database, servers: Servers
) -> None:
  agent_id = AgentId(new_id())
  async with servers.here.connect() as peer:
    await peer.register(agent_id=agent_id)
    await order_agents(database, AgentOrder.DRAIN, agent_ids=[agent_id])
    assert await told(peer) is DRAIN
  async with servers.there.connect() as peer:
    await peer.register(agent_id=agent_id, epoch=2)
    assert await told(peer) is DRAIN
    await peer.send("acquire_task_request", AcquireTaskRequest(run=4))
    await beat(peer)
    session = servers.there.sessions.get(agent_id)
    assert session is not None
    assert session.run == 0


async def test_an_agent_may_be_drained_while_it_is_away(
  database: Database, servers: Servers
) -> None:
  agent_id = AgentId(new_id())
  async with servers.here.connect() as peer:
    await peer.register(agent_id=agent_id)
  while (await get_agent(database, agent_id)).status is not AgentStatus.OFFLINE:
    await trio.lowlevel.checkpoint()
  assert await order_agents(database, AgentOrder.DRAIN, agent_ids=[agent_id]) == 1
  async with servers.there.connect() as peer:
    await peer.register(agent_id=agent_id, epoch=2)
    assert await told(peer) is DRAIN


async def test_a_disconnected_agent_is_closed_by_its_server_and_may_come_back(
  database: Database, servers: Servers
) -> None:
  agent_id = AgentId(new_id())
  async with servers.there.connect() as peer:
    await peer.register(agent_id=agent_id)
    await order_agents(database, AgentOrder.DISCONNECT, agent_ids=[agent_id])
    assert await peer.closed() == 4002
  async with servers.there.connect() as peer:
    await peer.register(agent_id=agent_id, session_number=1)
    servers.there.presence.hint()
    await beat(peer)


async def test_who_is_not_connected_cannot_be_disconnected(database: Database) -> None:
  wish = AgentOrder.DISCONNECT
  assert await order_agents(database, wish, agent_ids=[AgentId(new_id())]) == 0


async def test_without_a_notification_an_order_comes_with_the_next_heartbeat(
  database: Database,
) -> None:
  agent_id = AgentId(new_id())
  with trio.fail_after(30):
    async with (
      two_servers(database, deaf=True) as servers,
      servers.here.connect() as peer,
    ):
      await peer.register(agent_id=agent_id)
      await order_agents(database, AgentOrder.DRAIN, agent_ids=[agent_id])
      await beat(peer)
      assert await told(peer) is DRAIN
      await order_agents(database, AgentOrder.DISCONNECT, agent_ids=[agent_id])
      await beat(peer)
      assert await peer.closed() == 4002


async def test_a_broadcast_reaches_those_that_are_meant_on_all_servers(
  database: Database, servers: Servers
) -> None:
  async with (
    servers.here.connect() as one,
    servers.there.connect() as two,
    servers.there.connect() as other,
  ):
    await one.register(labels={"rack": "7", "disk": "ssd"})
    await two.register(labels={"rack": "7"})
    await other.register(labels={"rack": "8"})
    count = await order_agents(
      database,
      AgentOrder.SHUTDOWN,
      namespace_id=NamespaceId("default"),
      labels={"rack": "7"},
    )
    assert count == 2
    for peer in (one, two):
      assert await told(peer) is AgentCommandKind.SHUTDOWN
      await beat(peer)  # it is said once
    await beat(other)
    assert await order_agents(database, AgentOrder.DRAIN) == 3
    for peer in (one, two, other):
      assert await told(peer) is DRAIN


async def test_a_connection_tells_what_has_passed(
  database: Database, servers: Servers
) -> None:
  async with servers.here.connect() as peer:
    response = await peer.register(name="web-1", compression=True)
    await beat(peer)
    await beat(peer)
    [shown] = servers.here.gateway.connections()
    assert (shown.name, shown.session_id) == ("web-1", response.session_id)
    assert shown.received == {"heartbeat_request": 2}
    assert shown.sent == {"agent_register_response": 1, "heartbeat_response": 2}
    assert (shown.frames_received, shown.frames_sent) == (2, 3)
    assert shown.bytes_received > 200
    assert shown.bytes_sent > 300
    assert shown.compression
    assert 0 <= shown.silence < 30
    assert shown.ack_ms is None
  while len(servers.here.sessions):
    await trio.lowlevel.checkpoint()
  total = servers.here.gateway.statistics()
  assert (total.connections, total.opened) == (0, 1)
  assert total.received == {"heartbeat_request": 2}
  assert total.bytes_sent == shown.bytes_sent
