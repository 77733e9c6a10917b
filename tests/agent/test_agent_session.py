"""The session: registration, refusals, reconnects, heartbeats, compression."""

import json

import attrs
import pytest
import trio
from agent_stage import (
  TOKEN,
  make_config,
  make_job,
  make_task,
  running_agent,
  settled,
)

from hetuflow.agent.config import AgentConfig, AgentSettings
from hetuflow.agent.link import connection
from hetuflow.agent.link.connection import Replaced
from hetuflow.agent.link.endpoints import DEFAULT_URL, Endpoint, Endpoints
from hetuflow.agent.link.websocket import CONNECT_SECONDS, Offline, open_websocket
from hetuflow.agent.program import open_agent
from hetuflow.errors import Refused
from hetuflow.nursery.groups import sole_leaf
from hetuflow.protocol.messages import PROTOCOL_VERSION, MessageKind
from hetuflow.protocol.states import TaskInstanceStatus as S
from hetuflow.ready import publish_ready

HEARTBEAT = MessageKind.HEARTBEAT_REQUEST


async def run_to_its_end(config):
  """Run an agent until something ends it, and raise just what that was."""
  problem = None
  try:
    async with open_agent(config) as (supervisor, _):
      await supervisor.run()
  except BaseException as error:
    problem = sole_leaf(error)
  if problem is not None:
    raise problem


async def test_an_agent_introduces_itself(gateway, tmp_path):
  config = make_config(tmp_path, gateway, labels={"disk": "ssd"}, namespaces=("a", "b"))
  with trio.fail_after(30):
    async with running_agent(config):
      register = (await gateway.registered()).register
  assert gateway.peer.messages[0].message_kind is MessageKind.AGENT_REGISTER_REQUEST
  assert register.protocol_version == PROTOCOL_VERSION
  assert (register.epoch, register.name) == (1, "agent-under-test")
  assert (register.namespace_ids, register.labels) == (["a", "b"], {"disk": "ssd"})
  assert register.compression is True
  assert register.held == []
  assert register.capabilities.executors == ["process", "shell", "python"]
  assert "hetuflow.noop" in register.capabilities.functions
  assert register.capabilities.max_concurrent == 8


async def test_the_clock_is_good_before_the_first_interval_is_over(gateway, tmp_path):
  gateway.session = attrs.evolve(gateway.session, heartbeat_interval=60.0)
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      await gateway.until(
        lambda: gateway.peers and len(gateway.peer.of(HEARTBEAT)) >= 5
      )
  last = gateway.peer.of(HEARTBEAT)[-1].payload
  assert abs(last.clock_offset_ms) < 100
  assert last.metrics.memory_percent > 0
  assert last.capabilities is None


async def test_heartbeats_keep_the_rhythm_the_server_asks_for(gateway, tmp_path):
  gateway.session = attrs.evolve(gateway.session, heartbeat_interval=0.1)
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      await gateway.until(
        lambda: gateway.peers and len(gateway.peer.of(HEARTBEAT)) >= 12
      )


async def test_a_half_open_connection_is_noticed_and_replaced(gateway, tmp_path):
  gateway.session = attrs.evolve(gateway.session, heartbeat_interval=0.1)
  gateway.silent = {HEARTBEAT}
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      await gateway.registered()
      await gateway.registered(sessions=2)


async def test_however_much_an_agent_holds_it_can_register(gateway, tmp_path):
  count, namespace = 10_000, "n" * 63
  tasks = [make_task(due_in=3600, namespace_id=namespace) for _ in range(count)]
  with trio.fail_after(60):
    async with running_agent(make_config(tmp_path, gateway, hold=count)) as agent:
      await gateway.granted()
      for start in range(0, count, 500):
        await gateway.dispatch(*tasks[start : start + 500], job=make_job())
      await settled(lambda: len(agent.parts.instances) == count)
      await gateway.peer.socket.aclose(1011, "test")
      again = await gateway.registered(sessions=2)
  assert {each.instance_id for each in again.register.held} == {
    each.instance_id for each in tasks
  }
  assert len(again.register.held) == count
  assert again.largest_frame < 1024**2


@pytest.mark.parametrize("code", [1001, 1011, 4001])
async def test_a_lost_session_is_replaced_by_a_new_one(gateway, tmp_path, code):
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      await gateway.granted()
      await gateway.peer.socket.aclose(code, "test")
      await gateway.registered(sessions=2)
      grant = await gateway.granted()
      assert (grant.run, grant.hold) == (8, 1000)
      await gateway.dispatch(task := make_task(), job=make_job())
      assert (await gateway.result(task.instance_id)).status is S.SUCCEEDED


async def test_a_kicked_agent_stays_away_for_a_while(gateway, tmp_path, monkeypatch):
  monkeypatch.setattr(connection, "KICKED_PAUSE_SECONDS", 0.5)
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      await gateway.registered()
      since = trio.current_time()
      await gateway.peer.socket.aclose(4002, "kicked")
      await gateway.registered(sessions=2)
      assert trio.current_time() - since >= 0.5


async def test_a_server_that_is_not_there_yet_is_waited_for(gateway, tmp_path):
  gateway.rejects = 503
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      gateway.rejects = None
      await gateway.registered()


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_token_ends_the_agent(gateway, tmp_path, status):
  gateway.rejects = status
  with trio.fail_after(30), pytest.raises(Refused, match=f"token .*{status}"):
    await run_to_its_end(make_config(tmp_path, gateway))


@pytest.mark.parametrize(
  "code", ["unsupported_version", "unknown_namespace", "forbidden_namespace"]
)
async def test_a_refused_registration_ends_the_agent_with_the_reason(
  gateway, tmp_path, code
):
  gateway.error = code
  with trio.fail_after(30), pytest.raises(Refused, match=f"said the test .*{code}"):
    await run_to_its_end(make_config(tmp_path, gateway))


