"""A gateway on a real port, and agents that speak to it frame by frame."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import attrs
import trio
from quart import Response, request
from quart_trio import QuartTrio
from trio_websocket import (
  ConnectionClosed,
  WebSocketConnection,
  wrap_client_stream,
)

from hetuflow.nursery.groups import sole_leaf
from hetuflow.protocol import wire
from hetuflow.protocol.messages import (
  PROTOCOL_VERSION,
  AgentRegisterRequest,
  AgentRegisterResponse,
  Envelope,
  MessageKind,
)
from hetuflow.protocol.model import (
  AgentCapabilities,
  AgentId,
  NamespaceId,
  ServerId,
  new_id,
)
from hetuflow.server.api.tracing import install_tracing
from hetuflow.server.clock import DatabaseClock
from hetuflow.server.gateway.door import Doorkeeper
from hetuflow.server.gateway.gateway import SUBPROTOCOL, Gateway, open_listener
from hetuflow.server.gateway.presence import Presence
from hetuflow.server.scheduling.recorder import Recorder
from hetuflow.server.sessions import Sessions
from hetuflow.storage.access import create_agent_token
from hetuflow.storage.connect import Database

MAX_MESSAGE_SIZE = 64 * 1024


@attrs.frozen
class Peer:
  """An agent's end of a connection."""

  socket: WebSocketConnection

  async def send(self, kind: str, payload: object, **more: Any) -> None:
    """Send a message."""
    frame = wire.encode_envelope(MessageKind(kind), payload, **more)
    await self.socket.send_message(frame.decode())

  async def receive(self) -> Envelope:
    """Receive the next message."""
    frame = await self.socket.get_message()
    if isinstance(frame, bytes):
      frame = wire.decompress(frame, 10 * MAX_MESSAGE_SIZE)
    return wire.decode_envelope(frame)

  async def error(self) -> Any:
    """Receive what must be an error."""
    envelope = await self.receive()
    assert envelope.message_kind is MessageKind.ERROR
    return envelope.payload

  async def closed(self) -> int:
    """Read to the end and return the close code."""
    with contextlib.suppress(ConnectionClosed):
      while True:
        await self.socket.get_message()
    assert self.socket.closed is not None
    return int(self.socket.closed.code)

  async def register(self, **more: Any) -> AgentRegisterResponse:
    """Introduce itself and return the answer."""
    await self.send("agent_register_request", introduction(**more))
    envelope = await self.receive()
    assert isinstance(envelope.payload, AgentRegisterResponse), envelope
    return envelope.payload


def introduction(**more: Any) -> AgentRegisterRequest:
  """Make what an agent says of itself."""
  fields: dict[str, Any] = {
    "protocol_version": PROTOCOL_VERSION,
    "agent_id": AgentId(new_id()),
    "epoch": 1,
    "name": "agent",
    "namespace_ids": [NamespaceId("default")],
    "capabilities": AgentCapabilities(executors=["process"]),
  }
  return AgentRegisterRequest(**(fields | more))


@attrs.frozen
class Scene:
  """A running gateway."""

  gateway: Gateway
  sessions: Sessions
  recorder: Recorder
  presence: Presence
  port: int
  token: str
  wakes: list[None]

  @contextlib.asynccontextmanager
  async def connect(
    self,
    *,
    token: str | None = None,
    query: str = "",
    subprotocols: tuple[str, ...] = (SUBPROTOCOL,),
  ) -> AsyncIterator[Peer]:
    """Connect as an agent; an empty token is not shown at all."""
    shown = self.token if token is None else token
    stream = await trio.open_tcp_stream("127.0.0.1", self.port)
    problem: BaseException | None = None
    # trio-websocket leaves the stream open when the server closes first.
    try:
      async with trio.open_nursery() as nursery:
        socket = await wrap_client_stream(
          nursery,
          stream,
          f"127.0.0.1:{self.port}",
          f"/ws{query}",
          subprotocols=list(subprotocols),
          extra_headers=[(b"Authorization", f"Bearer {shown}".encode())]
          if shown
          else [],
        )
        yield Peer(socket)
        with trio.move_on_after(2):
          await socket.aclose()
        nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
      problem = sole_leaf(group)
    finally:
      await trio.aclose_forcefully(stream)
    if problem is not None:
      raise problem


@contextlib.asynccontextmanager
async def open_gateway(
  database: Database,
  *,
  max_connections: int = 100,
  max_requests: int = 100,
  **more: Any,
) -> AsyncIterator[Scene]:
  """Run a gateway with its recorder and presence on a free port.

  Args:
    database: where agents are registered.
    max_connections: at the same time.
    max_requests: at the same time.
    more: fields of ``Doorkeeper`` to be otherwise.
  """
  sessions = Sessions()
  wakes: list[None] = []
  recorder = Recorder(database)
  presence = Presence(database, DatabaseClock(), sessions, lease=30.0)
  _, token = await create_agent_token(
    database, f"token-{new_id()}", [NamespaceId("default")]
  )
  fields: dict[str, Any] = {
    "database": database,
    "server_id": ServerId(new_id()),
    "sessions": sessions,
    "recorder": recorder,
    "presence": presence,
    "wake": lambda: wakes.append(None),
    "heartbeat_interval": 5.0,
    "session_lease": 30.0,
    "max_message_size": MAX_MESSAGE_SIZE,
    "max_hold": 1_000,
    "ack_retries": 3,
    "compression": True,
  }
  with open_listener("127.0.0.1", 0) as listener:
    gateway = Gateway(
      listener,
      Doorkeeper(**(fields | more)),
      make_app,
      max_connections=max_connections,
      max_requests=max_requests,
    )
    async with trio.open_nursery() as nursery:
      await nursery.start(recorder.run)
      await nursery.start(presence.run)
      await nursery.start(gateway.run)
      yield Scene(
        gateway=gateway,
        sessions=sessions,
        recorder=recorder,
        presence=presence,
        port=listener.getsockname()[1],
        token=token,
        wakes=wakes,
      )
      nursery.cancel_scope.cancel()


def make_app(gateway: Gateway) -> QuartTrio:
  """Make the least application that has the agents' door, and takes a body."""
  app = QuartTrio(__name__)
  install_tracing(app)
  app.websocket("/ws")(gateway.serve_websocket)

  @app.post("/echo")
  async def echo() -> Response:
    """Return the body once it is whole."""
    return Response(await request.get_data(as_text=False))

  return app
