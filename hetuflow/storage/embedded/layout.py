"""The files and folders of the embedded PostgreSQL.

::

  DATA_DIR/postgres           the home; as root often a link into /var/lib/hetuflow
  DATA_DIR/postgres.password  what the servers log in with, mode 0600
  DATA_DIR/postgres.lock      shared by every server that uses the database
  DATA_DIR/postgres.change    held alone by the one that starts or stops it
  home/data                   PGDATA
  home/sockets                the socket folder, or a link to a shorter one
  home/postgres.log           of this start; .1 is the one before

The home has mode 0700 and belongs to the account PostgreSQL runs under.
"""

import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from attrs import frozen

from hetuflow.errors import StorageError
from hetuflow.settings import default_data_dir
from hetuflow.storage.embedded.account import Account

__all__ = ["DATABASE", "PORT", "Home", "Layout"]

DATABASE = "hetuflow"
"""The name of the database and of the role that owns it."""
PORT = 5432
"""Names the socket; nothing listens on a network port."""

# sockaddr_un holds 108 bytes on Linux and 104 elsewhere, the closing zero included;
# clients split a host at a comma, and some at a colon.
_SOCKET_PATH = re.compile(r"[A-Za-z0-9/._+ -]{1,103}")
_SHORT_PARENT = Path("/tmp")  # noqa: S108 - only the path is short; the folder is 0700
_SHORT_PREFIX = "hetuflow-"


