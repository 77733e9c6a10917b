"""Bad input over HTTP: each has its status and path, one line in the log, no trace."""

import socket
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import trio
from support.commands import World
from support.programs import Server

LIMIT_S = 60.0
MB = 1_000_000
CONFIG = {"cmd": "/bin/true"}
NO_JOB = "jobs/01999999-0000-7000-8000-000000000000"


def job(**more: Any) -> dict[str, Any]:
  """Return the body of a good job, changed."""
  return {"name": "bad", "config": CONFIG, **more}


def timed(**schedule: Any) -> dict[str, Any]:
  """Return the body of a job with one cron schedule."""
  wish = {"kind": "cron", "cron_expression": "0 4 * * *", **schedule}
  return job(schedules=[wish])


INVALID = {
  "an unknown key": (job(zz=1), "$.zz"),
  "an unknown key of the config": (job(config={**CONFIG, "zz": 1}), "$.config.zz"),
  "a wrong type": (job(config={**CONFIG, "timeout": "soon"}), "$.config.timeout"),
  "a value out of range": (job(config={**CONFIG, "priority": 11}), "$.config.priority"),
  "a missing key": ({"name": "bad"}, "$.config"),
  "no object": ([], "$"),
  "a bad cron expression": (
    timed(cron_expression="61 * * * *"),
    "$.schedules[0].cron_expression",
  ),
  "an unknown zone": (timed(timezone="Mars/Olympus"), "$.schedules[0].timezone"),
  "a zero byte": (job(name="a\0b"), "$.name"),
}
MALFORMED = {
  "cut JSON": b'{"name":',
  "nothing": b"",
  "no UTF-8": b'{"name":"\xff"}',
}
ELSEWHERE = {
  "an unknown path": ("GET", "nothing", 404),
  "an unknown job": ("GET", NO_JOB, 404),
  "no id": ("GET", "jobs/xyz", 404),
  "a wrong method": ("PUT", "jobs", 405),
  "an unknown filter": ("GET", "jobs?zz=1", 422),
  "a wrong limit": ("GET", "jobs?limit=0", 422),
  "a wrong cursor": ("GET", "jobs?cursor=zz", 422),
}


class Http:
  """Sends requests that no client of ours would send."""

  def __init__(self, server: Server, http: httpx.AsyncClient) -> None:
    self._server = server
    self._http = http

  async def refused(
    self, status: int, method: str, path: str, **more: Any
  ) -> dict[str, Any]:
    """Demand a problem with a status and one line in the log; return the problem."""
    with trio.fail_after(LIMIT_S):
      response = await self._http.request(method, path, **more)
    return self.check(response, status)

  def check(self, response: httpx.Response, status: int) -> dict[str, Any]:
    """Demand that an answer is such a problem."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    lines = [
      line
      for line in self._server.log_text().splitlines()
      if problem["trace_id"] in line
    ]
    assert len(lines) == 1, lines
    assert f'"status": {status}' in lines[0]
    return problem


@pytest.fixture
async def http(world: World) -> AsyncIterator[Http]:
  """A plain HTTP client with the administrator's key."""
  place = world.server.place
  headers = {"Authorization": f"Bearer {place.key}"}
  base = f"{place.url}/api/v1/"
  async with httpx.AsyncClient(base_url=base, headers=headers) as opened:
    yield Http(world.server, opened)


@pytest.fixture(autouse=True)
def unharmed(world: World) -> Iterator[None]:
  """After each test the server is well, and has neither crashed nor told a secret."""
  yield
  health = httpx.get(f"{world.server.url}/api/v1/system/health")
  assert health.json()["status"] == "ok"
  log = world.server.log_text() + world.agent.log_text()
  assert "Traceback" not in log
  for secret in (world.server.key, world.server.token):
    assert secret not in log
    assert secret.rpartition("_")[2] not in log


