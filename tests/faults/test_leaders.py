"""Leaders are killed, frozen and cut off; another follows, and no stale word is written."""

import time
from collections import Counter
from datetime import datetime

import pytest
import trio
from fault_stage import Stage
from support.postgres import Postgres
from support.programs import Server, client_of, wait_until
from support.proxy import Proxy
from support.work import all_of

from hetuflow.client.calls import system
from hetuflow.storage.connect import Database
from hetuflow.storage.sql import Queries, parse_queries

TTL = 4.0
"""What a server's word is good for, as it comes."""
AUDIT = """
  CREATE TABLE audit (
    namespace_id text, by_server text, leader text, at timestamptz DEFAULT now()
  );
  CREATE FUNCTION audit_binding() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    INSERT INTO audit (namespace_id, by_server, leader)
    SELECT NEW.namespace_id, current_setting('application_name'),
      'hetuflow server ' || s.name
    FROM distributed_lock AS l JOIN sched_server AS s ON s.id = l.owner;
    RETURN NEW;
  END $$;
  CREATE TRIGGER audit AFTER INSERT OR UPDATE ON sched_binding
    FOR EACH ROW EXECUTE FUNCTION audit_binding();
"""
MANY = """
  INSERT INTO sched_namespace (id) SELECT 'n' || n FROM generate_series(1, {}) AS n;
  SELECT pg_notify('hetuflow', 'namespaces');
"""
MORE = """
  INSERT INTO sched_namespace (id) SELECT 'm{0}-' || n FROM generate_series(1, 5) AS n;
  SELECT pg_notify('hetuflow', 'namespaces');
"""
QUERIES = Queries(
  parse_queries("""
-- name: bindings
-- Which server has which namespace.
SELECT namespace_id, s.name
FROM sched_binding AS b JOIN sched_server AS s ON s.id = b.server_id

-- name: stale
-- Bindings that somebody else than the leader has written.
SELECT count(*) FROM audit WHERE by_server <> leader

-- name: written
-- How many each leader has written.
SELECT by_server, count(*) AS count FROM audit GROUP BY by_server

-- name: term
-- The number of the last term.
SELECT term FROM distributed_lock

-- name: block
-- Let nobody look at the office.
LOCK distributed_lock IN ACCESS EXCLUSIVE MODE
""")
)


class House:
  """Three servers on one database that is not theirs, the first of which leads."""

  def __init__(self, stage: Stage, database: Database, dsn: str) -> None:
    self.stage = stage
    self.database = database
    self.dsn = dsn

  async def start(self, name: str, *, dsn: str = "", weight: int = 1) -> Server:
    """Start a server."""
    weighty = {"HETUFLOW_SERVER_WEIGHT": str(weight)}
    url = dsn or self.dsn
    return await self.stage.server(name=name, database_url=url, env=weighty)

  async def run(self, script: str) -> None:
    """Run statements."""
    async with self.database.connection() as connection:
      await connection.execute_script(script)

  async def bindings(self) -> dict[str, str]:
    """Read the name of the server of each namespace."""
    rows = await self.database.fetch(QUERIES.bindings)
    return {row["namespace_id"]: row["name"] for row in rows}

  async def shares(self) -> Counter[str]:
    """Count the namespaces of each server."""
    return Counter((await self.bindings()).values())

  async def wait_shares(self, within: float = 30.0, **wanted: int) -> None:
    """Wait until each server has so many namespaces, more or less 5 %."""

    async def fair() -> bool:
      """Look once."""
      seen = await self.shares()
      return set(seen) == set(wanted) and all(
        abs(seen[name] - count) <= max(1, count * 0.05)
        for name, count in wanted.items()
      )

    await wait_until(fair, within)

  async def stale_writes(self) -> int:
    """Count the bindings that one has written who did not lead then."""
    return int(await self.database.fetchval(QUERIES.stale))


@pytest.fixture
def house(stage: Stage, database: Database, dsn: str) -> House:
  """A house without servers as yet."""
  return House(stage, database, dsn)


async def leads(seen_by: Server, name: str) -> bool:
  """Tell whether a server leads, as another sees it."""
  async with client_of(seen_by) as client:
    servers = await all_of(client, system.list_servers())
  return any(each.name == name and each.alive and each.leader for each in servers)


async def left_within(server: Server, since: float) -> float:
  """Wait until a server says that it leads no longer; return after how many seconds."""
  [said] = await server.wait_for(lambda: server.events("leader_left"), within=10.0)
  return datetime.fromisoformat(said["timestamp"]).timestamp() - since


async def test_a_namespace_has_a_server_at_once_from_the_start_and_when_it_is_made(
  house: House,
) -> None:
  with trio.fail_after(60):
    server = await house.start("first")
    await wait_until(house.bindings, within=0.5)
    async with client_of(server) as client:
      await client.send(system.create_namespace({"id": "new"}))

      async def has_two() -> bool:
        """Look at what the API says."""
        [seen] = await all_of(client, system.list_servers())
        return bool(seen.namespaces == 2 and seen.leader and seen.alive)

      await wait_until(has_two, within=0.5)


