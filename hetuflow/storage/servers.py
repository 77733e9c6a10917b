"""Servers: create, get, query, update, delete, and their signs of life."""

from datetime import datetime
from uuid import UUID

import attrs

from hetuflow.errors import Conflict
from hetuflow.protocol.model import (
  Instant,
  Server,
  ServerFilter,
  ServerForCreate,
  ServerForUpdate,
)
from hetuflow.storage.rows import Executor, changes, criteria, found, from_row
from hetuflow.storage.sql import load_queries

__all__ = [
  "DatabaseState",
  "create_server",
  "delete_server",
  "forget_servers",
  "get_server",
  "ping",
  "query_servers",
  "stop_server",
  "touch_server",
  "update_server",
]

_sql = load_queries("servers")


@attrs.frozen(kw_only=True)
class DatabaseState:
  """What the database says of itself."""

  now: Instant
  version: str


async def create_server(
  database: Executor, server: ServerForCreate, *, ttl: float
) -> Server:
  """Enter a server that has just started.

  Args:
    database: where.
    server: what it says of itself.
    ttl: seconds for which it counts as alive.

  Raises:
    Conflict: a server with this id is known already.
  """
  record = await database.fetchrow(_sql.insert_server, **criteria(server), ttl=ttl)
  if record is None:
    raise Conflict(f"a server {str(server.id)!r} already exists")
  return await get_server(database, server.id)


async def get_server(database: Executor, id: UUID) -> Server:
  """Read one server.

  Raises:
    NotFound: there is no such server.
  """
  record = await database.fetchrow(_sql.select_server, id=id)
  return from_row(Server, found(record, "server", id))


async def query_servers(
  database: Executor, filter: ServerFilter, *, limit: int, cursor: UUID | None = None
) -> list[Server]:
  """Read a page of servers, the last started first.

  Args:
    database: where.
    filter: which.
    limit: how many at most.
    cursor: the id after which the page begins.
  """
  records = await database.fetch(
    _sql.list_servers, **criteria(filter), limit=limit, cursor=cursor
  )
  return [from_row(Server, record) for record in records]


async def update_server(
  database: Executor, id: UUID, update: ServerForUpdate
) -> Server:
  """Change what the update names.

  Raises:
    NotFound: there is no such server.
  """
  await database.fetch(_sql.update_server, id=id, **changes(update))
  return await get_server(database, id)


async def delete_server(database: Executor, id: UUID) -> None:
  """Forget a server that is gone.

  Raises:
    NotFound: there is no such server.
    Conflict: it is alive.
  """
  if await database.fetchval(_sql.delete_server, id=id) is None:
    server = await get_server(database, id)
    raise Conflict(f"the server {server.name!r} is alive; stop it first")


async def forget_servers(database: Executor, *, days: int) -> int:
  """Remove servers that have been gone for so many days; return how many were."""
  count: int = await database.fetchval(_sql.delete_gone, days=days)
  return count


async def touch_server(database: Executor, id: UUID, *, ttl: float) -> datetime | None:
  """Give a sign of life.

  Args:
    database: where.
    id: of the server.
    ttl: seconds for which it counts as alive from now.

  Returns:
    The database's time of it, or None when the server's row is gone.
  """
  at: datetime | None = await database.fetchval(_sql.touch_server, id=id, ttl=ttl)
  return at


async def stop_server(database: Executor, id: UUID) -> None:
  """Say that a server stops and must not be waited for."""
  await database.fetch(_sql.stop_server, id=id)


async def ping(database: Executor) -> DatabaseState:
  """Ask the database for its time and version.

  Raises:
    Unavailable: it does not answer.
  """
  record = await database.fetchrow(_sql.ping)
  return from_row(DatabaseState, found(record, "answer", "ping"))
