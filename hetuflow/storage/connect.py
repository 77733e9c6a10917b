"""The way to PostgreSQL: pool, codecs and errors, for Trio.

Run by: ``open_storage`` is entered outside every nursery that uses the database, since
it owns the asyncio loop (trio-asyncio) on which asyncpg lives; triopg carries calls
over. Everything is closed in reverse when the block is left.

When the database dies: a call raises ``Unavailable``; its connection is thrown away by
the pool, which makes new ones as they are asked for. Nothing here retries: the caller
knows whether it may.

Gaps of triopg that are closed here: ``acquire`` has no time limit, the state of a
connection is reset by a query at each release (we change none), a NOTIFY may be dropped
without a word (``listen`` hands out only "something happened"), driver errors have a
dozen classes (``_translate``).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import attrs
import msgspec
import trio
import trio_asyncio
import triopg

from hetuflow.errors import Conflict, StorageError, Unavailable
from hetuflow.storage.sql import Query

__all__ = ["Connection", "Database", "Record", "StorageSettings", "open_storage"]

Record = asyncpg.Record

ACQUIRE_TIMEOUT = 5.0
"""Seconds to wait for a connection before the database counts as unavailable."""
CONNECT_TIMEOUT = 10.0
"""Seconds for one connection to be made."""
IDLE_LIFETIME = 300.0
"""Seconds after which an unused connection is closed."""
RETRYABLE = ("40001", "40P01")
"""SQLSTATEs of a serialisation failure and a deadlock: the statement may be repeated."""

_GONE = (
  OSError,
  asyncpg.InterfaceError,
  asyncpg.InternalClientError,
  asyncpg.PostgresConnectionError,
  asyncpg.CannotConnectNowError,
  asyncpg.AdminShutdownError,
  asyncpg.CrashShutdownError,
  asyncpg.TooManyConnectionsError,
  asyncpg.ReadOnlySQLTransactionError,
  asyncpg.QueryCanceledError,
  asyncpg.IdleInTransactionSessionTimeoutError,
  asyncpg.OutOfMemoryError,
  asyncpg.DiskFullError,
  ConnectionError,
  TimeoutError,
)


class Connection:
  """One connection; the same calls as ``Database``, in one session."""

  def __init__(self, raw: Any) -> None:
    self._raw = raw

  async def fetch(self, query: Query, /, **values: Any) -> list[Record]:
    """Run a query and return its rows."""
    with _translated(query.name):
      rows: list[Record] = await self._raw.fetch(query.text, *query.arrange(values))
    return rows

  async def fetchrow(self, query: Query, /, **values: Any) -> Record | None:
    """Run a query and return its first row, or None."""
    with _translated(query.name):
      row: Record | None = await self._raw.fetchrow(query.text, *query.arrange(values))
    return row

  async def fetchval(self, query: Query, /, **values: Any) -> Any:
    """Run a query and return the first column of its first row, or None."""
    with _translated(query.name):
      return await self._raw.fetchval(query.text, *query.arrange(values))

  async def execute_script(self, text: str) -> None:
    """Run the statements of a migration file."""
    with _translated("script"):
      await self._raw.execute(text, timeout=None)

  @asynccontextmanager
  async def transaction(self) -> AsyncIterator["Connection"]:
    """Keep what happens in the block together; nothing but the database is awaited in it."""
    with _translated("transaction"):
      async with self._raw.transaction():
        yield self

  @asynccontextmanager
  async def listen(self, channel: str) -> AsyncIterator[Any]:
    """Receive the payloads of ``NOTIFY channel`` as an asynchronous iterator.

    A payload that overflows the buffer arrives as something that is not a string: the
    receiver then treats everything as notified.
    """
    with _translated("listen"):
      async with self._raw.listen(channel, max_buffer_size=1_000) as notifications:
        yield notifications


class Database:
  """The pool: every call takes a connection for as long as it lasts."""

  def __init__(self, pool: Any) -> None:
    self._pool = pool

  @asynccontextmanager
  async def connection(self) -> AsyncIterator[Connection]:
    """Hold one connection for the block.

    Raises:
      Unavailable: none was to be had within ``ACQUIRE_TIMEOUT``.
    """
    with _translated("acquire"):
      acquired = self._pool.acquire()
      try:
        with trio.fail_after(ACQUIRE_TIMEOUT):
          raw = await acquired.__aenter__()
      except trio.TooSlowError:
        raise Unavailable("no connection to the database was free in time") from None
      try:
        yield Connection(raw)
      finally:
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


class _translated:
  """Turn driver errors that leave the block into this project's own."""

  def __init__(self, what: str) -> None:
    self._what = what

  def __enter__(self) -> None:
    """Enter."""

  def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
    """Raise the project's error in place of the driver's."""
    if error is None or isinstance(error, StorageError):
      return
    translated = _translate(self._what, error)
    if translated is not None:
      raise translated from error


def _translate(what: str, error: BaseException) -> StorageError | None:
  """Find the project's error for a driver's, or None where it is not one."""
  if isinstance(error, asyncpg.IntegrityConstraintViolationError):
    return Conflict(f"{what}: {error.args[0]}")
  if isinstance(error, _GONE):
    return Unavailable(f"{what}: {type(error).__name__}: {error}")
  if isinstance(error, asyncpg.PostgresError):
    if error.sqlstate in RETRYABLE:
      return Unavailable(f"{what}: {error}")
    return StorageError(f"{what}: {error}")
  return None


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
  async with trio_asyncio.open_loop():
    pool = triopg.create_pool(
      settings.dsn,
      min_size=1,
      max_size=settings.pool_size,
      max_inactive_connection_lifetime=IDLE_LIFETIME,
      timeout=CONNECT_TIMEOUT,
      init=_prepare_connection,
      reset=_keep_state,
      server_settings={
        "application_name": settings.application_name,
        "timezone": "UTC",
        "jit": "off",
        # Every statement has its index. With the statistics of a table that was empty a
        # moment ago the planner would read it whole, and once for each row of a batch.
        "enable_seqscan": "off",
        "statement_timeout": milliseconds,
        "idle_in_transaction_session_timeout": milliseconds,
      },
    )
    with _translated("connect"):
      await pool.__aenter__()
    try:
      yield Database(pool)
    finally:
      await _close(pool)


async def _close(pool: Any) -> None:
  """Close the pool, gracefully for a moment and then at once."""
  with trio.move_on_after(2, shield=True) as scope:
    await pool.close()
  if scope.cancelled_caught:
    pool.terminate()
