"""Upkeep of the database."""

from datetime import timedelta

import pytest
import trio
from support.world import query

from hetuflow.protocol.model import new_id
from hetuflow.server.scheduling import janitor as janitor_module
from hetuflow.server.scheduling.janitor import Janitor
from hetuflow.storage.connect import Database
from hetuflow.storage.dead_letters import bury

FORGOTTEN = query("""
  INSERT INTO sched_idempotency (namespace_id, scope, key, answer, expires_at)
  SELECT '*', 'test', n::text, '{}', now() + make_interval(days => n - 5)
  FROM generate_series(1, 9) AS n
""")
KEYS = query("SELECT count(*) FROM sched_idempotency")
WEEKS = query(
  "SELECT count(*) FROM pg_inherits WHERE inhparent = 'sched_task'::regclass"
)
SERVERS = query("""
  INSERT INTO sched_server (id, name, url, version, alive_until, stopped_at)
  SELECT gen_random_uuid(), name, '', '1', now() - alive_until, now() - stopped_at
  FROM unnest($names::text[], $alive_until::interval[], $stopped_at::interval[])
    AS s (name, alive_until, stopped_at)
""")
NAMES = query("SELECT name FROM sched_server ORDER BY name")
AGE = query("""
  UPDATE sched_dead_letter SET created_at = now() - interval '31 days'
  WHERE kind <> 'fresh'
""")
KINDS = query("SELECT kind FROM sched_dead_letter")


async def test_upkeep_makes_partitions_and_forgets_what_has_expired(
  database: Database,
) -> None:
  janitor = Janitor(database)
  weeks = await database.fetchval(WEEKS)
  [ahead] = await database.fetch(
    query("""
      SELECT inhrelid::regclass::text AS name FROM pg_inherits
      WHERE inhparent = 'sched_task'::regclass AND inhrelid::regclass::text ~ 'w'
      ORDER BY 1 DESC LIMIT 1
    """)
  )
  async with database.connection() as connection:
    await connection.execute_script(f'DROP TABLE "{ahead["name"].strip(chr(34))}"')
  await database.fetch(FORGOTTEN)
  await janitor.tidy_once()
  assert await database.fetchval(WEEKS) == weeks
  assert await database.fetchval(KEYS) == 4
  await janitor.tidy_once()
  assert await database.fetchval(WEEKS) == weeks


async def test_upkeep_goes_on_until_everything_that_has_expired_is_forgotten(
  database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(janitor_module, "FORGET_LIMIT", 2)
  await database.fetch(FORGOTTEN)
  await Janitor(database).tidy_once()
  assert await database.fetchval(KEYS) == 4


async def test_servers_may_keep_up_at_once(database: Database) -> None:
  with trio.fail_after(30):
    async with trio.open_nursery() as nursery:
      for _ in range(4):
        nursery.start_soon(Janitor(database).tidy_once)


async def test_upkeep_forgets_servers_that_are_gone_for_a_week(
  database: Database,
) -> None:
  day = timedelta(days=1)
  servers = {
    "alive": (-day, None),
    "started again": (-day, 9 * day),
    "stopped": (8 * day, 8 * day),
    "stopped lately": (6 * day, 6 * day),
    "lost": (8 * day, None),
    "lost lately": (6 * day, None),
  }
  alive_until, stopped_at = zip(*servers.values(), strict=True)
  await database.fetch(
    SERVERS, names=list(servers), alive_until=alive_until, stopped_at=stopped_at
  )
  await Janitor(database).tidy_once()
  names = [row["name"] for row in await database.fetch(NAMES)]
  assert names == ["alive", "lost lately", "started again", "stopped lately"]


async def test_upkeep_forgets_old_dead_letters(
  database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(janitor_module, "FORGET_LIMIT", 2)
  for number in range(5):
    kind = "old" if number else "fresh"
    await bury(database, kind=kind, agent_id=new_id(), reason="", payload={})
  await database.fetch(AGE)
  await Janitor(database).tidy_once()
  assert [row["kind"] for row in await database.fetch(KINDS)] == ["fresh"]
