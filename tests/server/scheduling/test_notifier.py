"""LISTEN on a real connection, also on one that dies or freezes."""

import os
import signal

import pytest
import trio
from support.postgres import Postgres
from support.world import query

from hetuflow.errors import Unavailable
from hetuflow.nursery import Backoff, Outage
from hetuflow.server.scheduling import notifier as notifier_module
from hetuflow.server.scheduling.notifier import CHANNEL, Notifier
from hetuflow.storage.connect import Connection, Database
from hetuflow.storage.maintenance import read_clock

NOTIFY = query(f"SELECT pg_notify('{CHANNEL}', $payload)")


class Ear:
  """Remembers what was heard, and lets tests wait for it."""

  def __init__(self) -> None:
    self.heard: list[str | None] = []
    self._more = trio.Event()

  def __call__(self, payload: str | None) -> None:
    self.heard.append(payload)
    self._more.set()

  async def wait_for(self, heard: list[str | None]) -> None:
    """Wait until exactly this was heard."""
    while self.heard != heard:
      assert len(self.heard) <= len(heard), self.heard
      self._more = trio.Event()
      await self._more.wait()


async def test_notifications_are_heard_in_order(database: Database) -> None:
  ear = Ear()
  notifier = Notifier(database, ear)
  with trio.fail_after(20):
    async with trio.open_nursery() as nursery:
      await nursery.start(notifier.run)
      # At the beginning anything may have been missed.
      await ear.wait_for([None])
      for payload in ("tasks:default", "schedules"):
        await database.fetch(NOTIFY, payload=payload)
      await ear.wait_for([None, "tasks:default", "schedules"])
      nursery.cancel_scope.cancel()
  assert notifier.heard == 2


async def test_a_connection_that_dies_is_replaced_and_everything_hinted_again(
  database: Database, postgres: Postgres
) -> None:
  ear = Ear()
  with trio.fail_after(20):
    async with trio.open_nursery() as nursery:
      await nursery.start(Notifier(database, ear).run)
      await ear.wait_for([None])
      [pid] = listeners(postgres)
      postgres.sql(f"SELECT pg_terminate_backend({pid})")
      await ear.wait_for([None, None])
      await database.fetch(NOTIFY, payload="cancels")
      await ear.wait_for([None, None, "cancels"])
      nursery.cancel_scope.cancel()


async def test_a_connection_that_does_not_answer_is_replaced(
  database: Database, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(notifier_module, "KEEP_ALIVE_INTERVAL", 0.05)
  monkeypatch.setattr(notifier_module, "KEEP_ALIVE_TIMEOUT", 0.3)
  ear = Ear()
  with trio.fail_after(20):
    async with trio.open_nursery() as nursery:
      await nursery.start(Notifier(database, ear).run)
      await ear.wait_for([None])
      [pid] = listeners(postgres)
      os.kill(pid, signal.SIGSTOP)
      try:
        await ear.wait_for([None, None])
      finally:
        os.kill(pid, signal.SIGCONT)
      nursery.cancel_scope.cancel()


async def test_a_connection_that_had_lived_is_replaced_without_delay(
  database: Database, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(notifier_module, "KEEP_ALIVE_INTERVAL", 0.01)
  proofs = 0
  proved = trio.Event()

  async def read_and_count(connection: Connection) -> object:
    """Read the clock and tell that it came about; called again, that it was noted."""
    nonlocal proofs
    proofs += 1
    if proofs == 2:
      proved.set()
    return await read_clock(connection)

  monkeypatch.setattr(notifier_module, "read_clock", read_and_count)
  ear = Ear()
  notifier = Notifier(database, ear)
  delays = Backoff(initial=3_600.0, maximum=3_600.0, jitter=0.0)
  notifier._outage = Outage(Unavailable, event="waits", backoff=delays)
  with trio.fail_after(30):
    async with trio.open_nursery() as nursery:
      await nursery.start(notifier.run)
      for deaths in range(3):
        await ear.wait_for([None] * (deaths + 1))
        await proved.wait()
        proofs, proved = 0, trio.Event()
        [pid] = listeners(postgres)
        postgres.sql(f"SELECT pg_terminate_backend({pid})")
      await ear.wait_for([None] * 4)
      nursery.cancel_scope.cancel()


def listeners(postgres: Postgres) -> list[int]:
  """List the processes that listen."""
  return [
    int(row)
    for row in postgres.sql(
      "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
      " OR query LIKE '%keep_alive%' AND query NOT LIKE '%pg_stat%'"
    ).split()
  ]
