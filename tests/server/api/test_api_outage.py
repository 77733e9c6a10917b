"""What callers hear while the database does not answer."""

from collections.abc import AsyncIterator
from functools import partial

import pytest
import trio
from structlog.testing import capture_logs
from support.api import Api
from support.postgres import Postgres
from support.world import query

from hetuflow.storage.connect import Database, StorageSettings, open_storage

LIMIT_SECONDS = 20
# Held for as long as its client lets it be.
HOLD = "BEGIN; LOCK TABLE sched_job; SELECT pg_sleep(60)"
HELD = query("""
  SELECT pid FROM pg_locks
  WHERE relation = 'sched_job'::regclass AND mode = 'AccessExclusiveLock' AND granted
""")
END = query("SELECT pg_terminate_backend($pid)")


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
  """A database that is given up on soon."""
  async with open_storage(StorageSettings(dsn=dsn, statement_timeout=0.5)) as opened:
    yield opened


async def hold(postgres: Postgres, name: str) -> None:
  """Keep everybody from the jobs until this session is ended."""
  with pytest.raises(AssertionError, match="terminating connection"):
    await trio.to_thread.run_sync(partial(postgres.sql, HOLD, database=name))


async def test_an_outage_is_told_as_one_and_ends(
  api: Api, database: Database, postgres: Postgres, dsn: str
) -> None:
  name = dsn.split("@/")[1].split("?")[0]
  with trio.fail_after(LIMIT_SECONDS), capture_logs() as lines:
    async with trio.open_nursery() as nursery:
      nursery.start_soon(hold, postgres, name)
      while (pid := await database.fetchval(HELD)) is None:
        pass
      reply = await api.get("jobs")
      health = await api.get("system/health")
      await database.fetch(END, pid=pid)
    after = await api.get("jobs")
  assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
  assert reply.headers["Content-Type"] == "application/problem+json"
  assert b"list_jobs" not in reply.raw
  assert [line for line in lines if line["event"] == "request_unavailable"]
  assert health.status == 200
  assert after.status == 200
