"""Migrations on a real database."""

import attrs
import pytest
import trio
from support.world import query

from hetuflow.errors import SchemaMismatch
from hetuflow.storage import migrate as module
from hetuflow.storage.connect import StorageSettings, open_storage
from hetuflow.storage.migrate import Migration, check_schema, load_migrations, migrate

CHANGE_CHECKSUM = query("UPDATE sched_migration SET checksum = $checksum")
ADD_VERSION = query("""
  INSERT INTO sched_migration (version, name, checksum) VALUES (9999, 'later', 'x')
""")
COUNT = query("SELECT count(*) FROM sched_migration")


async def test_migrating_twice_does_nothing_the_second_time(empty_dsn: str) -> None:
  async with open_storage(StorageSettings(dsn=empty_dsn)) as database:
    with pytest.raises(SchemaMismatch, match="run: hetuflow migrate"):
      await check_schema(database)
    applied = await migrate(database)
    assert applied == load_migrations()
    assert await migrate(database) == []
    await check_schema(database)


async def test_of_servers_that_start_at_once_one_migrates(empty_dsn: str) -> None:
  applied: list[Migration] = []
  async with open_storage(StorageSettings(dsn=empty_dsn)) as database:

    async def start() -> None:
      applied.extend(await migrate(database))

    with trio.fail_after(60):
      async with trio.open_nursery() as nursery:
        for _ in range(4):
          nursery.start_soon(start)
    assert applied == load_migrations()
    assert await database.fetchval(COUNT) == len(applied)


async def test_a_migration_that_was_changed_is_noticed(dsn: str) -> None:
  async with open_storage(StorageSettings(dsn=dsn)) as database:
    await database.fetch(CHANGE_CHECKSUM, checksum="of another file")
    for act in (migrate, check_schema):
      with pytest.raises(SchemaMismatch, match="was changed after it was applied"):
        await act(database)


async def test_a_newer_database_is_left_alone(dsn: str) -> None:
  async with open_storage(StorageSettings(dsn=dsn)) as database:
    await database.fetch(ADD_VERSION)
    for act in (migrate, check_schema):
      with pytest.raises(SchemaMismatch, match="upgrade hetuflow"):
        await act(database)


async def test_a_missing_migration_is_named_and_then_applied(
  dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  first = load_migrations()[0]
  extra = attrs.evolve(
    first, version=9999, name="extra", text="CREATE TABLE extra (id integer)"
  )
  known = [*load_migrations(), extra]
  monkeypatch.setattr(module, "load_migrations", lambda: known)
  async with open_storage(StorageSettings(dsn=dsn)) as database:
    with pytest.raises(SchemaMismatch, match="lacks extra"):
      await check_schema(database)
    assert await migrate(database) == [extra]
    await check_schema(database)


async def test_a_migration_that_fails_leaves_nothing(
  dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  first = load_migrations()[0]
  broken = attrs.evolve(
    first, version=9999, name="broken", text="CREATE TABLE extra (id integer); SELECT x"
  )
  known = [*load_migrations(), broken]
  async with open_storage(StorageSettings(dsn=dsn)) as database:
    with monkeypatch.context() as patch:
      patch.setattr(module, "load_migrations", lambda: known)
      with pytest.raises(Exception, match="column"):
        await migrate(database)
    await check_schema(database)
    assert await database.fetchval(query("SELECT to_regclass('extra')::text")) is None
