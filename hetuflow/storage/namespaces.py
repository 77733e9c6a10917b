"""Namespaces: create, get, query, update, delete."""

from hetuflow.errors import Conflict
from hetuflow.protocol.model import (
  Namespace,
  NamespaceFilter,
  NamespaceForCreate,
  NamespaceForUpdate,
)
from hetuflow.storage.connect import Connection
from hetuflow.storage.rows import Executor, changes, criteria, found, from_row
from hetuflow.storage.sql import load_queries

__all__ = [
  "create_namespace",
  "delete_namespace",
  "get_namespace",
  "query_namespaces",
  "share_namespace",
  "update_namespace",
]

_sql = load_queries("namespaces")


async def create_namespace(
  database: Executor, namespace: NamespaceForCreate
) -> Namespace:
  """Make a namespace.

  Raises:
    Conflict: its name is taken.
  """
  record = await database.fetchrow(_sql.insert_namespace, **criteria(namespace))
  if record is None:
    raise Conflict(f"a namespace {namespace.id!r} already exists")
  return from_row(Namespace, record)


async def get_namespace(database: Executor, id: str) -> Namespace:
  """Read one namespace.

  Raises:
    NotFound: there is none of that name.
  """
  record = await database.fetchrow(_sql.select_namespace, id=id)
  return from_row(Namespace, found(record, "namespace", id))


async def query_namespaces(
  database: Executor, filter: NamespaceFilter, *, limit: int, cursor: str | None = None
) -> list[Namespace]:
  """Read a page of namespaces, ordered by name.

  Args:
    database: where.
    filter: which.
    limit: how many at most.
    cursor: the name after which the page begins.
  """
  records = await database.fetch(
    _sql.list_namespaces, **criteria(filter), limit=limit, cursor=cursor
  )
  return [from_row(Namespace, record) for record in records]


async def update_namespace(
  database: Executor, id: str, update: NamespaceForUpdate
) -> Namespace:
  """Change what the update names.

  Raises:
    NotFound: there is no such namespace.
  """
  record = await database.fetchrow(_sql.update_namespace, id=id, **changes(update))
  return from_row(Namespace, found(record, "namespace", id))


async def delete_namespace(database: Executor, id: str) -> None:
  """Remove a namespace in which nothing lives any more.

  What ran in it stays readable until its retention ends.

  Raises:
    NotFound: there is no such namespace.
    Conflict: it has jobs, or tasks that have not ended.
  """
  async with database.transaction() as connection:
    found(await connection.fetchrow(_sql.lock_namespace, id=id), "namespace", id)
    uses = found(await connection.fetchrow(_sql.count_uses, id=id), "namespace", id)
    for noun in ("jobs", "tasks"):
      if uses[noun]:
        raise Conflict(f"namespace {id!r} still has {uses[noun]} {noun}")
    await connection.fetch(_sql.delete_namespace, id=id)


async def share_namespace(connection: Connection, id: str) -> None:
  """Make sure that a namespace is there until the end of the transaction.

  Raises:
    NotFound: it is not.
  """
  found(await connection.fetchrow(_sql.share_namespace, id=id), "namespace", id)
