"""``python -m hetuflow.server``: settings, database, tree, signals."""

import gc
import resource
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import click
import structlog

from hetuflow import __version__
from hetuflow.errors import HetuflowError, SettingsError
from hetuflow.logs import configure_logging
from hetuflow.nursery import Supervisor, main, run_until_signal
from hetuflow.protocol.model import ServerForCreate, ServerId, new_id
from hetuflow.server.config import ServerConfig, load_server_config, server_options
from hetuflow.server.gateway.gateway import open_listener
from hetuflow.server.parts import wire_parts
from hetuflow.server.tree import build_leader, build_tree
from hetuflow.storage.connect import Database, StorageSettings, open_storage
from hetuflow.storage.embedded import Cluster, open_embedded
from hetuflow.storage.first_access import ensure_first_access
from hetuflow.storage.maintenance import ensure_partitions
from hetuflow.storage.migrate import migrate

__all__ = ["command", "serve"]

MAX_FILES = 65_536
"""Open files that are asked for: each connection, of an agent or a stranger, is one."""

_log = structlog.get_logger()


@click.command(name="server")
@server_options
def command(**flags: Any) -> None:
  """Run a server until it is told to stop."""
  try:
    config = load_server_config(flags)
  except SettingsError as error:
    print(f"hetuflow: {error}", file=sys.stderr)
    sys.exit(2)
  configure_logging(config.log.level, config.log.format)
  _raise_file_limit()
  sys.exit(main(serve, config))


async def serve(config: ServerConfig) -> int:
  """Run a server; return its exit code.

  Raises:
    HetuflowError: it could not start.
  """
  listener = _listen(config)
  host, port = listener.getsockname()[:2]
  server = ServerForCreate(
    id=ServerId(new_id()),
    name=config.server.name,
    url=f"http://{f'[{host}]' if ':' in host else host}:{port}",
    version=__version__,
    weight=config.server.weight,
  )
  with listener:
    async with _open_database(config) as (database, cluster):
      supervisor: Supervisor
      parts = wire_parts(
        config,
        database=database,
        cluster=cluster,
        listener=listener,
        server=server,
        build_leader=build_leader,
        show_tree=lambda: supervisor.state().to_dict(),
      )
      supervisor = Supervisor(build_tree(parts))
      # What lives from here on is made under load; what was made before stays.
      gc.freeze()
      return await run_until_signal(
        supervisor, drain_timeout=config.server.drain_timeout
      )


def _raise_file_limit() -> None:
  """Ask for more open files where the usual limit, often 1,024, is lower than allowed."""
  usual, most = resource.getrlimit(resource.RLIMIT_NOFILE)
  wanted = MAX_FILES if most == resource.RLIM_INFINITY else min(MAX_FILES, most)
  if usual != resource.RLIM_INFINITY and usual < wanted:
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _listen(config: ServerConfig) -> Any:
  """Bind the port, or say in words why not."""
  host, port = config.server.host, config.server.port
  try:
    return open_listener(host, port)
  except OSError as error:
    raise HetuflowError(f"cannot listen on {host}:{port}: {error.strerror}") from error


@asynccontextmanager
async def _open_database(
  config: ServerConfig,
) -> AsyncIterator[tuple[Database, Cluster | None]]:
  """Have the database with the current schema and a first way in."""
  if config.database.url is not None:
    async with _open(config, config.database.url) as database:
      yield database, None
    return
  async with (
    open_embedded(config.server.data_dir) as cluster,
    _open(config, cluster.dsn) as database,
  ):
    yield database, cluster


@asynccontextmanager
async def _open(config: ServerConfig, dsn: str) -> AsyncIterator[Database]:
  """Connect, migrate, and see that there is a first key and token."""
  settings = StorageSettings(
    dsn=dsn,
    pool_size=config.database.pool_size,
    statement_timeout=config.database.statement_timeout,
    application_name=f"hetuflow server {config.server.name}",
  )
  async with open_storage(settings) as database:
    for migration in await migrate(database):
      _log.info("migration_applied", version=migration.version, name=migration.name)
    await ensure_partitions(database)
    await ensure_first_access(database, config.server.data_dir)
    yield database


if __name__ == "__main__":
  command()
