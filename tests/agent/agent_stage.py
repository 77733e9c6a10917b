"""A server's end of the wire, driven by a test, and a real agent to talk to it."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import attrs
import trio
import trio.testing
from trio_websocket import (
  ConnectionClosed,
  WebSocketConnection,
  WebSocketRequest,
  serve_websocket,
)

from hetuflow.agent.config import AgentConfig, AgentSettings
from hetuflow.agent.parts import Parts
from hetuflow.agent.program import open_agent
from hetuflow.nursery import Supervisor
from hetuflow.protocol import wire
from hetuflow.protocol.messages import (
  Ack,
  AckOutcome,
  AckResult,
  AcquireTaskRequest,
  AgentCommand,
  AgentCommandKind,
  AgentRegisterRequest,
  AgentRegisterResponse,
  DispatchedTask,
  DispatchTaskRequest,
  Envelope,
  ErrorMessage,
  HeartbeatResponse,
  LogChunk,
  MessageKind,
  NamedConfig,
  TaskInstanceUpdate,
)
from hetuflow.protocol.messages import AgentConfig as SessionConfig
from hetuflow.protocol.model import TaskConfig, new_id
from hetuflow.protocol.states import TaskInstanceStatus

TOKEN = "hf_test_token"
PATIENCE_S = 20.0
MAX_MESSAGE_BYTES = 32 * 1024 * 1024


@attrs.define(eq=False)
class Peer:
  """One connection of an agent, with what it has said."""

  socket: WebSocketConnection
  register: AgentRegisterRequest | None = None
  closed_with: int | None = None
  binary_frames: int = 0
  largest_frame: int = 0
  messages: list[Envelope] = attrs.field(factory=list)

  def of(self, kind: MessageKind) -> list[Envelope]:
    """List the messages of one kind."""
    return [each for each in self.messages if each.message_kind is kind]


class Gateway:
  """Answers as a server does, unless the test tells it not to.

  ``silent`` kinds are not answered; ``outcomes`` say what acks think of instances;
  ``rejects`` is the HTTP status of the next upgrades; ``error`` refuses registrations.
  """

  def __init__(self) -> None:
    self.peers: list[Peer] = []
    self.silent: set[MessageKind] = set()
    self.outcomes: dict[UUID, AckOutcome] = {}
    self.superseded: list[UUID] = []
    self.rejects: int | None = None
    self.error: str | None = None
    self.session = SessionConfig(
      heartbeat_interval=1.0, session_lease=30.0, max_message_size=8 * 1024**2
    )
    self._news = trio.Event()
    self.port = 0

  @property
  def url(self) -> str:
    """Where it listens."""
    return f"ws://127.0.0.1:{self.port}/ws"

  @property
  def peer(self) -> Peer:
    """The newest connection."""
    return self.peers[-1]

  @asynccontextmanager
  async def serving(self) -> AsyncIterator["Gateway"]:
    """Listen inside the block, on the same port each time."""
    async with trio.open_nursery() as nursery:
      server = await nursery.start(
        lambda *, task_status: serve_websocket(
          self._handle,
          "127.0.0.1",
          self.port,
          None,
          max_message_size=MAX_MESSAGE_BYTES,
          task_status=task_status,
        )
      )
      self.port = server.port
      yield self
      nursery.cancel_scope.cancel()

  async def until(self, condition: Callable[[], Any]) -> Any:
    """Wait until something is so, and return it; looked at after each message."""
    with trio.fail_after(PATIENCE_S):
      while not (result := condition()):
        await self._news.wait()
    return result

  async def registered(self, sessions: int = 1) -> Peer:
    """Wait until an agent has registered for the given time."""
    await self.until(
      lambda: sum(p.register is not None for p in self.peers) >= sessions
    )
    return self.peer

  async def granted(self) -> AcquireTaskRequest:
    """Wait until the agent of the newest connection has asked for tasks."""
    kind = MessageKind.ACQUIRE_TASK_REQUEST
    return (await self.until(lambda: self.peers and self.peer.of(kind)))[0].payload

  async def dispatch(
    self, *tasks: DispatchedTask, job: NamedConfig, message_id: UUID | None = None
  ) -> UUID:
    """Send a batch; return its message id."""
    message_id = message_id or new_id()
    request = DispatchTaskRequest(configs={"j:1": job}, tasks=list(tasks))
    await self.say(MessageKind.DISPATCH_TASK_REQUEST, request, message_id)
    return message_id

  async def command(self, kind: AgentCommandKind, *instance_ids: UUID) -> None:
    """Send a command."""
    command = AgentCommand(command=kind, instance_ids=list(instance_ids), reason="test")
    await self.say(MessageKind.AGENT_COMMAND, command)

  async def say(
    self, kind: MessageKind, payload: object, message_id: UUID | None = None
  ) -> None:
    """Send anything to the newest connection."""
    frame = wire.encode_envelope(kind, payload, message_id=message_id)
    await self.peer.socket.send_message(frame.decode())

  def updates(self, instance_id: UUID | None = None) -> list[TaskInstanceUpdate]:
    """List every report of all connections, in order of arrival."""
    return [
      update
      for peer in self.peers
      for message in peer.of(MessageKind.TASK_INSTANCE_UPDATE)
      for update in message.payload.updates
      if instance_id in (None, update.instance_id)
    ]

  def chunks(self, instance_id: UUID) -> list[LogChunk]:
    """List every piece of output of one attempt."""
    return [
      chunk
      for peer in self.peers
      for message in peer.of(MessageKind.TASK_LOG)
      for chunk in message.payload.chunks
      if chunk.instance_id == instance_id
    ]

  def output(self, instance_id: UUID, stream: str = "stdout") -> bytes:
    """Put the output of one attempt together by its offsets."""
    pieces = {
      chunk.offset: wire.decode_data(chunk.data, chunk.encoding)
      for chunk in self.chunks(instance_id)
      if chunk.stream == stream
    }
    return b"".join(pieces[offset] for offset in sorted(pieces))

  async def result(self, instance_id: UUID) -> TaskInstanceUpdate:
    """Wait for the result of one attempt."""
    return (
      await self.until(
        lambda: [
          each
          for each in self.updates(instance_id)
          if each.status is not TaskInstanceStatus.RUNNING
        ]
      )
    )[0]

  async def started(self, instance_id: UUID) -> TaskInstanceUpdate:
    """Wait until one attempt is reported as running."""
    return (await self.until(lambda: self.updates(instance_id)))[0]

  async def _handle(self, request: WebSocketRequest) -> None:
    """Serve one connection."""
    headers = dict(request.headers)
    if self.rejects is not None or headers.get(b"authorization") != (
      b"Bearer " + TOKEN.encode()
    ):
      await request.reject(self.rejects or 401)
      return
    peer = Peer(await request.accept(subprotocol="hetuflow.v1"))
    self.peers.append(peer)
    try:
      while True:
        await self._read_once(peer)
    except ConnectionClosed as closed:
      peer.closed_with = closed.reason.code if closed.reason else None
      self._tell()

  async def _read_once(self, peer: Peer) -> None:
    """Read one message and answer it."""
    frame = await peer.socket.get_message()
    if isinstance(frame, bytes):
      peer.binary_frames += 1
      frame = wire.decompress(frame, MAX_MESSAGE_BYTES)
    peer.largest_frame = max(peer.largest_frame, len(frame))
    envelope = wire.decode_envelope(frame)
    peer.messages.append(envelope)
    await self._answer(peer, envelope)
    self._tell()

  async def _answer(self, peer: Peer, envelope: Envelope) -> None:
    """Answer as a server does."""
    if envelope.message_kind in self.silent:
      return
    match envelope.message_kind:
      case MessageKind.AGENT_REGISTER_REQUEST:
        await self._register(peer, envelope.payload)
      case MessageKind.HEARTBEAT_REQUEST:
        answer = HeartbeatResponse(
          sent_at=envelope.payload.sent_at,
          server_time=datetime.now(UTC),
          session_lease=self.session.session_lease,
        )
        await self._send(peer, MessageKind.HEARTBEAT_RESPONSE, answer)
      case MessageKind.TASK_INSTANCE_UPDATE:
        named = [each.instance_id for each in envelope.payload.updates]
        await self._send(peer, MessageKind.ACK, self._ack(envelope, named))
      case MessageKind.TASK_LOG:
        named = [each.instance_id for each in envelope.payload.chunks]
        await self._send(peer, MessageKind.ACK, self._ack(envelope, named))

  async def _register(self, peer: Peer, request: AgentRegisterRequest) -> None:
    """Take the agent, or refuse it as the test said."""
    if self.error is not None:
      refusal = ErrorMessage(code=self.error, message="said the test")
      await self._send(peer, MessageKind.ERROR, refusal)
      code = 4003 if self.error == "superseded" else 1008
      await peer.socket.aclose(code, self.error)
      return
    if request.more:
      return
    answer = AgentRegisterResponse(
      session_id=new_id(),
      server_id=new_id(),
      server_time=datetime.now(UTC),
      config=self.session,
      superseded=self.superseded,
    )
    await self._send(peer, MessageKind.AGENT_REGISTER_RESPONSE, answer)
    parts = peer.of(MessageKind.AGENT_REGISTER_REQUEST)
    held = [claim for part in parts for claim in part.payload.held]
    peer.register = attrs.evolve(request, held=held)

  def _ack(self, envelope: Envelope, named: Sequence[UUID]) -> Ack:
    """Acknowledge a batch, with what the test thinks of its instances."""
    results = [
      AckResult(instance_id=each, outcome=self.outcomes[each])
      for each in named
      if each in self.outcomes
    ]
    return Ack(message_id=envelope.message_id, results=results)

  async def _send(self, peer: Peer, kind: MessageKind, payload: object) -> None:
    """Send a message."""
    await peer.socket.send_message(wire.encode_envelope(kind, payload).decode())

  def _tell(self) -> None:
    """Wake whoever waits for news."""
    self._news.set()
    self._news = trio.Event()


async def settled(condition: Callable[[], Any]) -> Any:
  """Wait until something is so, looked at whenever nothing else goes on, and return it."""
  while not (result := condition()):
    await trio.testing.wait_all_tasks_blocked(0.001)
  return result


def make_job(cmd: str = "hetuflow.noop", **config: Any) -> NamedConfig:
  """A job; of Python's doing nothing unless said otherwise."""
  config.setdefault("executor", "python" if cmd == "hetuflow.noop" else "process")
  return NamedConfig(
    job_name="a job", config=wire.load(TaskConfig, {"cmd": cmd, **config})
  )


