"""Bad input over the wire: told by its path, then shut out; the others notice nothing."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import msgspec
import pytest
import trio
from support.commands import World
from support.work import make_job, run_job
from trio_websocket import (
  ConnectionClosed,
  ConnectionRejected,
  WebSocketConnection,
  wrap_client_stream,
)

from hetuflow.client import AsyncClient
from hetuflow.protocol.model import new_id

LIMIT_S = 30.0
SUBPROTOCOL = "hetuflow.v1"
MB = 1_000_000


def envelope(kind: str, **payload: Any) -> dict[str, Any]:
  """Return a message as an agent sends it."""
  return {
    "message_id": str(uuid4()),
    "timestamp": 1_767_225_600_000,
    "message_kind": kind,
    "payload": payload,
    "metadata": {},
  }


def registration(**changes: Any) -> dict[str, Any]:
  """Return how a strange agent would introduce itself."""
  return envelope(
    "agent_register_request",
    **{
      "protocol_version": 1,
      "agent_id": str(new_id()),
      "epoch": 1,
      "name": "stranger",
      "namespace_ids": ["default"],
      **changes,
    },
  )


class Wire:
  """One end of a WebSocket, whatever one likes to say on it."""

  def __init__(self, socket: WebSocketConnection) -> None:
    self._socket = socket

  async def send(self, message: Any) -> None:
    """Send a message: text and bytes as they are, else as JSON."""
    plain = isinstance(message, str | bytes)
    await self._socket.send_message(
      message if plain else msgspec.json.encode(message).decode()
    )

  async def receive(self) -> dict[str, Any]:
    """Receive a message."""
    message: dict[str, Any] = msgspec.json.decode(await self._socket.get_message())
    return message

  async def refused(self, message: Any) -> dict[str, Any]:
    """Demand an error for a message and return it."""
    await self.send(message)
    answer = await self.receive()
    assert answer["message_kind"] == "error", answer
    error: dict[str, Any] = answer["payload"]
    return error

  async def closed(self) -> tuple[int, str]:
    """Wait until the other side closes; return the code and the reason."""
    with pytest.raises(ConnectionClosed) as caught:
      await self.receive_until_closed()
    reason = caught.value.reason
    assert reason is not None
    return reason.code, reason.reason or ""

  async def receive_until_closed(self) -> None:
    """Throw away what comes."""
    while True:
      await self._socket.get_message()


@asynccontextmanager
async def dial(
  world: World, token: str | None = None, query: str = ""
) -> AsyncIterator[Wire]:
  """Open a connection with a token in the header, that of ``default`` by itself."""
  token = world.server.token if token is None else token
  headers = [("Authorization", f"Bearer {token}".encode())] if token else []
  url = urlsplit(world.server.gateway)
  with trio.fail_after(LIMIT_S):
    # trio-websocket leaves the stream open where the server refuses or closes first.
    stream = await trio.open_tcp_stream(str(url.hostname), url.port or 0)
    async with stream, trio.open_nursery() as nursery:
      socket = await wrap_client_stream(
        nursery,
        stream,
        url.netloc,
        url.path + query,
        subprotocols=[SUBPROTOCOL],
        extra_headers=headers,
      )
      yield Wire(socket)
      nursery.cancel_scope.cancel()


@asynccontextmanager
async def registered(world: World) -> AsyncIterator[Wire]:
  """Open a connection and register as an agent that never asks for work."""
  async with dial(world) as wire:
    await wire.send(registration())
    assert (await wire.receive())["message_kind"] == "agent_register_response"
    yield wire


@pytest.fixture(autouse=True)
def unharmed(world: World) -> Iterator[None]:
  """Each test leaves a well server, which has neither crashed nor told a secret."""
  yield
  health = httpx.get(f"{world.server.url}/api/v1/system/health")
  assert health.json()["status"] == "ok"
  log = world.server.log_text() + world.agent.log_text()
  assert "Traceback" not in log
  for secret in (world.server.key, world.server.token):
    assert secret.rpartition("_")[2] not in log


INVALID = {
  "an unknown kind": (envelope("dance"), "$.message_kind"),
  "a wrong field": (
    envelope("acquire_task_request", run="many", hold=0),
    "$.payload.run",
  ),
  "a missing field": (envelope("heartbeat_request"), "$.payload.sent_at"),
  "a number out of range": (
    envelope("acquire_task_request", run=-1, hold=0),
    "$.payload.run",
  ),
  "no envelope": ({"hello": "world"}, "$.message_id"),
  "no JSON": ("{", "$"),
  "a binary frame": (b"\x00\x01", "$"),
  "a message of servers": (
    envelope("agent_command", command="drain"),
    "$.message_kind",
  ),
  "a report of a foreign namespace": (
    envelope(
      "task_instance_update",
      updates=[
        {
          "instance_id": str(uuid4()),
          "namespace_id": "elsewhere",
          "claim_token": str(uuid4()),
          "attempt": 1,
          "status": "running",
        }
      ],
    ),
    "$.payload.updates[0].namespace_id",
  ),
}


@pytest.mark.parametrize("case", INVALID)
async def test_an_invalid_message_is_answered_by_its_path_and_shut_out_when_repeated(
  world: World, case: str
) -> None:
  message, path = INVALID[case]
  before = len(world.server.events("message_invalid"))
  async with registered(world) as wire:
    error = await wire.refused(message)
    assert error["path"] == path
    assert error["code"] == "invalid_message"
    await wire.send(message)
    assert await wire.closed() == (1008, "invalid messages")
  said = world.server.events("message_invalid")[before:]
  assert [line["path"] for line in said] == [path, path]


@pytest.mark.parametrize("case", ["an unknown kind", "no JSON", "a binary frame"])
async def test_so_it_is_before_the_registration(world: World, case: str) -> None:
  message, path = INVALID[case]
  async with dial(world) as wire:
    assert (await wire.refused(message))["path"] == path
    await wire.send(message)
    assert (await wire.closed())[0] == 1008


async def test_a_mistake_in_a_registration_can_be_mended(world: World) -> None:
  async with dial(world) as wire:
    error = await wire.refused(registration(epoch="first"))
    assert error["path"] == "$.payload.epoch"
    await wire.send(registration())
    assert (await wire.receive())["message_kind"] == "agent_register_response"


async def test_unknown_keys_are_of_no_account_on_the_wire(world: World) -> None:
  async with dial(world) as wire:
    await wire.send({**registration(news=1), "more": 2})
    assert (await wire.receive())["message_kind"] == "agent_register_response"


async def test_who_has_not_registered_is_not_heard(world: World) -> None:
  async with dial(world) as wire:
    error = await wire.refused(envelope("acquire_task_request", run=1, hold=0))
    assert error["code"] == "not_registered"
    assert (await wire.closed())[0] == 1008


async def test_a_frame_of_10_mb_is_too_large(world: World) -> None:
  async with registered(world) as wire:
    await wire.send("x" * 10 * MB)
    assert (await wire.closed())[0] == 1009


async def test_a_token_is_good_for_its_namespaces_only(world: World) -> None:
  async with dial(world) as wire:
    error = await wire.refused(registration(namespace_ids=["default", "other"]))
    assert error["code"] == "forbidden_namespace"
    assert "other" in error["message"]
    assert (await wire.closed())[0] == 1008


async def test_another_version_of_the_protocol_is_refused(world: World) -> None:
  async with dial(world) as wire:
    error = await wire.refused(registration(protocol_version=99))
    assert error["code"] == "unsupported_version"
    assert (await wire.closed())[0] == 1008


@pytest.mark.parametrize("token", ["", "hft_wrong", "x" * 5_000])
async def test_nobody_gets_in_without_a_token(world: World, token: str) -> None:
  before = len(world.server.log_text().splitlines())
  assert await refused_status(world, token) == 401
  [line] = world.server.log_text().splitlines()[before:]
  assert '"status": 401' in line


async def test_a_key_of_the_api_is_no_token(world: World) -> None:
  assert await refused_status(world, world.server.key) == 401


async def refused_status(world: World, token: str) -> int:
  """Dial with a token that must not do, and return the status of the answer."""
  try:
    async with dial(world, token=token):
      raise AssertionError("it was let in")
  except* ConnectionRejected as group:
    [refusal] = group.exceptions
  assert isinstance(refusal, ConnectionRejected)
  return refusal.status_code


async def test_a_token_in_the_query_does_too_and_is_not_logged(world: World) -> None:
  async with dial(world, token="", query=f"?token={world.server.token}") as wire:
    await wire.send(registration())
    assert (await wire.receive())["message_kind"] == "agent_register_response"


async def test_after_all_that_work_goes_on(world: World, client: AsyncClient) -> None:
  with trio.fail_after(LIMIT_S):
    run = await run_job(client, await make_job(client, "/bin/echo", "well"))
  assert run.output == "well\n"
  assert len(world.agent.events("session_opened")) == 1
