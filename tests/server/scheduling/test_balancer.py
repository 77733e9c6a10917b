"""Namespaces follow servers that come, go and suffer: single passes on a database."""

from uuid import UUID

import pytest
import trio
from support.plans import explain_generic, scans
from support.world import make_namespace, query

from hetuflow.nursery import Wakeup
from hetuflow.protocol.model import (
  NamespaceForUpdate,
  ServerForCreate,
  ServerId,
)
from hetuflow.server.load import LoadMeter
from hetuflow.server.scheduling.leading.balancer import PATIENCE, PAUSE, Balancer
from hetuflow.server.scheduling.leading.office import Office
from hetuflow.server.trust import Moment
from hetuflow.storage import servers
from hetuflow.storage.connect import Database
from hetuflow.storage.leader import Term, acquire_leader
from hetuflow.storage.namespaces import update_namespace
from hetuflow.storage.servers import beat_server, create_server, stop_server

ONE, TWO, THREE = (ServerId(UUID(int=number)) for number in (1, 2, 3))
COUNTS = query("""
  SELECT server_id, count(*) AS count FROM sched_binding GROUP BY server_id
""")
EPOCHS = query("SELECT sum(epoch)::integer FROM sched_binding")
HOME = query("SELECT server_id FROM sched_binding WHERE namespace_id = $id")


@pytest.fixture
async def balancer(database: Database) -> Balancer:
  """A balancer in office, and 120 namespaces."""
  await database.fetch(
    query("""
      INSERT INTO sched_namespace (id) SELECT 'n' || n FROM generate_series(1, 119) AS n
    """)
  )
  term = await acquire_leader(database, ONE, ttl=3_600.0)
  assert term is not None
  return Balancer(database, in_office(term), Wakeup())


def in_office(term: Term) -> Office:
  """Hold the office without an elector."""
  office = Office(ttl=3_600.0)
  office.enter(term, Moment(), trio.CancelScope())
  return office


async def join(
  database: Database, *ids: ServerId, weight: int = 1, ttl: float = 60.0
) -> None:
  """Enter servers."""
  for id in ids:
    server = ServerForCreate(
      id=id, name="s", url="http://s", version="1", weight=weight
    )
    await create_server(database, server, ttl=ttl)


async def suffer(database: Database, id: ServerId, load: float) -> None:
  """Let a server say how busy it is."""
  assert await beat_server(database, id, ttl=60.0, load=load) is not None


async def counts(database: Database) -> dict[ServerId, int]:
  """Count the namespaces of each server."""
  return {row["server_id"]: row["count"] for row in await database.fetch(COUNTS)}


async def rest(balancer: Balancer) -> float:
  """Let passes follow each other until nothing moves; return the last delay."""
  for _ in range(100):
    if (delay := await balancer.balance_once()) != PAUSE:
      return delay
  raise AssertionError("it does not come to rest")


async def test_what_nobody_has_is_bound_in_one_pass(
  database: Database, balancer: Balancer
) -> None:
  await join(database, ONE)
  await balancer.balance_once()
  assert await counts(database) == {ONE: 120}
  await make_namespace(database, "new")
  await balancer.balance_once()
  assert await counts(database) == {ONE: 121}


async def test_nothing_moves_where_nobody_is_alive(
  database: Database, balancer: Balancer
) -> None:
  await join(database, ONE, ttl=0.0)
  assert await balancer.balance_once() == pytest.approx(PAUSE + PATIENCE)
  assert await counts(database) == {}


async def test_a_server_that_joins_gets_a_few_at_a_time(
  database: Database, balancer: Balancer
) -> None:
  await join(database, ONE)
  await balancer.balance_once()
  await join(database, TWO)
  assert await balancer.balance_once() == PAUSE
  assert await counts(database) == {ONE: 110, TWO: 10}
  await rest(balancer)
  found = await counts(database)
  assert abs(found[ONE] - found[TWO]) <= 2
  # Each that moved has moved once.
  assert await database.fetchval(EPOCHS) == 120 + found[TWO]


async def test_one_that_says_that_it_stops_loses_all_at_once(
  database: Database, balancer: Balancer
) -> None:
  await join(database, ONE, TWO)
  await rest(balancer)
  await stop_server(database, TWO)
  await balancer.balance_once()
  assert await counts(database) == {ONE: 120}


async def test_the_next_look_comes_when_the_first_word_runs_out(
  database: Database, balancer: Balancer
) -> None:
  await join(database, ONE, ttl=60.0)
  await join(database, TWO, ttl=2.0)
  delay = await rest(balancer)
  assert 1 < delay <= 2 + PATIENCE
  # With hindsight: nothing was heard of it any more.
  await beat_server(database, TWO, ttl=0.0)
  await balancer.balance_once()
  assert await counts(database) == {ONE: 120}


async def test_a_wish_is_kept_at_once_and_as_long_as_that_server_is_alive(
  database: Database, balancer: Balancer
) -> None:
  await join(database, ONE, TWO)
  await rest(balancer)
  home = await database.fetchval(HOME, id="default")
  wish = TWO if home == ONE else ONE
  await update_namespace(database, "default", NamespaceForUpdate(server_id=wish))
  await balancer.balance_once()
  assert await database.fetchval(HOME, id="default") == wish
  await stop_server(database, wish)
  await balancer.balance_once()
  assert await database.fetchval(HOME, id="default") == home
  await beat_server(database, wish, ttl=60.0)
  await balancer.balance_once()
  assert await database.fetchval(HOME, id="default") == wish


async def test_a_server_under_strain_gives_some_away_and_not_back_and_forth(
  database: Database, balancer: Balancer
) -> None:
  await join(database, ONE, TWO, THREE)
  await rest(balancer)
  await suffer(database, ONE, 0.97)
  await rest(balancer)
  strained = await counts(database)
  assert 31 <= strained[ONE] <= 34
  # Relieved of a quarter it is less busy; that is no reason to give it back.
  await suffer(database, ONE, 0.75)
  await rest(balancer)
  assert await counts(database) == strained
  await suffer(database, ONE, 0.3)
  await rest(balancer)
  assert (await counts(database))[ONE] >= 38


async def test_a_beat_reads_its_own_rows_by_their_indexes(database: Database) -> None:
  async with database.transaction() as connection:
    plan = await explain_generic(connection, servers._sql.beat_server)
  indexes = {node["Index Name"] for node in plan if "Index Name" in node}
  assert indexes >= {
    "sched_server_pkey",
    "sched_binding_server",
    "distributed_lock_pkey",
  }
  # No task that has ended is looked at, and of the others only those that wait.
  tasks = {scan for scan in scans(plan) if scan[0].startswith("sched_task")}
  assert {table for table, _ in tasks} == {"sched_task_live"}
  assert all(index.startswith("sched_task_blocked") for _, index in tasks)


def test_the_load_is_the_share_of_a_core_averaged_over_half_a_minute() -> None:
  used, now = 0.0, 0.0
  meter = LoadMeter(cpu=lambda: used, clock=lambda: now)
  assert meter.read() == 0.0
  for _ in range(30):
    used, now = used + 1.0, now + 1.0
    load = meter.read()
  assert 0.6 < load < 0.66
  used, now = used + 1_000.0, now + 300.0
  assert 0.99 < meter.read() <= 1.0
  now += 300.0
  assert meter.read() < 0.01
