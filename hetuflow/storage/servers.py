"""Servers: create, get, query, update, delete, and their signs of life."""

from datetime import datetime
from uuid import UUID

import attrs

from hetuflow.errors import Conflict
from hetuflow.protocol.model import (
  Instant,
  NamespaceId,
  Server,
  ServerFilter,
  ServerForCreate,
  ServerForUpdate,
  ServerId,
)
from hetuflow.storage.leader import Term
from hetuflow.storage.rows import Executor, changes, criteria, found, from_row
from hetuflow.storage.sql import load_queries

__all__ = [
  "Beat",
  "DatabaseState",
  "beat_server",
  "create_server",
  "delete_server",
  "forget_servers",
  "get_server",
  "ping",
  "query_servers",
  "stop_server",
  "update_server",
]

_sql = load_queries("servers")


@attrs.frozen(kw_only=True)
class DatabaseState:
  """What the database says of itself."""

  now: Instant
  version: str


@attrs.frozen(kw_only=True)
class Beat:
  """What a server hears with its sign of life.

  Args:
    now: the database's time.
    renewed: whether the term lasts anew that was to be renewed.
    leads_for: seconds that the leader's term lasted unless this beat renewed it, negative
      if it was over; None where there has never been a leader.
    print: stands for all bindings of this server.
    bound: the epoch of each binding; None where they are those that were known.
    blocked: whether any task waits for a limit.
  """

  now: datetime
  renewed: bool
  leads_for: float | None
  print: int
  bound: dict[NamespaceId, int] | None
  blocked: bool


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


async def beat_server(
  database: Executor,
  id: ServerId,
  *,
  ttl: float,
  load: float = 0.0,
  stopping: bool = False,
  term: Term | None = None,
  known: int | None = None,
) -> Beat | None:
  """Give a sign of life, and hear what has changed.

  Args:
    database: where.
    id: of the server.
    ttl: seconds for which it counts as alive from now, and the term lasts.
    load: how busy it is, from 0 to 1.
    stopping: whether it has said that it stops.
    term: the term to renew, of this server.
    known: the print of the bindings that it knows, from the beat before.

  Returns:
    What is heard, or None when the server's row is gone.
  """
  row = await database.fetchrow(
    _sql.beat_server,
    id=id,
    ttl=ttl,
    load=load,
    stopping=stopping,
    term=None if term is None else term.term,
    known=known,
  )
  if row is None:
    return None
  return Beat(
    now=row["now"],
    renewed=row["renewed"],
    leads_for=row["leads_for"],
    print=row["print"],
    bound=None
    if row["namespaces"] is None
    else dict(zip(row["namespaces"], row["epochs"], strict=True)),
    blocked=row["blocked"],
  )


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
