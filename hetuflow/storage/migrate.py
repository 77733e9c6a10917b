"""Versioned migrations: applied in order, once, under an advisory lock.

Each file ``migrations/NNNN_name.sql`` is one transaction. Its SHA-256 is kept, so that a
file that was changed after it had been applied is noticed instead of believed.
"""

import hashlib
from importlib import resources

import attrs

from hetuflow.errors import SchemaMismatch
from hetuflow.storage.connect import Connection, Database
from hetuflow.storage.sql import load_queries

__all__ = ["Migration", "check_schema", "load_migrations", "migrate"]

_sql = load_queries("migrate")


@attrs.frozen(kw_only=True)
class Migration:
  """One step from a schema to the next."""

  version: int
  name: str
  text: str

  @property
  def checksum(self) -> str:
    """The SHA-256 of the text, in hexadecimal."""
    return hashlib.sha256(self.text.encode()).hexdigest()


def load_migrations() -> list[Migration]:
  """Load every migration of the package, in order."""
  folder = resources.files("hetuflow.storage").joinpath("migrations")
  files = sorted(
    (entry for entry in folder.iterdir() if entry.name.endswith(".sql")),
    key=lambda entry: entry.name,
  )
  return [
    Migration(
      version=int(entry.name[:4]),
      name=entry.name[5:-4],
      text=entry.read_text(encoding="utf-8"),
    )
    for entry in files
  ]


async def migrate(database: Database) -> list[Migration]:
  """Apply what is missing and return it.

  Raises:
    SchemaMismatch: the database is newer than this program, or a file was changed.
  """
  applied = []
  async with database.connection() as connection:
    connection.lift_patience()
    for migration in load_migrations():
      async with connection.transaction():
        await connection.fetch(_sql.lift_timeouts)
        await connection.fetch(_sql.lock_migrations)
        await connection.execute_script(_sql.create_migrations.text)
        known = await _known(connection)
        _compare(known)
        if migration.version in known:
          continue
        await connection.execute_script(migration.text)
        await connection.fetch(
          _sql.insert_migration,
          version=migration.version,
          name=migration.name,
          checksum=migration.checksum,
        )
        applied.append(migration)
  return applied


async def check_schema(database: Database) -> None:
  """Refuse to go on unless the database has exactly the schema of this program.

  Raises:
    SchemaMismatch: naming what is missing or too new.
  """
  async with database.connection() as connection:
    if not await connection.fetchval(_sql.has_migrations):
      raise SchemaMismatch("the database has no hetuflow schema; run: hetuflow migrate")
    known = await _known(connection)
  _compare(known)
  missing = [m.name for m in load_migrations() if m.version not in known]
  if missing:
    raise SchemaMismatch(
      f"the database lacks {', '.join(missing)}; run: hetuflow migrate"
    )


async def _known(connection: Connection) -> dict[int, str]:
  """Read which versions are applied, with their checksums."""
  rows = await connection.fetch(_sql.list_migrations)
  return {row["version"]: row["checksum"] for row in rows}


def _compare(known: dict[int, str]) -> None:
  """Refuse a database that is newer, or that was migrated by other files."""
  ours = {migration.version: migration for migration in load_migrations()}
  for version, checksum in known.items():
    if version not in ours:
      raise SchemaMismatch(
        f"the database has migration {version}, which this version of hetuflow does"
        " not know; upgrade hetuflow"
      )
    if ours[version].checksum != checksum:
      raise SchemaMismatch(
        f"migration {version} ({ours[version].name}) was changed after it was applied"
      )
