"""One real PostgreSQL per test session, and one database per test.

The programs are the embedded PostgreSQL 18, or those of the folder that the environment
variable HETUFLOW_TEST_POSTGRES_BIN names. Nothing in it need survive a power cut.
"""

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio
from attrs import field, frozen

from hetuflow.storage.connect import StorageSettings, open_storage
from hetuflow.storage.embedded.account import Account, find_account
from hetuflow.storage.embedded.binaries import find_binaries
from hetuflow.storage.migrate import migrate

BIN_VARIABLE = "HETUFLOW_TEST_POSTGRES_BIN"
COPIES = Path(tempfile.gettempdir(), "hetuflow-test-postgres")
SETTINGS = {
  "listen_addresses": "",
  "fsync": "off",
  "synchronous_commit": "off",
  "full_page_writes": "off",
  "max_connections": "200",
  "shared_buffers": "64MB",
  "autovacuum": "off",
}


@frozen(kw_only=True)
class Postgres:
  """A running PostgreSQL."""

  binaries: Path
  folder: Path
  account: Account
  _numbers: Iterator[int] = field(factory=itertools.count)

  def run(self, program: str, *arguments: str) -> str:
    """Run a program of PostgreSQL and return what it printed."""
    identity: dict[str, Any] = {}
    if self.account.switched:
      identity = {"user": self.account.uid, "group": self.account.gid}
      identity["extra_groups"] = []
    result = subprocess.run(
      [self.binaries / program, *arguments],
      cwd="/",
      env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "PGTZ": "UTC"},
      stdin=subprocess.DEVNULL,
      capture_output=True,
      text=True,
      check=False,
      **identity,
    )
    assert result.returncode == 0, f"{program}: {result.stdout}{result.stderr}"
    return result.stdout

  def sql(self, text: str, *, database: str = "postgres") -> str:
    """Run SQL in a session of its own and return the rows, fields parted by `|`."""
    return self.run(
      "psql",
      *("-h", str(self.folder), "-U", "postgres", "-d", database, "-qXAt"),
      *("-v", "ON_ERROR_STOP=1", "-c", text),
    )

  def run_file(self, path: Path, *, database: str) -> None:
    """Run the statements of a file."""
    self.sql(path.read_text(encoding="utf-8"), database=database)

  def dsn(self, database: str) -> str:
    """Say how to reach a database."""
    return f"postgresql://postgres@/{database}?host={self.folder}"

  @contextmanager
  def database(self, template: str = "template1") -> Iterator[str]:
    """Lend a new database; yields its name."""
    name = f"test_{next(self._numbers)}"
    self.sql(f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
      yield name
    finally:
      self.sql(f"DROP DATABASE {name} WITH (FORCE)")

  def make_template(self) -> str:
    """Make a database with the schema, to copy from."""
    self.sql("CREATE DATABASE migrated")
    trio.run(partial(migrate_database, self.dsn("migrated")))
    return "migrated"


async def migrate_database(dsn: str) -> None:
  """Bring a database to the schema of now, with the partitions of these weeks."""
  async with open_storage(StorageSettings(dsn=dsn, pool_size=1)) as database:
    await migrate(database)
    async with database.connection() as connection:
      await connection.execute_script("SELECT hetuflow_ensure_partitions(8)")


@contextmanager
def run_postgres() -> Iterator[Postgres]:
  """Make a cluster in a short private folder, run it, and remove it."""
  account = find_account()
  folder = Path(tempfile.mkdtemp(prefix="hfpg-", dir="/tmp"))
  account.own(folder)
  postgres = Postgres(binaries=_binaries(account), folder=folder, account=account)
  data = folder / "data"
  try:
    postgres.run(
      "initdb",
      *("-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8"),
      *("--locale=C", "--no-sync", "--no-instructions"),
    )
    options = " ".join(
      f"-c {name}='{value}'"
      for name, value in {**SETTINGS, "unix_socket_directories": folder}.items()
    )
    log = str(folder / "log")
    postgres.run("pg_ctl", "-D", str(data), "-l", log, "-w", "-o", options, "start")
    try:
      yield postgres
    finally:
      postgres.run("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
  finally:
    shutil.rmtree(folder, ignore_errors=True)


def _binaries(account: Account) -> Path:
  """Choose the programs."""
  if named := os.environ.get(BIN_VARIABLE):
    return Path(named)
  return trio.run(find_binaries, account, COPIES)
