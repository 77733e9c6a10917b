"""The way to PostgreSQL, under cancellation and real faults."""

import os
import random
import signal
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest
import trio
from support.postgres import Postgres
from support.world import query

from hetuflow.errors import Conflict, StorageError, Unavailable
from hetuflow.storage import connect
from hetuflow.storage.connect import Database, StorageSettings, open_storage
from hetuflow.storage.failures import may_have_happened

SLEEP = query("SELECT pg_sleep($seconds)")
PID = query("SELECT pg_backend_pid()")
ONE = query("SELECT 1")
ECHO = query("SELECT $text::text")
COUNT = query("""
  SELECT count(*) FROM pg_stat_activity
  WHERE datname = current_database() AND backend_type = 'client backend'
""")
OPEN = query("""
  SELECT count(*) FROM pg_stat_activity
  WHERE datname = current_database() AND state LIKE 'idle in transaction%'
""")
INSERT = query("INSERT INTO sched_namespace (id) VALUES ($id)")
WEIGH = query("UPDATE sched_namespace SET weight = weight + 1 WHERE id = $id")
WEIGHT = query("SELECT weight FROM sched_namespace WHERE id = $id")
NOTIFY = query("SELECT pg_notify('words', $text)")

POOL_SIZE = 3


@pytest.fixture
async def small(dsn: str) -> AsyncIterator[Database]:
  """A database with a pool of few connections."""
  settings = StorageSettings(dsn=dsn, pool_size=POOL_SIZE, statement_timeout=10)
  async with open_storage(settings) as opened:
    yield opened


def backends(postgres: Postgres, dsn: str) -> list[int]:
  """List the processes that serve one database."""
  name = dsn.split("@/")[1].split("?")[0]
  rows = postgres.sql(f"SELECT pid FROM pg_stat_activity WHERE datname = '{name}'")
  return [int(row) for row in rows.split()]


def terminate(postgres: Postgres, dsn: str) -> None:
  """End every connection to one database, as an administrator does."""
  for pid in backends(postgres, dsn):
    postgres.sql(f"SELECT pg_terminate_backend({pid})")


@contextmanager
def frozen(postgres: Postgres, dsn: str) -> Iterator[None]:
  """Let the processes that serve one database stand still."""
  pids = backends(postgres, dsn)
  for pid in pids:
    os.kill(pid, signal.SIGSTOP)
  try:
    yield
  finally:
    for pid in pids:
      os.kill(pid, signal.SIGCONT)


async def test_cancelled_queries_and_transactions_leak_no_connection(
  small: Database,
) -> None:
  randomness = random.Random(4)

  async def statement() -> None:
    await small.fetch(SLEEP, seconds=randomness.random() / 500)

  async def transaction() -> None:
    async with small.transaction() as connection:
      await connection.fetch(WEIGH, id="default")
      await connection.fetch(SLEEP, seconds=randomness.random() / 500)

  async def listen() -> None:
    async with small.connection() as connection, connection.listen("words"):
      await trio.sleep(0.001)

  async def cancelled(number: int) -> None:
    step = (statement, transaction, statement, transaction, listen)[number % 5]
    with trio.move_on_after(randomness.random() / 200):
      await step()

  with trio.fail_after(60):
    for round_ in range(100):
      async with trio.open_nursery() as nursery:
        for number in range(10):
          nursery.start_soon(cancelled, round_ * 10 + number)
    # All of the pool can be had at once, and nothing is left half done in it.
    async with trio.open_nursery() as nursery:
      rest = [trio.Event() for _ in range(POOL_SIZE)]
      for own in rest:
        nursery.start_soon(hold_one, small, own, rest)
    # The server may take a moment to see that a connection was thrown away.
    while await small.fetchval(OPEN) > 0:
      pass
    while await small.fetchval(COUNT) > POOL_SIZE:
      pass


async def hold_one(
  database: Database, own: trio.Event, every: Sequence[trio.Event]
) -> None:
  """Use one connection until every other is used too."""
  async with database.connection() as connection:
    assert await connection.fetchval(ONE) == 1
    own.set()
    for event in every:
      await event.wait()


