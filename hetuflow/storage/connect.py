"""The way to PostgreSQL: pool, codecs and errors, for Trio.

Run by: ``open_storage`` is entered outside every nursery that uses the database, since
it owns the asyncio loop (trio-asyncio) on which asyncpg lives; triopg carries calls
over. Everything is closed in reverse when the block is left.

When the database dies: a call raises ``Unavailable``; its connection is thrown away by
the pool, which makes new ones as they are asked for. Nothing here retries an outage: the
caller knows whether it may. A statement on its own that the database rolled back for the
sake of others (deadlock, serialisation) is repeated at once, and so is one that found no
partition for its week, once that is made.

Gaps of triopg that are closed here: ``acquire`` and the release have no time limit, the
state of a connection is reset by a query at each release (we change none), its ``listen``
drops NOTIFYs, does not tell when the connection dies and may wait for ever at its end,
driver errors have a dozen classes (``failures``).

A database that has frozen, or is behind a network that swallows everything, does not end
a statement by its ``statement_timeout``: every statement also has a limit on this side.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import attrs
import msgspec
import trio
import trio_asyncio
import triopg
from triopg._triopg import TrioPoolAcquireContextProxy

from hetuflow.errors import StorageError, Unavailable
from hetuflow.storage.failures import lacks_partition, repeatable, translated
from hetuflow.storage.sql import Query, load_queries
from hetuflow.storage.timers import forget_cancelled_timers

__all__ = [
  "TRIES",
  "WEEKS_AHEAD",
  "Connection",
  "Database",
  "Record",
  "StorageSettings",
  "open_storage",
]

Record = asyncpg.Record

_maintenance = load_queries("maintenance")

WEEKS_AHEAD = 8
"""Weeks for which partitions stand ready, so that a month without upkeep does no harm."""
ACQUIRE_TIMEOUT = 5.0
"""Seconds to wait for a connection before the database counts as unavailable, and for
it to be fit for use again when it is given back."""
CONNECT_TIMEOUT = 10.0
"""Seconds for one connection to be made."""
IDLE_LIFETIME = 300.0
"""Seconds after which an unused connection is closed."""
ANSWER_MARGIN = 3.0
"""Seconds beyond ``statement_timeout`` after which no answer is awaited any more."""
SCRIPT_TIMEOUT = 3_600.0
"""Seconds for a migration."""
TRIES = 3
"""How often a statement of its own is tried at once when it may be repeated."""


class Connection:
  """One connection; the same calls as ``Database``, in one session.

  Args:
    raw: triopg's connection.
    patience: seconds that a statement may take, as seen from here.
  """

  def __init__(self, raw: Any, patience: float) -> None:
    self._raw = raw
    self._patience = patience

  async def fetch(self, query: Query, /, **values: Any) -> list[Record]:
    """Run a query and return its rows."""
    rows: list[Record] = await self._run(self._raw.fetch, query, values)
    return rows

  async def fetchrow(self, query: Query, /, **values: Any) -> Record | None:
    """Run a query and return its first row, or None."""
    row: Record | None = await self._run(self._raw.fetchrow, query, values)
    return row

  async def fetchval(self, query: Query, /, **values: Any) -> Any:
    """Run a query and return the first column of its first row, or None."""
    return await self._run(self._raw.fetchval, query, values)

  async def execute_script(self, text: str) -> None:
    """Run the statements of a migration file."""
    with translated("script"):
      await self._raw.execute(text, timeout=SCRIPT_TIMEOUT)

  def lift_patience(self) -> None:
    """Let the statements to come take as long as a migration."""
    self._patience = SCRIPT_TIMEOUT

  async def _run(
    self, call: Callable[..., Awaitable[Any]], query: Query, values: dict[str, Any]
  ) -> Any:
    """Run a query; one that is a transaction of its own is repeated where it may be."""
    arguments = query.arrange(values)
    for _ in range(TRIES - 1):
      try:
        with translated(query.name):
          return await call(query.text, *arguments, timeout=self._patience)
      except Unavailable as error:
        if self._raw.is_in_transaction():
          raise
        if lacks_partition(error):
          await self._make_partitions()
        elif not repeatable(error):
          raise
    with translated(query.name):
      return await call(query.text, *arguments, timeout=self._patience)

  async def _make_partitions(self) -> None:
    """Make the weeks that a statement found missing, ahead of the next upkeep."""
    query = _maintenance.ensure_partitions
    with translated(query.name):
      await self._raw.fetchval(query.text, WEEKS_AHEAD, timeout=self._patience)

  @asynccontextmanager
  async def transaction(self) -> AsyncIterator["Connection"]:
    """Keep what happens in the block together; nothing but the database is awaited in it."""
    with translated("transaction"):
      async with self._raw.transaction():
        yield self

  @asynccontextmanager
  async def listen(self, channel: str) -> AsyncIterator[trio.MemoryReceiveChannel[str]]:
    """Receive the payloads of ``NOTIFY channel``, until the connection dies.

    The connection is of no further use after the block: ending it is the one way to stop
    listening that neither waits for the database nor leaves anything behind.
    """
    send, receive = trio.open_memory_channel[str](math.inf)

    def hear(_raw: object, _pid: int, _channel: str, payload: str) -> None:
      """Pass a payload on."""
      send.send_nowait(payload)

    def end(_raw: object) -> None:
      """Let the iteration end when the connection has."""
      send.close()

    self._raw.add_termination_listener(end)
    try:
      with translated("listen"):
        await self._raw.add_listener(channel, hear)
      yield receive
    finally:
      self._raw.terminate()


class Database:
  """The pool: every call takes a connection for as long as it lasts.

  Args:
    pool: triopg's pool.
    patience: seconds that a statement may take, as seen from here.
  """

  def __init__(self, pool: Any, patience: float) -> None:
    self._pool = pool
    self._patience = patience

  @asynccontextmanager
  async def connection(self) -> AsyncIterator[Connection]:
    """Hold one connection for the block.

    Raises:
      Unavailable: none was to be had within ``ACQUIRE_TIMEOUT``.
    """
    # triopg's own acquire() takes no limit, neither for now nor for the release.
    acquired = TrioPoolAcquireContextProxy(
      self._pool._asyncpg_pool.acquire(timeout=ACQUIRE_TIMEOUT)
    )
    with translated("no connection to the database", connecting=True):
      raw = await acquired.__aenter__()
    try:
      yield Connection(raw, self._patience)
    finally:
      # One that cannot be made fit for use again is thrown away; what was done with it
      # stands.
      with suppress(Unavailable), translated("release"):
        await acquired.__aexit__(None, None, None)

  @asynccontextmanager
  async def transaction(self) -> AsyncIterator[Connection]:
    """Hold one connection and one transaction for the block."""
    async with self.connection() as connection, connection.transaction():
      yield connection

  async def fetch(self, query: Query, /, **values: Any) -> list[Record]:
    """Run a query and return its rows."""
    async with self.connection() as connection:
      return await connection.fetch(query, **values)

  async def fetchrow(self, query: Query, /, **values: Any) -> Record | None:
    """Run a query and return its first row, or None."""
    async with self.connection() as connection:
      return await connection.fetchrow(query, **values)

  async def fetchval(self, query: Query, /, **values: Any) -> Any:
    """Run a query and return the first column of its first row, or None."""
    async with self.connection() as connection:
      return await connection.fetchval(query, **values)


@attrs.frozen(kw_only=True)
class StorageSettings:
  """How to reach the database; durations in seconds."""

  dsn: str = attrs.field(repr=False)
  pool_size: int = 10
  statement_timeout: float = 2.0
  application_name: str = "hetuflow"


async def _prepare_connection(raw: Any) -> None:
  """Teach a fresh connection how JSON is spelt here."""
  await raw.set_type_codec(
    "jsonb",
    schema="pg_catalog",
    encoder=lambda value: b"\x01" + msgspec.json.encode(value),
    decoder=lambda data: msgspec.json.decode(bytes(data)[1:]),
    format="binary",
  )


async def _keep_state(_: Any) -> None:
  """Leave a released connection as it is: nobody changes session state."""


@asynccontextmanager
async def open_storage(settings: StorageSettings) -> AsyncIterator[Database]:
  """Open the asyncio loop and the pool; the first connection proves the way.

  Raises:
    Unavailable: the database cannot be reached.
  """
  milliseconds = str(int(settings.statement_timeout * 1000))
  patience = settings.statement_timeout + ANSWER_MARGIN
  async with trio_asyncio.open_loop() as loop:
    forget_cancelled_timers(loop)
    pool = triopg.create_pool(
      settings.dsn,
      min_size=1,
      max_size=settings.pool_size,
      max_inactive_connection_lifetime=IDLE_LIFETIME,
      timeout=CONNECT_TIMEOUT,
      # For what carries no limit of its own: BEGIN, COMMIT and ROLLBACK.
      command_timeout=patience,
      init=_prepare_connection,
      reset=_keep_state,
      server_settings={
        "application_name": settings.application_name,
        "timezone": "UTC",
        "jit": "off",
        # Every statement has its index. With the statistics of a table that was empty a
        # moment ago the planner would read it whole, and once for each row of a batch.
        "enable_seqscan": "off",
        # The first of an order is the first of its index. Believing that there is only
        # one, the planner would as soon read all of them in any order and sort.
        "enable_bitmapscan": "off",
        "max_parallel_workers_per_gather": "0",
        "statement_timeout": milliseconds,
        "idle_in_transaction_session_timeout": milliseconds,
      },
    )
    unreachable = await _connect(pool)
    if unreachable is None:
      try:
        yield Database(pool, patience)
      finally:
        await _close(pool)
  if unreachable is not None:
    raise unreachable


async def _connect(pool: Any) -> StorageError | None:
  """Make the first connection; return what stands in the way.

  Raised inside the loop's block it would arrive in an exception group.
  """
  try:
    with translated("connect", connecting=True):
      await pool.__aenter__()
  except StorageError as error:
    return error
  return None


async def _close(pool: Any) -> None:
  """Close the pool, gracefully for a moment and then at once."""
  # Not triopg's close(): it is shielded from within, so that no limit would reach it.
  with trio.move_on_after(2, shield=True), suppress(Unavailable), translated("close"):
    await trio_asyncio.aio_as_trio(pool._asyncpg_pool.close)()
