"""``migrate``: the schema of this version, made or asked after."""

from hetuflow.ops.database import open_database
from hetuflow.server.config import ServerConfig
from hetuflow.storage.maintenance import ensure_partitions
from hetuflow.storage.migrate import check_schema, migrate

__all__ = ["check", "upgrade"]


async def upgrade(config: ServerConfig) -> list[str]:
  """Bring the database to the schema of this version, and make the coming weeks.

  Args:
    config: where the database is.

  Returns:
    What was applied, as number and name.

  Raises:
    SchemaMismatch: the database is newer than this version.
    HetuflowError: it cannot be reached.
  """
  async with open_database(config, make=True) as database:
    applied = await migrate(database)
    await ensure_partitions(database)
  return [f"{each.version:04} {each.name.replace('_', ' ')}" for each in applied]


async def check(config: ServerConfig) -> None:
  """See that the database has exactly the schema of this version.

  Raises:
    SchemaMismatch: naming what is missing or too new.
    HetuflowError: there is no database, or it cannot be reached.
  """
  async with open_database(config) as database:
    await check_schema(database)
