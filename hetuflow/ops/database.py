"""The database, found as a server finds it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hetuflow.errors import HetuflowError
from hetuflow.server.config import ServerConfig
from hetuflow.storage.connect import Database, StorageSettings, open_storage
from hetuflow.storage.embedded import has_cluster, open_embedded

__all__ = ["open_database"]

STATEMENT_TIMEOUT_S = 120.0
"""Seconds a look at a large database may take; nobody waits for a lock meanwhile."""
CONNECTIONS = 2


@asynccontextmanager
async def open_database(
  config: ServerConfig, *, make: bool = False
) -> AsyncIterator[Database]:
  """Have the database of a server, as it is: nothing is migrated.

  Args:
    config: the settings of the server.
    make: whether a private PostgreSQL is made where there is none yet.

  Raises:
    HetuflowError: there is no database, or it cannot be reached.
  """
  if config.database.url is not None:
    async with _open(config.database.url) as database:
      yield database
    return
  folder = config.server.data_dir
  if not make and not has_cluster(folder):
    raise HetuflowError(
      f"there is no database in {folder}; name the folder of a server with --data-dir,"
      " or its database with --database-url"
    )
  async with open_embedded(folder) as cluster, _open(cluster.dsn) as database:
    yield database


@asynccontextmanager
async def _open(dsn: str) -> AsyncIterator[Database]:
  """Connect with patience."""
  settings = StorageSettings(
    dsn=dsn,
    pool_size=CONNECTIONS,
    statement_timeout=STATEMENT_TIMEOUT_S,
    application_name="hetuflow ops",
  )
  async with open_storage(settings) as database:
    yield database