async def test_a_killed_leader_is_followed_in_time_and_only_its_namespaces_move(
  house: House,
) -> None:
  with trio.fail_after(90):
    first = await house.start("first", weight=1)
    second = await house.start("second", weight=2)
    await house.start("third", weight=3)
    assert await leads(second, "first")
    await house.run(MANY.format(599))
    await house.wait_shares(first=100, second=200, third=300)
    before = await house.bindings()
    first.kill()
    killed_at = trio.current_time()
    await wait_until(
      lambda: any_leads(second, "second", "third"), within=TTL + 1, every=0.05
    )
    await wait_until(lambda: nobody_has(house, "first"), within=10)
    assert trio.current_time() - killed_at < 5
    await house.wait_shares(second=240, third=360)
    after = await house.bindings()
    moved = {name for name in before if after[name] != before[name]}
    assert moved == {name for name in before if before[name] == "first"}


async def any_leads(seen_by: Server, *names: str) -> bool:
  """Tell whether one of several leads."""
  return any([await leads(seen_by, name) for name in names])


async def nobody_has(house: House, name: str) -> bool:
  """Tell whether a server has no namespace any more."""
  return (await house.shares())[name] == 0


async def test_a_leader_that_is_stopped_hands_over_at_once(house: House) -> None:
  with trio.fail_after(90):
    first, second = await house.start("first"), await house.start("second")
    await house.run(MANY.format(99))
    await house.wait_shares(first=50, second=50)
    first.process.terminate()
    stopped_at = trio.current_time()
    await wait_until(lambda: leads(second, "second"))
    await wait_until(lambda: nobody_has(house, "first"))
    assert trio.current_time() - stopped_at < 1
    assert await first.wait() == 0


async def test_a_server_that_joins_gets_its_share_and_no_other_moves(
  house: House,
) -> None:
  with trio.fail_after(90):
    await house.start("first")
    await house.start("second")
    await house.run(MANY.format(89))
    await house.wait_shares(first=45, second=45)
    before = await house.bindings()
    await house.start("third")
    await house.wait_shares(first=30, second=30, third=30)
    after = await house.bindings()
    assert {after[name] for name in before if after[name] != before[name]} == {"third"}


async def test_a_leader_that_was_frozen_steps_down_before_it_writes(
  house: House,
) -> None:
  with trio.fail_after(90):
    first, second = await house.start("first"), await house.start("second")
    await house.run(AUDIT)
    await house.run(MANY.format(99))
    await house.wait_shares(first=50, second=50)
    for leader, other, half in ((first, second, 52), (second, first, 55)):
      await freeze(house, leader, other)
      await house.wait_shares(first=half, second=half)
    assert await house.stale_writes() == 0
    written = await house.database.fetch(QUERIES.written)
    assert len(written) == 2


async def freeze(house: House, leader: Server, other: Server) -> None:
  """Freeze the leader until another leads, and give it something to write as it wakes."""
  term = await house.database.fetchval(QUERIES.term)
  leader.suspend()
  await wait_until(lambda: leads(other, other.name), within=TTL + 1)
  await wait_until(lambda: nobody_has(house, leader.name), within=5)
  await house.run(MORE.format(term))
  leader.resume()
  await leader.wait_for(lambda: leader.events("leader_left"))
  assert await house.database.fetchval(QUERIES.term) == term + 1


async def test_a_leader_whose_statements_hang_steps_down_by_its_own_clock(
  house: House,
) -> None:
  with trio.fail_after(60):
    first = await house.start("first")
    second = await house.start("second")
    assert await leads(second, "first")
    async with house.database.transaction() as connection:
      await connection.fetch(QUERIES.block)
      blocked_at = time.time()
      assert await left_within(first, blocked_at) <= TTL
    await wait_until(lambda: any_leads(second, "first", "second"), within=TTL + 1)


async def test_a_leader_behind_a_dead_line_steps_down_in_time_and_returns_unharmed(
  house: House, nursery: trio.Nursery, postgres: Postgres
) -> None:
  with trio.fail_after(90):
    proxy = Proxy(postgres.folder / ".s.PGSQL.5432")
    await nursery.start(proxy.run)
    name = house.dsn.split("@/")[1].split("?")[0]
    line = f"postgresql://postgres@127.0.0.1:{proxy.port}/{name}"
    first, second = await house.start("first", dsn=line), await house.start("second")
    assert await leads(second, "first")
    await house.run(AUDIT)
    await house.run(MANY.format(99))
    await house.wait_shares(first=50, second=50)
    proxy.stall()
    stalled_at = time.time()
    assert await left_within(first, stalled_at) <= TTL
    assert first.events("bindings_let_go")
    await wait_until(lambda: leads(second, "second"), within=TTL + 1)
    assert time.time() - stalled_at < TTL + 1
    await wait_until(lambda: nobody_has(house, "first"), within=5)
    # All that was held up arrives now.
    proxy.heal()
    await house.wait_shares(first=50, second=50)
    assert await house.stale_writes() == 0
    assert await leads(second, "second")