async def test_a_cancelled_transaction_is_rolled_back(small: Database) -> None:
  with trio.move_on_after(0.2) as scope:
    async with small.transaction() as connection:
      await connection.fetch(WEIGH, id="default")
      await trio.sleep_forever()
  assert scope.cancelled_caught
  assert await small.fetchval(WEIGHT, id="default") == 1


async def test_a_terminated_connection_is_unavailable_and_replaced(
  database: Database, postgres: Postgres, dsn: str
) -> None:
  with trio.fail_after(20):
    async with trio.open_nursery() as nursery:
      nursery.start_soon(fall, database)
      await wait_for_sleeper(database)
      terminate(postgres, dsn)
    assert await database.fetchval(ONE) == 1


async def fall(database: Database) -> None:
  """Be in the middle of a statement when the connection ends."""
  with pytest.raises(Unavailable) as caught:
    await database.fetch(SLEEP, seconds=8.0)
  assert not isinstance(caught.value, Conflict)


SLEEPERS = query("""
  SELECT count(*) FROM pg_stat_activity
  WHERE datname = current_database() AND query LIKE '%pg_sleep($1)' AND state = 'active'
""")


async def wait_for_sleeper(database: Database) -> None:
  """Wait until the other task's statement runs."""
  while await database.fetchval(SLEEPERS) == 0:
    pass


async def test_a_stopped_server_is_unavailable() -> None:
  settings = StorageSettings(dsn="postgresql://postgres@/x?host=/nowhere/at/all")
  with trio.fail_after(20), pytest.raises(Unavailable):
    async with open_storage(settings):
      raise AssertionError("there is nothing to open")


