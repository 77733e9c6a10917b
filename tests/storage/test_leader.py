"""The leader's office and the fence before its writes, on the database."""

from functools import partial
from uuid import UUID

import pytest
import trio
from support.postgres import Postgres
from support.world import make_namespace, query

from hetuflow.protocol.model import NamespaceForUpdate, NamespaceId, ServerId, new_id
from hetuflow.storage.bindings import move_namespaces, read_balance
from hetuflow.storage.connect import Database
from hetuflow.storage.leader import Term, TermOver, acquire_leader, resign_leader
from hetuflow.storage.namespaces import delete_namespace, update_namespace

ONE, TWO = ServerId(UUID(int=1)), ServerId(UUID(int=2))
DEFAULT = NamespaceId("default")
EXPIRE = query("UPDATE distributed_lock SET expires_at = now()")
BINDINGS = query("""
  SELECT namespace_id, server_id, epoch FROM sched_binding ORDER BY namespace_id
""")
FENCE = query("""
  SELECT FROM distributed_lock
  WHERE name = 'leader' AND owner = $owner AND term = $term AND expires_at > now()
  FOR SHARE
""")
WAITERS = query("""
  SELECT count(*) FROM pg_stat_activity
  WHERE datname = current_database() AND wait_event_type = 'Lock'
""")


async def lead(database: Database, owner: ServerId = ONE) -> Term:
  """Become the leader."""
  term = await acquire_leader(database, owner, ttl=60.0)
  assert term is not None
  return term


async def bindings(database: Database) -> dict[str, tuple[ServerId, int]]:
  """Read which server has what, in which epoch."""
  rows = await database.fetch(BINDINGS)
  return {row["namespace_id"]: (row["server_id"], row["epoch"]) for row in rows}


async def test_the_office_is_taken_only_when_nobody_holds_it_and_terms_rise(
  database: Database,
) -> None:
  first = await lead(database)
  assert first == Term(owner=ONE, term=1)
  for owner in (ONE, TWO):
    assert await acquire_leader(database, owner, ttl=60.0) is None
  await database.fetch(EXPIRE)
  assert await lead(database, TWO) == Term(owner=TWO, term=2)


async def test_who_resigns_is_followed_at_once_and_cannot_end_another_s_term(
  database: Database,
) -> None:
  first = await lead(database)
  assert await resign_leader(database, first)
  assert not await resign_leader(database, first)
  second = await lead(database, TWO)
  assert second.term == 2
  assert not await resign_leader(database, first)
  assert await acquire_leader(database, ONE, ttl=60.0) is None


async def test_of_many_candidates_one_is_elected(database: Database) -> None:
  won: list[Term] = []

  async def stand() -> None:
    """Try once."""
    if term := await acquire_leader(database, ServerId(new_id()), ttl=60.0):
      won.append(term)

  async with trio.open_nursery() as nursery:
    for _ in range(20):
      nursery.start_soon(stand)
  assert [term.term for term in won] == [1]


async def test_each_move_raises_the_epoch_and_one_that_changes_nothing_does_not(
  database: Database,
) -> None:
  term = await lead(database)
  await make_namespace(database, "other")
  both = {DEFAULT: ONE, NamespaceId("other"): TWO}
  assert await move_namespaces(database, term, both) == 2
  assert await move_namespaces(database, term, both) == 0
  assert await move_namespaces(database, term, {DEFAULT: TWO}) == 1
  assert await bindings(database) == {"default": (TWO, 2), "other": (TWO, 1)}


async def test_a_term_that_is_over_moves_nothing(database: Database) -> None:
  term = await lead(database)
  await database.fetch(EXPIRE)
  with pytest.raises(TermOver):
    await move_namespaces(database, term, {DEFAULT: ONE})
  successor = await lead(database, TWO)
  with pytest.raises(TermOver):
    await move_namespaces(database, term, {DEFAULT: ONE})
  impostor = Term(owner=ONE, term=successor.term)
  with pytest.raises(TermOver):
    await move_namespaces(database, impostor, {DEFAULT: ONE})
  assert await bindings(database) == {}


async def test_a_successor_waits_for_what_the_term_before_has_under_way(
  database: Database,
) -> None:
  term = await lead(database)
  order: list[str] = []

  async def expire() -> None:
    """End the term, as time would."""
    await database.fetch(EXPIRE)
    order.append("ended")

  async def follow() -> None:
    """Take the office as soon as that goes."""
    await lead(database, TWO)
    order.append("followed")

  with trio.fail_after(20):
    async with trio.open_nursery() as nursery, database.transaction() as connection:
      await connection.fetch(FENCE, owner=term.owner, term=term.term)
      for waiting, step in enumerate((expire, follow), 1):
        nursery.start_soon(step)
        while await database.fetchval(WAITERS) < waiting:
          pass
      order.append("written")
  assert order[0] == "written"
  assert sorted(order[1:]) == ["ended", "followed"]


async def test_a_write_that_waited_for_a_successor_is_refused(
  database: Database,
) -> None:
  term = await lead(database)
  refused: list[bool] = []

  async def write() -> None:
    """Move something, in a term that ends meanwhile."""
    try:
      await move_namespaces(database, term, {DEFAULT: ONE})
    except TermOver:
      refused.append(True)

  with trio.fail_after(20):
    async with trio.open_nursery() as nursery, database.transaction() as connection:
      await connection.fetch(EXPIRE)
      nursery.start_soon(write)
      while not await database.fetchval(WAITERS):
        pass
  assert refused == [True]
  assert await bindings(database) == {}


async def test_a_namespace_that_goes_while_it_moves_is_left_out(
  database: Database,
) -> None:
  term = await lead(database)
  await make_namespace(database, "going")
  await delete_namespace(database, "going")
  moves = {NamespaceId("going"): ONE, DEFAULT: ONE}
  assert await move_namespaces(database, term, moves) == 1
  assert set(await bindings(database)) == {"default"}


async def test_the_balance_tells_of_all_namespaces_and_of_servers_that_are_alive(
  database: Database, postgres: Postgres, dsn: str
) -> None:
  name = dsn.split("@/")[1].split("?")[0]
  servers = {"alive": "now() + '4 s', NULL", "dead": "now(), NULL"}
  servers |= {"stopped": "now() + '4 s', now()"}
  for number, (label, state) in enumerate(servers.items()):
    postgres.sql(
      "INSERT INTO sched_server (id, name, url, version, alive_until, stopped_at)"
      f" VALUES ('{UUID(int=number)}', '{label}', '', '1', {state})",
      database=name,
    )
  wish = partial(update_namespace, database, "default")
  await wish(NamespaceForUpdate(server_id=TWO, weight=7))
  await move_namespaces(database, await lead(database), {DEFAULT: ONE})
  balance = await read_balance(database)
  [server] = balance.servers
  assert server.id == UUID(int=0)
  assert 3 < server.seconds <= 4
  [namespace] = balance.namespaces
  assert (namespace.id, namespace.weight) == ("default", 7)
  assert (namespace.wish, namespace.server_id) == (TWO, ONE)