@pytest.mark.parametrize("case", INVALID)
async def test_an_invalid_body_is_answered_with_the_path_to_the_mistake(
  http: Http, case: str
) -> None:
  body, path = INVALID[case]
  problem = await http.refused(422, "POST", "jobs", json=body)
  assert [error["path"] for error in problem["errors"]] == [path]


@pytest.mark.parametrize("case", MALFORMED)
async def test_what_is_not_json_is_malformed(http: Http, case: str) -> None:
  await http.refused(400, "POST", "jobs", content=MALFORMED[case])


@pytest.mark.parametrize("case", ELSEWHERE)
async def test_wrong_places_and_questions_have_their_statuses(
  http: Http, case: str
) -> None:
  method, path, status = ELSEWHERE[case]
  await http.refused(status, method, path)


async def test_a_name_is_taken_once(http: Http, world: World) -> None:
  (await world.cli("jobs", "create", "taken", "--", "/bin/true")).ok()
  problem = await http.refused(409, "POST", "jobs", json=job(name="taken"))
  assert "'taken'" in problem["detail"]


async def test_all_mistakes_are_told_at_once(http: Http) -> None:
  body = job(yy=1, config={"cmd": 3, "zz": 1})
  problem = await http.refused(422, "POST", "jobs", json=body)
  paths = {error["path"] for error in problem["errors"]}
  assert paths == {"$.yy", "$.config.cmd", "$.config.zz"}


async def test_a_body_of_20_mb_is_too_large(world: World, http: Http) -> None:
  # Sent by the waiting client: the other one forgets an iterator when it is cut off.
  response = await trio.to_thread.run_sync(
    partial(
      httpx.post,
      f"{world.server.url}/api/v1/jobs",
      content=b" " * 20 * MB,
      headers={"Authorization": f"Bearer {world.server.key}"},
    )
  )
  problem = http.check(response, 413)
  assert str(16 * 1024**2) in problem["detail"]


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer hfk_wrong", "Basic YTpi"])
async def test_nobody_gets_in_without_a_key(http: Http, header: str) -> None:
  await http.refused(401, "GET", "jobs", headers={"Authorization": header})


async def test_a_token_of_agents_is_no_key(http: Http, world: World) -> None:
  header = {"Authorization": f"Bearer {world.server.token}"}
  await http.refused(401, "GET", "jobs", headers=header)


async def test_a_key_in_the_query_opens_nothing_and_is_not_logged(
  http: Http, world: World
) -> None:
  path = f"jobs?api_key={world.server.key}&token={world.server.token}"
  await http.refused(401, "GET", path, headers={"Authorization": ""})


@pytest.mark.parametrize("size", [1_000, 60_000])
@pytest.mark.parametrize("known", [True, False])
async def test_a_refused_upload_without_end_is_cut_off(
  world: World, size: int, known: bool
) -> None:
  """The caller goes on sending; the server answers and closes, whatever comes."""
  key = world.server.key if known else "hfk_wrong"
  url = urlsplit(world.server.url)
  head = (
    f"POST /api/v1/jobs HTTP/1.1\r\nHost: {url.netloc}\r\n"
    f"Authorization: Bearer {key}\r\nTransfer-Encoding: chunked\r\n\r\n"
  )
  piece = b"%x\r\n%s\r\n" % (size, b" " * size)
  with trio.fail_after(LIMIT_S):
    for _ in range(4):
      stream = await trio.open_tcp_stream(str(url.hostname), url.port or 0)
      stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
      async with stream:
        await stream.send_all(head.encode())
        with pytest.raises(trio.BrokenResourceError):
          await send_without_end(stream, piece)
        answer = await stream.receive_some(64)
      assert answer.startswith(b"HTTP/1.1 413" if known else b"HTTP/1.1 401")


async def send_without_end(stream: trio.SocketStream, piece: bytes) -> None:
  """Send until the other side does not want it any more."""
  while True:
    await stream.send_all(piece)