async def test_a_frozen_database_ends_no_statement_but_ours_do(
  dsn: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(connect, "ANSWER_MARGIN", 0.3)
  monkeypatch.setattr(connect, "ACQUIRE_TIMEOUT", 0.5)
  settings = StorageSettings(dsn=dsn, pool_size=1, statement_timeout=0.2)
  with trio.fail_after(30):
    async with open_storage(settings) as database:
      await database.fetchval(ONE)
      with frozen(postgres, dsn), pytest.raises(Unavailable):
        await database.fetchval(ONE)
      assert await database.fetchval(ONE) == 1
      # Leaving the block does not wait for what does not answer either.
      freeze = frozen(postgres, dsn)
      freeze.__enter__()
    freeze.__exit__(None, None, None)


@pytest.mark.parametrize("moment", ["begin", "commit"])
async def test_a_frozen_database_holds_no_transaction_for_ever(
  dsn: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
  monkeypatch.setattr(connect, "ANSWER_MARGIN", 0.3)
  monkeypatch.setattr(connect, "ACQUIRE_TIMEOUT", 0.5)
  settings = StorageSettings(dsn=dsn, pool_size=1, statement_timeout=0.2)
  with ExitStack() as ice:

    def freeze() -> None:
      """Let the database stand still until the end of the test."""
      ice.enter_context(frozen(postgres, dsn))

    async def weigh() -> None:
      """Freeze the database at one moment of a transaction."""
      if moment == "begin":
        freeze()
      async with connection.transaction():
        await connection.fetch(WEIGH, id="default")
        if moment == "commit":
          freeze()

    # A commit is shielded: no cancellation would end a wait for it.
    thaw = threading.Timer(20, ice.close)
    ice.callback(thaw.cancel)
    thaw.start()
    async with open_storage(settings) as database, database.connection() as connection:
      began = trio.current_time()
      with pytest.raises(Unavailable):
        await weigh()
      assert trio.current_time() - began < 10


async def test_a_pool_without_a_free_connection_is_unavailable(
  dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(connect, "ACQUIRE_TIMEOUT", 0.1)
  async with (
    open_storage(StorageSettings(dsn=dsn, pool_size=1)) as database,
    database.connection(),
  ):
    with trio.fail_after(5), pytest.raises(Unavailable, match="no connection"):
      await database.fetchval(ONE)


async def test_a_value_that_cannot_be_sent_is_no_outage(database: Database) -> None:
  with pytest.raises(StorageError) as caught:
    await database.fetchval(ECHO, text="\ud800")
  assert not isinstance(caught.value, Unavailable)
  with pytest.raises(StorageError) as caught:
    await database.fetchval(ECHO, text="\x00")
  assert not isinstance(caught.value, Unavailable)


async def test_a_broken_rule_is_a_conflict_that_did_not_happen(
  database: Database,
) -> None:
  with pytest.raises(Conflict) as caught:
    await database.fetch(INSERT, id="default")
  assert not may_have_happened(caught.value)


async def test_what_became_of_an_interrupted_statement_is_unknown(
  database: Database, postgres: Postgres, dsn: str
) -> None:
  doubts = []

  async def interrupted() -> None:
    try:
      async with database.connection() as connection:
        await connection.fetch(SLEEP, seconds=8.0)
    except BaseException as error:
      doubts.append(may_have_happened(error))
      raise

  with trio.fail_after(20):
    with trio.move_on_after(0.2):
      await interrupted()
    assert doubts == [True]
    short = StorageSettings(dsn=dsn, statement_timeout=0.1)
    async with open_storage(short) as hasty:
      with pytest.raises(Unavailable) as caught:
        await hasty.fetch(SLEEP, seconds=8.0)
    assert not may_have_happened(caught.value)


LOCK = query("SELECT id FROM sched_namespace WHERE id = $id FOR UPDATE")
LOCK_BOTH = query("""
  WITH a AS MATERIALIZED (
    SELECT id FROM sched_namespace WHERE id = $first FOR UPDATE),
  b AS MATERIALIZED (
    SELECT n.id FROM sched_namespace AS n, a WHERE n.id = $second AND a.id <> ''
    FOR UPDATE OF n)
  UPDATE sched_namespace AS n SET weight = n.weight + 1 FROM b WHERE n.id = b.id
""")


async def test_the_victim_of_a_deadlock_is_tried_again(database: Database) -> None:
  await database.fetch(INSERT, id="other")
  started = trio.Event()

  async def crosswise() -> None:
    async with database.transaction() as connection:
      await connection.fetch(query("SET LOCAL deadlock_timeout = '30s'"))
      await connection.fetch(LOCK, id="other")
      started.set()
      while await database.fetchval(WAITERS) == 0:
        pass
      await connection.fetch(LOCK, id="default")

  with trio.fail_after(30):
    async with trio.open_nursery() as nursery:
      nursery.start_soon(crosswise)
      await started.wait()
      await database.fetch(LOCK_BOTH, first="default", second="other")
    assert await database.fetchval(WEIGHT, id="other") == 2


WAITERS = query("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")


async def test_every_notification_is_heard_until_the_connection_dies(
  database: Database, postgres: Postgres, dsn: str
) -> None:
  heard: list[str] = []
  with trio.fail_after(20):
    async with (
      database.connection() as connection,
      connection.listen("words") as words,
    ):
      for number in range(1_000):
        await database.fetch(NOTIFY, text=str(number))
      pid = await connection.fetchval(PID)
      while len(heard) < 1_000:
        heard.append(await words.receive())
      postgres.sql(f"SELECT pg_terminate_backend({pid})")
      heard += [word async for word in words]
    assert heard == [str(number) for number in range(1_000)]
    assert await database.fetchval(ONE) == 1


async def test_listening_leaves_nothing_behind(small: Database) -> None:
  with trio.fail_after(20):
    for _ in range(5):
      async with small.connection() as connection, connection.listen("words"):
        pass
    while await small.fetchval(COUNT) > POOL_SIZE:
      pass
    async with trio.open_nursery() as nursery:
      rest = [trio.Event() for _ in range(POOL_SIZE)]
      for own in rest:
        nursery.start_soon(hold_one, small, own, rest)
