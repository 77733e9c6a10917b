"""Make a new database cluster: all of it, or nothing that a later start would see."""

import os
import re
import secrets
import shutil
from pathlib import Path

import structlog
import trio

from hetuflow.errors import StorageError
from hetuflow.storage.embedded.account import Account
from hetuflow.storage.embedded.layout import DATABASE, Home, Layout, write_private
from hetuflow.storage.embedded.postmaster import kill_orphans

__all__ = ["initialise"]

_log = structlog.get_logger()

# What suits a scheduler, written into postgresql.conf where its owner may change it.
# Durability (fsync, synchronous_commit, checksums) stays at PostgreSQL's defaults: on.
_TUNING = {
  "max_connections": "100",
  "shared_buffers": "256MB",
  "huge_pages": "try",
  "max_wal_size": "2GB",
  "wal_compression": "on",
  # Every query is short; compiling one takes longer than running it.
  "jit": "off",
  # A task lives for seconds in the live partition. A minute between vacuums leaves the
  # claim index full of dead rows; one database makes a look every 5 s cheap.
  "autovacuum_naptime": "5s",
  # A database on the disk of a laptop or a server of today, not on a spindle.
  "random_page_cost": "1.1",
  "timezone": "UTC",
  "log_timezone": "UTC",
  "log_destination": "stderr",
  "lc_messages": "C",
}
_COMPLAINT = re.compile(r"\b(ERROR|FATAL|PANIC|error):")


async def initialise(layout: Layout, account: Account, binaries: Path) -> Home:
  """Make the cluster, its role and its database, and link it into DATA_DIR.

  The caller holds the change lock.

  Args:
    layout: where everything lies.
    account: who owns the cluster.
    binaries: the folder of `initdb` and `postgres`.

  Returns:
    The home of the new cluster; its appearance is one rename.

  Raises:
    StorageError: a program of PostgreSQL failed; its words are in the message.
  """
  place = await layout.choose_place(account)
  # Another name each time: a killed initialisation may still be at work in the last.
  stem = place.name.split("-")[0]
  staging = place.with_name(f"{stem}.{secrets.token_hex(4)}.new")
  await trio.to_thread.run_sync(_remove_unfinished, place.parent, stem)
  password = secrets.token_hex(32)
  password_copy = staging / "password"
  await trio.to_thread.run_sync(_prepare, staging, password_copy, password, account)
  await _initdb(staging / "data", password_copy, account, binaries)
  await _create_database(staging / "data", account, binaries)
  await trio.to_thread.run_sync(password_copy.unlink)
  layout.write_password(password)
  if place != layout.entry:
    # Before there is anything: nobody would find a home without a link to it.
    _link(layout.entry, place)
  staging.rename(place)
  _log.info("postgres_initialised", folder=str(place), user=account.name)
  return Home(folder=place)


def _prepare(
  staging: Path, password_copy: Path, password: str, account: Account
) -> None:
  """Make the folder the account builds in, with the password where it can read it."""
  staging.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
  staging.mkdir(mode=0o700)
  write_private(password_copy, password)
  # The folder last: while it is ours nobody can put a link in our way.
  account.own(password_copy)
  account.own(staging)


def _remove_unfinished(parent: Path, stem: str) -> None:
  """Remove what killed initialisations left; it is of no use to anybody."""
  for folder in parent.glob(f"{stem}.*.new"):
    kill_orphans(folder / "data")
    shutil.rmtree(folder, ignore_errors=True)


async def _initdb(
  pgdata: Path, password_copy: Path, account: Account, binaries: Path
) -> None:
  """Run initdb; the builtin C.UTF-8 sorts alike on every machine and every libc."""
  tuning = [f"--set={name}={value}" for name, value in _TUNING.items()]
  await _run_or_fail(
    account,
    [
      binaries / "initdb",
      f"--pgdata={pgdata}",
      f"--username={DATABASE}",
      f"--pwfile={password_copy}",
      "--auth=scram-sha-256",
      "--encoding=UTF8",
      "--locale=C",
      "--locale-provider=builtin",
      "--builtin-locale=C.UTF-8",
      "--no-instructions",
      *tuning,
    ],
  )


async def _create_database(pgdata: Path, account: Account, binaries: Path) -> None:
  """Create the database in single-user mode: no server yet, so no password needed."""
  await _run_or_fail(
    account,
    [binaries / "postgres", "--single", "-D", pgdata, "postgres"],
    stdin=f"CREATE DATABASE {DATABASE};\n".encode(),
  )


async def _run_or_fail(
  account: Account, command: list[str | Path], *, stdin: bytes = b""
) -> None:
  """Run a program of PostgreSQL and turn its failure into words."""
  result = await account.run(command, stdin=stdin)
  output = result.stdout.decode(errors="replace")
  # Single-user mode exits 0 after a statement that failed.
  if result.returncode != 0 or "ERROR:" in output:
    lines = output.strip().splitlines() or [f"exit code {result.returncode}"]
    # What is said last may be how it tidied up.
    reasons = [line for line in lines if _COMPLAINT.search(line)] or lines[-1:]
    raise StorageError(f"{Path(command[0]).name} failed: {reasons[-1].strip()}")


def _link(entry: Path, place: Path) -> None:
  """Let DATA_DIR point at the place, replacing a link whose target is gone."""
  staging = entry.with_suffix(".link")
  staging.unlink(missing_ok=True)
  staging.symlink_to(place)
  os.replace(staging, entry)