def make_task(
  *, due_in: float = -0.01, lease: float = 30.0, **more: Any
) -> DispatchedTask:
  """A task that is due some seconds from now; held if that lies ahead."""
  due = datetime.fromtimestamp(time.time() + due_in, UTC)
  return DispatchedTask(
    instance_id=new_id(),
    task_id=new_id(),
    namespace_id=more.pop("namespace_id", "default"),
    claim_token=uuid4(),
    attempt=1,
    config=more.pop("config", "j:1"),
    scheduled_at=due,
    due_at=due,
    lease=lease,
    held=due_in > 0,
    **more,
  )


def make_config(data_dir: Path, gateway: Gateway, **settings: Any) -> AgentConfig:
  """Settings of an agent that knows the gateway."""
  defaults = {"max_concurrent": 8, "kill_grace": 0.5, "drain_timeout": 5.0}
  return AgentConfig(
    agent=AgentSettings(
      server=(gateway.url,),
      token=TOKEN,
      name="agent-under-test",
      data_dir=data_dir,
      **(defaults | settings),
    )
  )


@attrs.frozen
class RunningAgent:
  """An agent that runs in the test's own process."""

  supervisor: Supervisor
  parts: Parts
  ended: trio.Event


@asynccontextmanager
async def running_agent(config: AgentConfig) -> AsyncIterator[RunningAgent]:
  """Run a real agent inside the block; at its end it is stopped, undrained."""
  async with open_agent(config, fail_fast=True) as (supervisor, parts):
    agent = RunningAgent(supervisor, parts, trio.Event())

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
      """Run the tree and note its end."""
      await supervisor.run(task_status=task_status)
      agent.ended.set()

    async with trio.open_nursery() as nursery:
      await nursery.start(run)
      yield agent
      nursery.cancel_scope.cancel()
