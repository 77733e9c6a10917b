"""A server's own row and its ready files."""

import os
from pathlib import Path

import msgspec
import pytest
import trio
from support.postgres import Postgres
from support.world import read_clock

from hetuflow.nursery import Wakeup
from hetuflow.protocol.model import ServerForCreate, ServerId, new_id
from hetuflow.ready import publish_ready, read_ready
from hetuflow.server.clock import DatabaseClock
from hetuflow.server.scheduling.bindings import Bindings
from hetuflow.server.scheduling.leading.office import Office
from hetuflow.server.scheduling.registry import Announcer, Registry
from hetuflow.storage.connect import Database
from hetuflow.storage.servers import delete_server, get_server, stop_server


def make_registry(
  database: Database,
  server: ServerForCreate,
  *,
  clock: DatabaseClock | None = None,
  ttl: float = 2_400.0,
  office: Office | None = None,
  bindings: Bindings | None = None,
) -> Registry:
  """Make the heart of a server that beats when it is told to, unless ``ttl`` is short."""
  return Registry(
    database,
    server,
    clock or DatabaseClock(),
    office=office or Office(ttl=ttl),
    bindings=bindings or Bindings(ServerId(server.id)),
    wakeup=Wakeup(),
  )


def make_server(name: str = "one") -> ServerForCreate:
  """Make what a server says of itself."""
  return ServerForCreate(
    id=ServerId(new_id()), name=name, url="http://127.0.0.1:1", version="1"
  )


async def test_a_row_is_entered_renewed_and_signed_off(database: Database) -> None:
  server, clock = make_server(), DatabaseClock()
  registry = make_registry(database, server, clock=clock, ttl=0.4)
  with trio.fail_after(20):
    async with trio.open_nursery() as nursery:
      await nursery.start(registry.run)
      first = await get_server(database, server.id)
      while (await get_server(database, server.id)).heartbeat_at == first.heartbeat_at:
        pass
      nursery.cancel_scope.cancel()
  assert not (await get_server(database, server.id)).alive
  off = abs((clock.now() - await read_clock(database)).total_seconds())
  assert off < clock.error + 1


async def test_a_row_that_was_removed_is_entered_again(database: Database) -> None:
  server = make_server()
  registry = make_registry(database, server)
  await registry.beat_once()
  await stop_server(database, server.id)
  await delete_server(database, server.id)
  await registry.beat_once()
  assert (await get_server(database, server.id)).alive


async def test_signing_off_from_a_dead_database_is_no_error(
  database: Database, postgres: Postgres, dsn: str
) -> None:
  registry = make_registry(database, make_server())
  name = dsn.split("@/")[1].split("?")[0]
  with trio.fail_after(20):
    async with trio.open_nursery() as nursery:
      await nursery.start(registry.run)
      postgres.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
      postgres.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = '{name}'"
      )
      nursery.cancel_scope.cancel()


async def test_ready_files_are_there_while_the_server_is(tmp_path: Path) -> None:
  server = make_server()
  own = tmp_path / "servers" / f"{server.id}.json"
  last = tmp_path / "server.json"
  async with trio.open_nursery() as nursery:
    await nursery.start(Announcer(tmp_path, server).run)
    said = msgspec.json.decode(own.read_bytes())
    assert said == msgspec.json.decode(last.read_bytes())
    assert said["url"] == server.url
    assert said["server_id"] == str(server.id)
    assert set(said) == {"url", "pid", "version", "server_id"}
    for path in (own, last):
      ready = read_ready(path)
      assert ready is not None
      assert ready.is_running
    nursery.cancel_scope.cancel()
  assert not own.exists()
  assert not last.exists()


async def test_the_last_started_server_keeps_the_file_that_speaks_of_it(
  tmp_path: Path,
) -> None:
  older, newer = make_server("older"), make_server("newer")
  async with trio.open_nursery() as outer:
    async with trio.open_nursery() as inner:
      await inner.start(Announcer(tmp_path, older).run)
      await outer.start(Announcer(tmp_path, newer).run)
      inner.cancel_scope.cancel()
    said = msgspec.json.decode((tmp_path / "server.json").read_bytes())
    assert said["server_id"] == str(newer.id)
    assert len(list((tmp_path / "servers").iterdir())) == 1
    outer.cancel_scope.cancel()
  assert not (tmp_path / "server.json").exists()


async def test_a_server_that_stops_while_another_starts_leaves_the_other_its_file(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  older, newer = make_server("older"), make_server("newer")
  leaving = Announcer(tmp_path, older)
  look = leaving._speaks_of_us

  def look_too_early(file: Path) -> bool:
    """Look; before anything is done about it the other one writes its file."""
    found = look(file)
    monkeypatch.setattr(leaving, "_speaks_of_us", look)
    text = msgspec.json.encode({"server_id": str(newer.id)})
    with publish_ready(tmp_path / "server.json", text):
      pass
    return found

  async with trio.open_nursery() as nursery:
    await nursery.start(leaving.run)
    monkeypatch.setattr(leaving, "_speaks_of_us", look_too_early)
    nursery.cancel_scope.cancel()
  said = msgspec.json.decode((tmp_path / "server.json").read_bytes())
  assert said["server_id"] == str(newer.id)
  assert sorted(os.listdir(tmp_path)) == ["server.json", "servers"]
