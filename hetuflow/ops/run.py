"""Each command of operators, from its settings to its answer."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import trio

from hetuflow.logs import configure_logging
from hetuflow.ops import doctor, migrate
from hetuflow.ops.database import open_database
from hetuflow.server.config import ServerConfig, load_server_config

__all__ = ["check_schema", "diagnose", "mend", "upgrade"]

T = TypeVar("T")


def diagnose(flags: Mapping[str, object], *, days: int = doctor.DAYS) -> doctor.Report:
  """Look for what is wrong with a database.

  Args:
    flags: ``config``, ``data_dir`` and ``database_url`` as they were given, or None.
    days: how far back the planned times of schedules are accounted for.

  Raises:
    SettingsError: a setting is wrong.
    HetuflowError: there is no database, or it cannot be reached.
  """

  async def look(config: ServerConfig) -> doctor.Report:
    """Open the database and look."""
    async with open_database(config) as database:
      return await doctor.diagnose(database, days=days)

  return _run(look, flags)


def mend(flags: Mapping[str, object], *, dry_run: bool) -> list[doctor.Mended]:
  """Mend what is mechanical, or say what would be done.

  Args:
    flags: as ``diagnose`` takes them.
    dry_run: whether only to say it.

  Raises:
    SettingsError: a setting is wrong.
    HetuflowError: there is no database, it cannot be reached, or has another schema.
  """

  async def work(config: ServerConfig) -> list[doctor.Mended]:
    """Open the database and mend."""
    async with open_database(config) as database:
      return await doctor.mend(database, dry_run=dry_run)

  return _run(work, flags)


def upgrade(flags: Mapping[str, object]) -> list[str]:
  """Bring a database to the schema of this version; return what was applied.

  Args:
    flags: as ``diagnose`` takes them.

  Raises:
    SettingsError: a setting is wrong.
    HetuflowError: it cannot be reached, or is newer.
  """
  return _run(migrate.upgrade, flags)


def check_schema(flags: Mapping[str, object]) -> None:
  """See that a database has the schema of this version.

  Args:
    flags: as ``diagnose`` takes them.

  Raises:
    SettingsError: a setting is wrong.
    HetuflowError: it has not, there is none, or it cannot be reached.
  """
  _run(migrate.check, flags)


def _run(
  work: Callable[[ServerConfig], Awaitable[T]], flags: Mapping[str, object]
) -> T:
  """Read the settings as a server does, and do something with them."""
  config = load_server_config(flags)
  configure_logging("warning", config.log.format)
  return trio.run(work, config)
