"""The API on a real database, called through Quart's test client."""

from typing import Any

import attrs
import msgspec
from quart import Response
from quart_trio import QuartTrio

from hetuflow.protocol.model import Connection, GatewayStatistics
from hetuflow.server.api import ApiServices
from hetuflow.server.session import Session
from hetuflow.server.traffic import Traffic

MAX_BODY_SIZE = 4 * 1024**2


@attrs.define
class Sessions:
  """A gateway with a fixed set of sessions and no network."""

  sessions: list[Session] = attrs.field(factory=list)

  def connections(self) -> list[Connection]:
    return [session.describe() for session in self.sessions]

  def statistics(self) -> GatewayStatistics:
    return GatewayStatistics(
      connections=len(self.sessions),
      opened=len(self.sessions),
      refused=0,
      run=0,
      hold=0,
      unacknowledged=0,
      waiting_frames=0,
      **attrs.asdict(Traffic()),
    )

  async def serve_websocket(self) -> None:
    raise AssertionError("no test opens a WebSocket here")


@attrs.define
class Wakes:
  """Who was hinted at what."""

  heard: list[tuple[str, str]] = attrs.field(factory=list)

  def __call__(self, kind: str, namespace_id: str) -> None:
    self.heard.append((kind, namespace_id))


@attrs.frozen
class Reply:
  """An answer, read."""

  status: int
  body: Any
  headers: Any
  raw: bytes


@attrs.frozen
class Api:
  """Calls the API as its administrator does."""

  app: QuartTrio
  services: ApiServices
  key: str

  async def call(
    self,
    method: str,
    path: str,
    body: Any = None,
    *,
    data: bytes | None = None,
    headers: dict[str, str] | None = None,
  ) -> Reply:
    """Make one call; a path that does not begin with ``/`` is one of the API."""
    sent = {"Authorization": f"Bearer {self.key}"} | (headers or {})
    if body is not None:
      data = msgspec.json.encode(body)
    target = path if path.startswith("/") else f"/api/v1/{path}"
    response: Response = await self.app.test_client().open(
      target, method=method, headers=sent, data=data
    )
    raw = await response.get_data(as_text=False)
    is_json = "json" in response.content_type if response.content_type else False
    return Reply(
      status=response.status_code,
      body=msgspec.json.decode(raw) if raw and is_json else None,
      headers=response.headers,
      raw=raw,
    )

  async def get(self, path: str, **more: Any) -> Reply:
    return await self.call("GET", path, **more)

  async def post(self, path: str, body: Any = None, **more: Any) -> Reply:
    return await self.call("POST", path, body, **more)

  async def patch(self, path: str, body: Any = None, **more: Any) -> Reply:
    return await self.call("PATCH", path, body, **more)

  async def delete(self, path: str, **more: Any) -> Reply:
    return await self.call("DELETE", path, **more)

  async def make_job(self, name: str = "backup", **more: Any) -> dict[str, Any]:
    """Make a job and return it."""
    wish = {"name": name, "config": {"cmd": "/bin/true"}} | more
    reply = await self.post("jobs", wish)
    assert reply.status == 201, reply.body
    made: dict[str, Any] = reply.body
    return made