@frozen(kw_only=True)
class Home:
  """What belongs to PostgreSQL itself."""

  folder: Path

  @property
  def pgdata(self) -> Path:
    """The data directory."""
    return self.folder / "data"

  @property
  def pid_file(self) -> Path:
    """Written by the postmaster while it runs; a clean stop removes it."""
    return self.pgdata / "postmaster.pid"

  @property
  def log(self) -> Path:
    """What the postmaster says."""
    return self.folder / "postgres.log"

  @property
  def sockets(self) -> Path:
    """The folder of the socket, links followed."""
    return (self.folder / "sockets").resolve()

  def prepare_sockets(self, account: Account) -> None:
    """Make sure of a private socket folder whose path clients can use."""
    entry = self.folder / "sockets"
    if _SOCKET_PATH.fullmatch(str(entry / f".s.PGSQL.{PORT}")):
      _make_private(entry, account)
      return
    short = self._short_sockets()
    if short is not None:
      # The same folder again after a clean-up of /tmp, so that known addresses hold.
      _make_private(short, account)
    if short is None or not _is_private(short, account):
      short = Path(tempfile.mkdtemp(prefix=_SHORT_PREFIX, dir=_SHORT_PARENT))
      account.own(short)
      if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
      entry.unlink(missing_ok=True)
      entry.symlink_to(short)

  def remove_short_sockets(self) -> None:
    """Take away a socket folder outside the home, once PostgreSQL has stopped."""
    short = self._short_sockets()
    if short is not None:
      shutil.rmtree(short, ignore_errors=True)
      (self.folder / "sockets").unlink()

  def _short_sockets(self) -> Path | None:
    """Find the socket folder outside the home, if there is one."""
    entry = self.folder / "sockets"
    if not entry.is_symlink():
      return None
    # The account can write this link and we may be root: believe it only as far as
    # it names a folder of the kind we make.
    target = entry.readlink()
    ours = target.parent == _SHORT_PARENT and target.name.startswith(_SHORT_PREFIX)
    return target if ours else None

  def rotate_log(self) -> None:
    """Begin a new log and keep the one before."""
    with suppress(FileNotFoundError):
      self.log.replace(self.log.with_suffix(".log.1"))

  def last_words(self) -> str:
    """Tell the reason PostgreSQL gave last, for an error message."""
    try:
      log = os.open(self.log, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
      return "it wrote no log"
    with os.fdopen(log, errors="replace") as file:
      lines = file.read().splitlines()
    fatal = [line for line in lines if "FATAL:" in line or "PANIC:" in line]
    return (fatal or lines or ["its log is empty, as on a full disk"])[-1].strip()


@frozen(kw_only=True)
class Layout:
  """What belongs to the servers that share the database."""

  data_dir: Path
  state_dir: Path

  @property
  def entry(self) -> Path:
    """The home as seen from DATA_DIR: the folder itself or a link to it."""
    return self.data_dir / "postgres"

  @property
  def password_file(self) -> Path:
    """What the servers log in with."""
    return self.data_dir / "postgres.password"

  @property
  def users_lock(self) -> Path:
    """Shared by every server that uses the database."""
    return self.data_dir / "postgres.lock"

  @property
  def change_lock(self) -> Path:
    """Held alone while the database is made, started or stopped."""
    return self.data_dir / "postgres.change"

  def home(self) -> Home | None:
    """Find the home, if the database has been made.

    Raises:
      StorageError: another user's is there.
    """
    folder = self.entry.resolve()
    try:
      return Home(folder=folder) if (folder / "data").is_dir() else None
    except PermissionError as error:
      raise StorageError(
        f"the database in {folder} belongs to another user, who started a server with "
        "this data directory before"
      ) from error

  async def choose_place(self, account: Account) -> Path:
    """Decide where a new home goes.

    It goes into DATA_DIR, except as root when nobody asked for this DATA_DIR or the
    account cannot get there: then into a folder of its own under the state folder.
    That name is partly random, so that a DATA_DIR deleted and made again is empty.
    """
    asked_for = self.data_dir != default_data_dir().resolve()
    if not account.switched or (asked_for and await account.can_enter(self.data_dir)):
      return self.entry
    digest = hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:12]
    return self.state_dir / f"{digest}-{secrets.token_hex(4)}"

  def read_password(self) -> str:
    """Read what to log in with.

    Raises:
      StorageError: the file is missing though there is a database.
    """
    try:
      return self.password_file.read_text().strip()
    except FileNotFoundError as error:
      raise StorageError(
        f"{self.password_file} is missing: without it nobody can log in to the "
        f"database in {self.entry.resolve()}; restore it from a backup"
      ) from error

  def write_password(self, password: str) -> None:
    """Store what to log in with, readable to us alone, whole or not at all."""
    staging = self.password_file.with_name("postgres.password.new")
    staging.unlink(missing_ok=True)
    write_private(staging, password)
    staging.replace(self.password_file)

  def dsn(self, home: Home) -> str:
    """Compose the address of the database, password included: a secret.

    Format: https://www.postgresql.org/docs/18/libpq-connect.html#LIBPQ-CONNSTRING-URIS
    """
    # Everything is named, for PGPASSWORD and PGPORT of our own environment would
    # otherwise fill the gaps.
    host = quote(str(home.sockets), safe="")
    login = f"{DATABASE}:{quote(self.read_password(), safe='')}"
    return f"postgresql://{login}@/{DATABASE}?host={host}&port={PORT}"


def write_private(path: Path, text: str) -> None:
  """Write a new file of mode 0600; an existing one is an error."""
  descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
  with os.fdopen(descriptor, "w") as file:
    file.write(text)
    file.flush()
    # Without the password a database that has survived a power cut opens to nobody.
    os.fsync(file.fileno())


def _make_private(folder: Path, account: Account) -> None:
  """Make a folder only the account can enter; one that is there stays as it is."""
  if not folder.is_dir():
    folder.mkdir(mode=0o700)
    account.own(folder)


def _is_private(folder: Path, account: Account) -> bool:
  """Tell whether the folder belongs to the account and lets nobody else in."""
  status = folder.lstat()
  return (
    stat.S_ISDIR(status.st_mode)
    and status.st_uid == account.uid
    and stat.S_IMODE(status.st_mode) == 0o700
  )
