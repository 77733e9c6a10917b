"""The API on a real database, called through Quart's test client."""

from typing import Any

import attrs
import msgspec
from quart import Response
from quart_trio import QuartTrio

from hetuflow.protocol.model import AgentId
from hetuflow.server.api import ApiServices

MAX_BODY_SIZE = 4 * 1024**2


@attrs.define
class Sessions:
  """A gateway with a fixed set of sessions and no network."""

  agents: list[AgentId] = attrs.field(factory=list)

  def connections(self) -> list[dict[str, Any]]:
    return [{"agent_id": str(agent_id)} for agent_id in self.agents]

  def statistics(self) -> dict[str, Any]:
    return {"sessions": len(self.agents)}

  def disconnect(self, agent_id: AgentId, reason: str) -> bool:
    if agent_id not in self.agents:
      return False
    self.agents.remove(agent_id)
    return True

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
