"""The agents' door, through real sockets."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from gateway_scene import MAX_MESSAGE_SIZE, Scene, introduction, open_gateway
from structlog.testing import capture_logs
from support.members import make_tasks
from support.world import make_job, make_namespace, query
from trio_websocket import ConnectionRejected

from hetuflow.nursery import Wakeup
from hetuflow.protocol import wire
from hetuflow.protocol.messages import (
  Ack,
  AckOutcome,
  AcquireTaskRequest,
  AgentCommand,
  AgentCommandKind,
  DispatchTaskRequest,
  HeartbeatRequest,
  HeartbeatResponse,
  HeldClaim,
  LogChunk,
  MessageKind,
  TaskInstanceUpdate,
  TaskInstanceUpdates,
  TaskLog,
)
from hetuflow.protocol.model import AgentId, NamespaceId, new_id
from hetuflow.protocol.states import AgentStatus, LogStream, TaskInstanceStatus
from hetuflow.server import session as session_module
from hetuflow.server.gateway import connection as connection_module
from hetuflow.server.gateway import gateway as gateway_module
from hetuflow.server.gateway import registration as registration_module
from hetuflow.server.scheduling.poller import Poller
from hetuflow.server.session import Session
from hetuflow.storage.access import create_agent_token, delete_agent_token
from hetuflow.storage.agents import get_agent
from hetuflow.storage.connect import Database
from hetuflow.storage.logs import read_log

LETTERS = query("SELECT kind, agent_id, reason FROM sched_dead_letter")


@pytest.fixture
async def scene(database: Database) -> AsyncIterator[Scene]:
  with trio.fail_after(60):
    async with open_gateway(database) as running:
      yield running


async def wait_for_agent(scene: Scene, count: int = 1) -> None:
  """Wait until so many agents are connected."""
  while len(scene.sessions) != count:
    await trio.lowlevel.checkpoint()


# ── before the upgrade ──────────────────────────────────────────────────────────────


async def test_who_shows_no_good_token_is_refused(scene: Scene) -> None:
  for token, params in (("", ""), ("hft_wrong", ""), ("", "?token=wrong")):
    with pytest.raises(ConnectionRejected) as caught:
      async with scene.connect(token=token, query=params):
        raise AssertionError("nobody may come in")
    assert caught.value.status_code == 401
    assert json.loads(caught.value.body)["status"] == 401
  assert scene.gateway.statistics().refused == 3


async def test_a_token_may_stand_in_the_query(scene: Scene) -> None:
  async with scene.connect(token="", query=f"?token={scene.token}") as peer:
    await peer.register()


async def test_who_came_in_by_a_token_leaves_when_it_is_revoked(
  scene: Scene, database: Database
) -> None:
  token, secret = await create_agent_token(
    database, "leaving", [NamespaceId("default")]
  )
  async with scene.connect(token=secret) as peer, scene.connect() as other:
    await peer.register()
    await other.register()
    await delete_agent_token(database, token.id)
    for each in (peer, other):
      await each.send(MessageKind.HEARTBEAT_REQUEST, HeartbeatRequest(sent_at=1.0))
    assert await peer.closed() == 1008
    assert isinstance((await other.receive()).payload, HeartbeatResponse)


async def test_another_subprotocol_is_refused(scene: Scene) -> None:
  for offered in ((), ("chat",)):
    with pytest.raises(ConnectionRejected) as caught:
      async with scene.connect(subprotocols=offered):
        raise AssertionError("nobody may come in")
    assert caught.value.status_code == 400
  async with scene.connect(subprotocols=("chat", "hetuflow.v1")) as peer:
    assert peer.socket.subprotocol == "hetuflow.v1"
    await peer.register()


# ── registration ────────────────────────────────────────────────────────────────────


async def test_a_registered_agent_is_online_until_it_leaves(
  scene: Scene, database: Database
) -> None:
  agent_id = AgentId(new_id())
  async with scene.connect() as peer:
    answer = await peer.register(agent_id=agent_id, labels={"disk": "ssd"})
    assert answer.superseded == []
    assert answer.config.session_lease == 30.0
    assert answer.config.max_message_size == MAX_MESSAGE_SIZE
    agent = await get_agent(database, agent_id)
    assert (agent.status, agent.labels) == (AgentStatus.ONLINE, {"disk": "ssd"})
    [shown] = scene.gateway.connections()
    assert shown.agent_id == agent_id
    assert shown.session_id == answer.session_id
  await wait_for_agent(scene, 0)
  while (await get_agent(database, agent_id)).status is not AgentStatus.OFFLINE:
    pass


@pytest.mark.parametrize(
  ("change", "code"),
  [
    ({"protocol_version": 99}, "unsupported_version"),
    ({"namespace_ids": ["other"]}, "forbidden_namespace"),
  ],
)
async def test_an_agent_is_told_why_it_is_refused(
  scene: Scene, database: Database, change: dict[str, Any], code: str
) -> None:
  await make_namespace(database, "other")
  async with scene.connect() as peer:
    await peer.send("agent_register_request", introduction(**change))
    assert (await peer.error()).code == code
    assert await peer.closed() == 1008
  assert len(scene.sessions) == 0


async def test_a_namespace_that_does_not_exist_is_refused(
  scene: Scene, database: Database
) -> None:
  _, anywhere = await create_agent_token(database, "all", [NamespaceId("*")])
  async with scene.connect(token=anywhere) as peer:
    wish = introduction(namespace_ids=[NamespaceId("nowhere")])
    await peer.send("agent_register_request", wish)
    error = await peer.error()
    assert error.code == "unknown_namespace"
    assert "nowhere" in error.message
    assert await peer.closed() == 1008


async def test_a_registration_may_come_in_parts(database: Database) -> None:
  namespace = NamespaceId("n" * 63)
  held = [
    HeldClaim(instance_id=new_id(), namespace_id=namespace, claim_token=new_id())
    for _ in range(20_000)
  ]
  agent_id = AgentId(new_id())
  async with (
    open_gateway(database, max_message_size=1024**2) as scene,
    scene.connect() as peer,
  ):
    for start in range(0, 16_000, 4_000):
      part = held[start : start + 4_000]
      request = introduction(agent_id=agent_id, held=part, more=True)
      await peer.send("agent_register_request", request)
    answer = await peer.register(agent_id=agent_id, held=held[16_000:])
  # None of them is known to the server: the answer names all that it has heard of.
  assert answer.superseded == [claim.instance_id for claim in held]


async def test_the_first_message_must_be_a_registration(scene: Scene) -> None:
  async with scene.connect() as peer:
    await peer.send("acquire_task_request", AcquireTaskRequest(run=1))
    assert (await peer.error()).code == "not_registered"
    assert await peer.closed() == 1008


async def test_who_does_not_register_in_time_is_closed(
  scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(registration_module, "REGISTER_TIMEOUT", 0.1)
  async with scene.connect() as peer:
    assert await peer.closed() == 1008


async def test_an_invalid_registration_may_be_tried_once_more(scene: Scene) -> None:
  async with scene.connect() as peer:
    await peer.socket.send_message("not json")
    assert (await peer.error()).path == "$"
    await peer.register()
  async with scene.connect() as peer:
    await peer.socket.send_message("{}")
    await peer.socket.send_message("[]")
    assert await peer.closed() == 1008


async def test_a_newer_session_replaces_the_older_one(scene: Scene) -> None:
  agent_id = AgentId(new_id())
  async with scene.connect() as older:
    await older.register(agent_id=agent_id)
    async with scene.connect() as newer:
      await newer.register(agent_id=agent_id, epoch=2)
      assert await older.closed() == 4003
      async with scene.connect() as stale:
        await stale.send(
          "agent_register_request", introduction(agent_id=agent_id, epoch=1)
        )
        assert (await stale.error()).code == "superseded"
        assert await stale.closed() == 4003
      await newer.send("heartbeat_request", HeartbeatRequest(sent_at=1.0))
      assert isinstance((await newer.receive()).payload, HeartbeatResponse)


async def test_of_two_that_register_at_once_the_one_taken_last_stays(
  scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
  agent_id = AgentId(new_id())
  register_agent = registration_module.register_agent
  calls = 0
  overtaken = trio.Event()

  def is_waited_for() -> bool:
    """Tell whether somebody else wants to enter."""
    lock = scene.sessions._entering.get(agent_id)
    return lock is not None and lock.statistics().tasks_waiting > 0

  async def register_slowly(*args: Any, **more: Any) -> Any:
    """Register; the first one hears of it after the second one, if that is possible."""
    nonlocal calls
    calls += 1
    number = calls
    answer = await register_agent(*args, **more)
    if number == 2:
      overtaken.set()
    while not overtaken.is_set() and not is_waited_for():
      await trio.lowlevel.checkpoint()
    return answer

  monkeypatch.setattr(registration_module, "register_agent", register_slowly)
  async with scene.connect() as older, scene.connect() as newer:
    await older.send("agent_register_request", introduction(agent_id=agent_id))
    while not calls:
      await trio.lowlevel.checkpoint()
    await newer.register(agent_id=agent_id)
    assert await older.closed() == 4003
    await newer.send("heartbeat_request", HeartbeatRequest(sent_at=1.0))
    assert isinstance((await newer.receive()).payload, HeartbeatResponse)
    # Nothing is left of the queue at the door.
    assert len(scene.sessions._entering) == 0


async def test_a_namespace_that_is_named_twice_counts_once(scene: Scene) -> None:
  async with scene.connect() as peer:
    await peer.register(namespace_ids=[NamespaceId("default")] * 2)
    [session] = scene.sessions
    assert scene.sessions.by_namespace() == {"default": [session]}


# ── invalid messages ────────────────────────────────────────────────────────────────

WRONG = [
  ("not json", "$"),
  ("", "$"),
  (b"", "$"),
  ('{"message_kind": 1}', "$.message_kind"),
  (b"\x78\x9c\x00", "$"),
]


@pytest.mark.parametrize(("frame", "path"), WRONG)
async def test_an_invalid_message_is_answered_and_a_second_one_ends_the_session(
  scene: Scene, frame: str | bytes, path: str
) -> None:
  with capture_logs() as lines:
    async with scene.connect() as peer:
      await peer.register()
      await peer.socket.send_message(frame)
      error = await peer.error()
      assert (error.code, error.path) == ("invalid_message", path)
      # The session goes on.
      await peer.send("heartbeat_request", HeartbeatRequest(sent_at=1.0))
      assert isinstance((await peer.receive()).payload, HeartbeatResponse)
      await peer.socket.send_message(frame)
      assert await peer.closed() == 1008
    await wait_for_agent(scene, 0)
  assert [line["event"] for line in lines].count("message_invalid") == 2
  assert not [line for line in lines if line["log_level"] == "error"]


@pytest.mark.parametrize(
  ("kind", "payload", "path"),
  [
    ("acquire_task_request", {"run": "many"}, "$.payload.run"),
    ("heartbeat_request", {}, "$.payload.sent_at"),
    ("task_instance_update", {"updates": [{}]}, "$.payload.updates[0]"),
    ("no_such_kind", {}, "$.message_kind"),
    ("dispatch_task_request", {"configs": {}, "tasks": []}, "$.message_kind"),
  ],
)
async def test_an_error_names_the_field(
  scene: Scene, kind: str, payload: dict[str, Any], path: str
) -> None:
  frame = {
    "message_id": str(new_id()),
    "timestamp": 1,
    "message_kind": kind,
    "payload": payload,
  }
  async with scene.connect() as peer:
    await peer.register()
    await peer.socket.send_message(json.dumps(frame))
    assert (await peer.error()).path.startswith(path)


async def test_a_report_of_a_namespace_without_registration_is_invalid(
  scene: Scene,
) -> None:
  update = TaskInstanceUpdate(
    instance_id=new_id(),  # type: ignore[arg-type]  # of nobody
    namespace_id=NamespaceId("other"),
    claim_token=new_id(),
    status=TaskInstanceStatus.SUCCEEDED,
  )
  async with scene.connect() as peer:
    await peer.register()
    await peer.send("task_instance_update", TaskInstanceUpdates(updates=[update]))
    assert (await peer.error()).path == "$.payload.updates[0].namespace_id"


@pytest.mark.parametrize("letter", ["x", "\N{SNOWMAN}"])
async def test_a_frame_that_is_too_large_ends_the_session_with_its_code(
  scene: Scene, letter: str
) -> None:
  async with scene.connect() as peer:
    await peer.register()
    count = MAX_MESSAGE_SIZE // len(letter.encode()) + 1
    await peer.socket.send_message(letter * count)
    assert await peer.closed() == 1009
  await wait_for_agent(scene, 0)
  async with scene.connect() as peer:
    await peer.register()


async def test_a_frame_that_unpacks_beyond_the_limit_is_invalid(scene: Scene) -> None:
  async with scene.connect() as peer:
    await peer.register(compression=True)
    await peer.socket.send_message(wire.compress(b" " * 100 * MAX_MESSAGE_SIZE))
    assert (await peer.error()).code == "invalid_message"


# ── conversation ────────────────────────────────────────────────────────────────────


async def test_frames_are_compressed_where_both_agreed(
  scene: Scene, database: Database
) -> None:
  await make_tasks(database, await make_job(database), 30)
  poller = Poller(database, scene.sessions, interval=1.0, wakeup=Wakeup())
  for agreed in (True, False):
    async with scene.connect() as peer:
      answer = await peer.register(compression=agreed)
      assert answer.config.compression is agreed
      beat = wire.encode_envelope(
        MessageKind.HEARTBEAT_REQUEST, HeartbeatRequest(sent_at=1.0)
      )
      if agreed:
        await peer.socket.send_message(wire.compress(beat))
      else:
        await peer.socket.send_message(beat.decode())
      assert isinstance(await peer.socket.get_message(), str)  # too short to pack
      await peer.send("acquire_task_request", AcquireTaskRequest(run=10))
      while not scene.wakes:
        await trio.lowlevel.checkpoint()
      scene.wakes.clear()
      await poller.poll_once()
      assert isinstance(await peer.socket.get_message(), bytes if agreed else str)


async def test_a_server_may_do_without_compression(database: Database) -> None:
  with trio.fail_after(30):
    async with (
      open_gateway(database, compression=False) as scene,
      scene.connect() as peer,
    ):
      answer = await peer.register(compression=True)
      assert not answer.config.compression
      await peer.socket.send_message(wire.compress(b"{}"))
      assert (await peer.error()).message == "expected a text frame"


async def test_a_task_goes_through_the_door_and_comes_back(
  scene: Scene, database: Database
) -> None:
  [task_id] = await make_tasks(database, await make_job(database))
  poller = Poller(database, scene.sessions, interval=1.0, wakeup=Wakeup())
  async with scene.connect() as peer:
    await peer.register()
    await peer.send("acquire_task_request", AcquireTaskRequest(run=1, hold=5_000))
    while not scene.wakes:
      await trio.lowlevel.checkpoint()
    [session] = scene.sessions
    assert (session.run, session.hold) == (1, 1_000)
    await poller.poll_once()
    envelope = await peer.receive()
    assert isinstance(envelope.payload, DispatchTaskRequest)
    [task] = envelope.payload.tasks
    assert task.task_id == task_id
    assert envelope.payload.configs[task.config].config.cmd == "/bin/true"
    assert len(session.unacknowledged) == 1
    await peer.send("ack", Ack(message_id=envelope.message_id))
    chunk = LogChunk(
      instance_id=task.instance_id,
      namespace_id=task.namespace_id,
      claim_token=task.claim_token,
      stream=LogStream.STDOUT,
      offset=0,
      data="hello\n",
    )
    await peer.send("task_log", TaskLog(chunks=[chunk]))
    update = TaskInstanceUpdate(
      instance_id=task.instance_id,
      namespace_id=task.namespace_id,
      claim_token=task.claim_token,
      status=TaskInstanceStatus.SUCCEEDED,
    )
    for expected in ([], [AckOutcome.DUPLICATE]):
      sent = new_id()
      await peer.send(
        "task_instance_update",
        TaskInstanceUpdates(updates=[update]),
        message_id=sent,
      )
      while (answer := (await peer.receive()).payload).message_id != sent:
        assert isinstance(answer, Ack)
      assert [result.outcome for result in answer.results] == expected
    assert session.unacknowledged == {}
  page = await read_log(database, task.instance_id, stream=LogStream.STDOUT, offset=0)
  assert [piece.data for piece in page.chunks] == [b"hello\n"]


async def test_batches_that_nobody_acknowledges_end_the_session_and_are_kept(
  scene: Scene, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(session_module, "ACK_TIMEOUT", 0.02)
  async with scene.connect() as peer:
    await peer.register()
    [session] = scene.sessions
    session.dispatch(DispatchTaskRequest(configs={}, tasks=[]))
    ids = {(await peer.receive()).message_id for _ in range(4)}
    assert len(ids) == 1
    assert await peer.closed() == 4001
  [letter] = await database.fetch(LETTERS)
  assert letter["kind"] == "dispatch_task_request"
  assert letter["agent_id"] == session.agent_id
  assert "4 tries" in letter["reason"]


async def test_an_agent_without_heartbeats_is_closed(
  scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
  async with scene.connect() as alive, scene.connect() as silent:
    await alive.register(name="alive")
    long_ago = trio.current_time() - 31
    monkeypatch.setattr(
      registration_module, "Session", partial(Session, heard_at=long_ago)
    )
    await silent.register(name="silent")
    assert await silent.closed() == 4001
    assert [session.name for session in scene.sessions] == ["alive"]


async def test_a_heartbeat_counts_as_a_sign_of_life_when_it_comes(scene: Scene) -> None:
  async with scene.connect() as peer:
    await peer.register()
    [session] = scene.sessions
    session.heard_at -= 1_000
    before = trio.current_time()
    await peer.send("heartbeat_request", HeartbeatRequest(sent_at=1.0))
    assert isinstance((await peer.receive()).payload, HeartbeatResponse)
    assert before <= session.heard_at <= trio.current_time()


async def test_an_agent_that_does_not_read_is_let_go(
  database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(session_module, "MAX_WAITING_FRAMES", 20)
  monkeypatch.setattr(connection_module, "CLOSE_TIMEOUT", 0.2)
  monkeypatch.setattr(gateway_module, "UNSENT_TIMEOUT", 1.0)
  command = AgentCommand(command=AgentCommandKind.DRAIN, reason="x" * 1_000_000)
  with trio.fail_after(30), capture_logs() as lines:
    async with open_gateway(database) as scene, connect_bare(scene) as stream:
      await stream.send_all(masked(introduction()))
      await wait_for_agent(scene)
      while len(scene.sessions):
        for session in scene.sessions:
          session.send(MessageKind.AGENT_COMMAND, command)
        await trio.lowlevel.checkpoint()
      while "agent_disconnected" not in [line["event"] for line in lines]:
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def connect_bare(scene: Scene) -> AsyncIterator[trio.SocketStream]:
  """Connect without a library, for it would read on by itself."""
  stream = await trio.open_tcp_stream("127.0.0.1", scene.port)
  try:
    await stream.send_all(
      f"GET /ws?token={scene.token} HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\n"
      "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
      "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: hetuflow.v1\r\n\r\n".encode()
    )
    assert b" 101 " in await stream.receive_some(64)
    yield stream
  finally:
    await trio.aclose_forcefully(stream)


def masked(request: object) -> bytes:
  """Write a registration as the one text frame of a client (RFC 6455, 5.2)."""
  frame = wire.encode_envelope(MessageKind.AGENT_REGISTER_REQUEST, request)
  assert 126 <= len(frame) < 65_536
  return b"\x81\xfe" + len(frame).to_bytes(2, "big") + bytes(4) + frame


# ── the end ─────────────────────────────────────────────────────────────────────────


async def test_a_drain_sends_everybody_away_and_lets_nobody_in(scene: Scene) -> None:
  async with scene.connect() as one, scene.connect() as two, scene.connect() as late:
    await one.register()
    await two.register()
    async with trio.open_nursery() as nursery:
      nursery.start_soon(scene.gateway.drain)
      assert await one.closed() == 1001
      assert await two.closed() == 1001
    # One that was already through the door, and one that comes now.
    await late.send("agent_register_request", introduction())
    assert await late.closed() == 1001
    with pytest.raises(ConnectionRejected) as caught:
      async with scene.connect():
        raise AssertionError("nobody may come in")
    assert caught.value.status_code == 503


async def test_a_connection_that_breaks_in_the_middle_is_cleaned_up(
  scene: Scene,
) -> None:
  for _ in range(5):
    async with scene.connect() as peer:
      await peer.register()
      await peer.socket._stream.aclose()
    await wait_for_agent(scene, 0)
  async with scene.connect() as peer:
    await peer.socket._stream.aclose()
  async with scene.connect() as peer:
    await peer.register()


async def test_a_mistake_of_ours_closes_with_1011_and_is_logged(
  scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
  def fail(*_: object) -> None:
    raise RuntimeError("a mistake")

  monkeypatch.setattr(connection_module, "take_message", fail)
  with capture_logs() as lines:
    async with scene.connect() as peer:
      await peer.register()
      await peer.send("heartbeat_request", HeartbeatRequest(sent_at=1.0))
      assert await peer.closed() == 1011
  assert [line["event"] for line in lines].count("connection_crashed") == 1


async def test_a_token_of_another_namespace_takes_over_no_agent(
  scene: Scene, database: Database
) -> None:
  other = NamespaceId("other")
  await make_namespace(database, other)
  _, token = await create_agent_token(database, "other", [other])
  agent_id = AgentId(new_id())
  async with scene.connect() as peer:
    await peer.register(agent_id=agent_id)
    async with scene.connect(token=token) as stranger:
      wish = introduction(agent_id=agent_id, epoch=2**40, namespace_ids=[other])
      await stranger.send("agent_register_request", wish)
      assert (await stranger.error()).code == "forbidden_namespace"
      assert await stranger.closed() == 1008
    await peer.send("heartbeat_request", HeartbeatRequest(sent_at=1.0))
    assert isinstance((await peer.receive()).payload, HeartbeatResponse)
  agent = await get_agent(database, agent_id)
  assert agent.namespace_ids == [NamespaceId("default")]
  async with scene.connect() as peer:
    await peer.register(agent_id=agent_id, epoch=2)
