"""Upkeep of the database: partitions ahead, and its clock."""

from datetime import datetime

from hetuflow.storage.connect import WEEKS_AHEAD, Connection, Database
from hetuflow.storage.sql import load_queries

__all__ = ["ensure_partitions", "read_clock"]

_sql = load_queries("maintenance")


async def ensure_partitions(executor: Database | Connection) -> int:
  """Make what is missing of the partitions of the coming weeks; return how many."""
  made: int = await executor.fetchval(_sql.ensure_partitions, weeks=WEEKS_AHEAD)
  return made


async def read_clock(executor: Database | Connection) -> datetime:
  """Read the database's clock; by the way this proves that the connection is alive."""
  clock: datetime = await executor.fetchval(_sql.keep_alive)
  return clock
