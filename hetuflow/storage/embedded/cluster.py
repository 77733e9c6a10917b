"""The embedded PostgreSQL as one server sees it.

Run by the server: `open_embedded` around everything that uses the database, and
`Cluster.run` as a child that watches the postmaster. Servers with one DATA_DIR share
one postmaster: each holds `postgres.lock` shared as long as it uses the database, and
whoever makes, starts or stops it holds `postgres.change` alone meanwhile. The last to
leave stops it. A killed server leaves it running for the next one to join; a killed
postmaster is started again by the first server that notices, the others find it there.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import structlog
import trio
from attrs import frozen

from hetuflow.errors import StorageError
from hetuflow.storage.embedded.account import Account, find_account
from hetuflow.storage.embedded.binaries import find_binaries
from hetuflow.storage.embedded.initialise import initialise
from hetuflow.storage.embedded.layout import Home, Layout
from hetuflow.storage.embedded.locks import hold_exclusive, lock_nowait, open_lock
from hetuflow.storage.embedded.postmaster import (
  Postmaster,
  ensure_running,
  find_postmaster,
  stop_postmaster,
)

__all__ = ["Cluster", "ClusterStatistics", "has_cluster", "open_embedded"]

_log = structlog.get_logger()

_STATE_DIR = Path("/var/lib/hetuflow")
_WATCH_SECONDS = 0.5
# The postmaster's own steps to a stop take up to 30 s.
_LEAVE_SECONDS = 45.0


@frozen(kw_only=True)
class ClusterStatistics:
  """What is known of the embedded PostgreSQL."""

  pid: int
  started_at: float
  """When this postmaster started, in seconds since the epoch."""
  restarts: int
  """How often this server started it again after it died."""
  folder: Path
  user: str


class Cluster:
  """A running private PostgreSQL; made by `open_embedded`."""

  def __init__(
    self,
    *,
    home: Home,
    dsn: str,
    account: Account,
    binaries: Path,
    change_lock: int,
    postmaster: Postmaster,
  ) -> None:
    self._home = home
    self._dsn = dsn
    self._account = account
    self._binaries = binaries
    self._change_lock = change_lock
    self._postmaster = postmaster
    self._restarts = 0

  @property
  def dsn(self) -> str:
    """The address for libpq and asyncpg, with the password: a secret."""
    return self._dsn

  @property
  def binaries(self) -> Path:
    """The folder of `psql`, `pg_dump` and the other programs of this PostgreSQL."""
    return self._binaries

  def statistics(self) -> ClusterStatistics:
    """Tell what is known of it now."""
    return ClusterStatistics(
      pid=self._postmaster.pid,
      started_at=self._postmaster.started_at,
      restarts=self._restarts,
      folder=self._home.folder,
      user=self._account.name,
    )

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Watch the postmaster and start it again when it has died; until cancelled.

    Runs once at a time and ends before `open_embedded` does.

    Raises:
      Unavailable: it does not start again.
    """
    task_status.started()
    while True:
      await trio.sleep(_WATCH_SECONDS)
      await self.restart_once()

  async def restart_once(self) -> bool:
    """Look at the postmaster once; have one running again if it died.

    Returns:
      Whether this postmaster was found dead.

    Raises:
      Unavailable: it does not start again within a minute.
    """
    if self._postmaster.is_alive():
      return False
    _log.warning("postgres_died", pid=self._postmaster.pid)
    async with hold_exclusive(self._change_lock):
      by_another = find_postmaster(self._home) is not None
      self._postmaster = await ensure_running(self._home, self._account, self._binaries)
    self._restarts += not by_another
    _log.info("postgres_restarted", pid=self._postmaster.pid, by_another=by_another)
    return True


@asynccontextmanager
async def open_embedded(
  data_dir: Path, *, state_dir: Path = _STATE_DIR
) -> AsyncIterator[Cluster]:
  """Have the private PostgreSQL of a DATA_DIR: made, started or joined.

  Args:
    data_dir: the DATA_DIR; made if absent.
    state_dir: where root keeps what an unprivileged user must reach and cannot below
      this DATA_DIR.

  Yields:
    The cluster, taking connections. Afterwards it is stopped, unless another process
    still has it open.

  Raises:
    StorageError: it cannot be made or started; the message says why.
  """
  with _in_words(data_dir):
    data_dir = _made(data_dir)
  layout = Layout(data_dir=data_dir, state_dir=state_dir)
  with ExitStack() as locks:
    with _in_words(data_dir):
      users_lock = locks.enter_context(open_lock(layout.users_lock))
      change_lock = locks.enter_context(open_lock(layout.change_lock))
    try:
      async with hold_exclusive(change_lock):
        # Nobody holds it alone but under the change lock, which is ours now.
        lock_nowait(users_lock, shared=True)
        with _in_words(data_dir):
          cluster = await _open_cluster(layout, change_lock)
      yield cluster
    finally:
      await _leave(layout, users_lock, change_lock)


def has_cluster(data_dir: Path, *, state_dir: Path = _STATE_DIR) -> bool:
  """Tell whether a DATA_DIR has a private PostgreSQL, running or not.

  Args:
    data_dir: the DATA_DIR.
    state_dir: as `open_embedded` takes it.

  Raises:
    StorageError: another user's is there.
  """
  return Layout(data_dir=data_dir.resolve(), state_dir=state_dir).home() is not None


@contextmanager
def _in_words(data_dir: Path) -> Iterator[None]:
  """Say in words that a file cannot be made, read or written."""
  try:
    yield
  except OSError as error:
    raise StorageError(
      f"the embedded PostgreSQL of {data_dir} cannot be opened: {error}"
    ) from error


def _made(data_dir: Path) -> Path:
  """Make the folder if absent; it comes back absolute and without links."""
  # Entered by everybody: as root the account must pass; what is private has modes.
  data_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
  return data_dir.resolve()


async def _open_cluster(layout: Layout, change_lock: int) -> Cluster:
  """Make the cluster if there is none, and start its postmaster if none runs."""
  account = find_account()
  binaries = await find_binaries(account, layout.state_dir)
  home = layout.home() or await initialise(layout, account, binaries)
  began = trio.current_time()
  joined = find_postmaster(home) is not None
  postmaster = await ensure_running(home, account, binaries)
  _log.info(
    "postgres_joined" if joined else "postgres_started",
    pid=postmaster.pid,
    seconds=round(trio.current_time() - began, 3),
    folder=str(home.folder),
  )
  return Cluster(
    home=home,
    dsn=layout.dsn(home),
    account=account,
    binaries=binaries,
    change_lock=change_lock,
    postmaster=postmaster,
  )


async def _leave(layout: Layout, users_lock: int, change_lock: int) -> None:
  """Stop the postmaster if nobody else uses it; bounded, and never cancelled.

  Whoever makes us wait longer holds the change lock, so uses the database and will
  stop it in turn.
  """
  with trio.move_on_after(_LEAVE_SECONDS) as scope:
    scope.shield = True
    async with hold_exclusive(change_lock):
      if not lock_nowait(users_lock, shared=False):
        _log.info("postgres_left_running")
        return
      home = layout.home()
      if home is not None:
        await stop_postmaster(home)
        _log.info("postgres_stopped", folder=str(home.folder))