async def test_an_agent_whose_registration_is_superseded_does_not_come_back(
  gateway, tmp_path
):
  gateway.error = "superseded"
  with trio.fail_after(30), pytest.raises(Replaced):
    await run_to_its_end(make_config(tmp_path, gateway))
  assert len(gateway.peers) == 1


async def test_each_registration_of_a_start_has_a_higher_number(gateway, tmp_path):
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      first = await gateway.registered()
      await first.socket.aclose(1011, "said the test")
      second = await gateway.registered(2)
  said = [first.register, second.register]
  assert len({each.epoch for each in said}) == 1
  assert [each.session_number for each in said] == [1, 2]


async def test_an_agent_replaced_by_a_newer_session_does_not_come_back(
  gateway, tmp_path, nursery
):
  async def replace():
    """Close the session as a server does that has a newer one."""
    await gateway.registered()
    await gateway.peer.socket.aclose(4003, "newer")

  nursery.start_soon(replace)
  with trio.fail_after(30), pytest.raises(Replaced):
    await run_to_its_end(make_config(tmp_path, gateway))
  assert len(gateway.peers) == 1


async def test_large_messages_are_compressed_when_both_agree(gateway, tmp_path):
  gateway.session = attrs.evolve(gateway.session, compression=True)
  task, job = make_task(), make_job("head -c 5000 /dev/zero", executor="shell")
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      await gateway.granted()
      await gateway.dispatch(task, job=job)
      await gateway.result(task.instance_id)
  assert gateway.peer.binary_frames >= 2
  assert gateway.output(task.instance_id) == bytes(5000)


@pytest.mark.parametrize("frame", ["{", b"no binary was agreed upon", '{"a": 1}'])
async def test_an_invalid_message_is_answered_and_survived(gateway, tmp_path, frame):
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      await gateway.granted()
      await gateway.peer.socket.send_message(frame)
      await gateway.dispatch(task := make_task(), job=make_job())
      await gateway.result(task.instance_id)
  [error] = gateway.peer.of(MessageKind.ERROR)
  assert error.payload.code == "invalid_message"
  assert error.payload.path.startswith("$")


async def test_the_server_and_token_are_found_in_the_data_folder(gateway, tmp_path):
  config = make_config(tmp_path, gateway)
  config = attrs.evolve(config, agent=attrs.evolve(config.agent, server=(), token=None))
  with trio.fail_after(30):
    async with running_agent(config):
      place = {"url": f"http://127.0.0.1:{gateway.port}", "pid": 1}
      (tmp_path / "agent.token").write_text(TOKEN + "\n")
      with publish_ready(tmp_path / "server.json", json.dumps(place).encode()):
        await gateway.registered()


def test_a_server_that_is_named_is_the_one_even_if_it_is_the_default(tmp_path):
  named = AgentSettings(server=(DEFAULT_URL,), token=TOKEN, data_dir=tmp_path)
  unnamed = Endpoints(AgentConfig(agent=attrs.evolve(named, server=())))
  with publish_ready(tmp_path / "server.json", b'{"url": "http://127.0.0.1:9"}'):
    assert Endpoints(AgentConfig(agent=named)).next().url == DEFAULT_URL
    assert unnamed.next().url == "ws://127.0.0.1:9/ws"
  assert unnamed.next().url == DEFAULT_URL


def test_the_token_of_a_folder_is_for_servers_that_run_on_it(tmp_path):
  endpoints = Endpoints(AgentConfig(agent=AgentSettings(data_dir=tmp_path)))
  (tmp_path / "agent.token").write_text(TOKEN)
  assert endpoints.next() is None
  (tmp_path / "servers").mkdir()
  with publish_ready(tmp_path / "server.json", b'{"url": "http://127.0.0.1:9"}'):
    assert endpoints.next().url == "ws://127.0.0.1:9/ws"
  # What a killed server leaves behind, and what no server has written.
  assert endpoints.next() is None
  (tmp_path / "server.json").write_text("broken")
  with publish_ready(tmp_path / "servers" / "a.json", b'{"url": "https://host:9"}'):
    assert endpoints.next().url == "wss://host:9/ws"
  with publish_ready(tmp_path / "servers" / "a.json", b'{"url": "gopher://host"}'):
    assert endpoints.next() is None


def test_named_servers_are_tried_in_turn(tmp_path):
  named = AgentSettings(server=("ws://a/ws", "ws://b/ws"), token=TOKEN)
  endpoints = Endpoints(AgentConfig(agent=named))
  found = [endpoints.next().url for _ in range(3)]
  assert found == ["ws://a/ws", "ws://b/ws", "ws://a/ws"]


@pytest.mark.parametrize(
  "url",
  ["ws://no..name/ws", f"ws://{'n' * 64}/ws", "ws://127.0.0.1:99999/ws", "ws://[::1"],
)
async def test_an_address_that_can_be_none_is_one_where_nobody_is(url):
  with pytest.raises(Offline):
    async with open_websocket(Endpoint(url=url, token=TOKEN)):
      pass


async def test_why_no_encryption_can_be_agreed_upon_is_said_at_once(gateway):
  endpoint = Endpoint(url=gateway.url.replace("ws:", "wss:"), token=TOKEN)
  with trio.fail_after(CONNECT_SECONDS), pytest.raises(Offline, match=r"no TLS .*SSL"):
    async with open_websocket(endpoint):
      pass


async def test_two_agents_cannot_share_a_folder(gateway, tmp_path):
  config = make_config(tmp_path, gateway)
  with trio.fail_after(30):
    async with running_agent(config):
      with pytest.raises(Refused, match="in use"):
        await run_to_its_end(config)
