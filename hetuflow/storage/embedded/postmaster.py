"""The postmaster: find it, judge whether it lives, start it and stop it.

It runs in a session of its own and is nobody's child, so it survives whoever started
it. The truth about it is `postmaster.pid`, believed only as far as the process it names
is a living `postgres` on our data directory: after a crash or a reboot the number may
belong to anybody.
"""

import os
import signal
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil
import trio
from attrs import frozen

from hetuflow.errors import Unavailable
from hetuflow.storage.embedded.account import Account
from hetuflow.storage.embedded.layout import PORT, Home

__all__ = [
  "Postmaster",
  "ensure_running",
  "find_postmaster",
  "kill_orphans",
  "stop_postmaster",
]

# A killed postmaster's children keep its shared memory until they have noticed.
_RETRY_SECONDS = 60.0
_RETRY_PAUSE_SECONDS = 0.25
_POLL_SECONDS = 0.02
_ORPHANS_GONE_SECONDS = 5.0
# How to ask, and how long to wait before asking more firmly.
_STOP_STEPS = (
  (signal.SIGINT, 20.0),  # fast: roll back, checkpoint, exit
  (signal.SIGQUIT, 5.0),  # immediate: recover at the next start
  (signal.SIGKILL, 5.0),
)
# A shell that leaves the postmaster behind as nobody's child. (pg_ctl would do, but
# puts paths into a shell command unquoted and looks only ten times a second.)
_LAUNCH = 'umask 077; log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'
# Line numbers in postmaster.pid, from
# https://github.com/postgres/postgres/blob/REL_18_STABLE/src/include/utils/pidfile.h
_PID_LINE = 0
_STATUS_LINE = 7


@frozen(kw_only=True)
class Postmaster:
  """A postmaster that was seen alive."""

  process: psutil.Process

  @property
  def pid(self) -> int:
    """Its process id."""
    return self.process.pid

  @property
  def started_at(self) -> float:
    """When it started, in seconds since the epoch."""
    return self.process.create_time()

  def is_alive(self) -> bool:
    """Whether it still runs; another process with its number does not count."""
    return self.process.is_running() and _lives(self.pid)


def find_postmaster(home: Home) -> Postmaster | None:
  """Find the living postmaster of this home, ready or not."""
  pid = _read_pid(home.pid_file)
  if pid is None:
    return None
  try:
    process = psutil.Process(pid)
    command = process.cmdline()
  except psutil.Error:
    return None
  # The children of a postmaster show a title instead of its arguments.
  is_ours = any(
    flag == "-D" and os.path.realpath(folder) == str(home.pgdata)
    for flag, folder in pairwise(command)
  )
  return Postmaster(process=process) if is_ours else None


async def ensure_running(home: Home, account: Account, binaries: Path) -> Postmaster:
  """Have a postmaster that takes connections, started if there is none.

  The caller holds the change lock.

  Args:
    home: where the cluster lies.
    account: who runs it.
    binaries: the folder of `postgres`.

  Returns:
    The postmaster, joined or started.

  Raises:
    Unavailable: it does not start; the message has its last words.
  """
  # Only after a crash can something be in the way that goes away by itself.
  patience = _RETRY_SECONDS if home.pid_file.exists() else 0.0
  # A deadline between attempts, not a cancel scope: one that recovers must not be cut.
  deadline = trio.current_time() + patience
  rotated = False
  while True:
    postmaster = await _wait_settled(home)
    if postmaster is not None:
      return postmaster
    if not rotated:
      home.rotate_log()
      rotated = True
    complaint = await _start_once(home, account, binaries)
    if complaint is None:
      continue
    if trio.current_time() >= deadline:
      raise Unavailable(f"the embedded PostgreSQL does not start: {complaint}")
    await trio.sleep(_RETRY_PAUSE_SECONDS)


async def stop_postmaster(home: Home) -> None:
  """Stop the postmaster if there is one, gently first; no process of it is left.

  The caller holds the change lock and knows that nobody uses the database.
  """
  postmaster = find_postmaster(home)
  if postmaster is not None:
    await _stop(postmaster)
  # Also what a cancelled start has left, which may have no pid file yet.
  await trio.to_thread.run_sync(kill_orphans, home.pgdata)
  home.remove_short_sockets()


async def _stop(postmaster: Postmaster) -> None:
  """Signal it, more firmly each time, until it is gone."""
  for how, patience in _STOP_STEPS:
    with suppress(psutil.NoSuchProcess):
      postmaster.process.send_signal(how)
    with trio.move_on_after(patience):
      while postmaster.is_alive():  # noqa: ASYNC110 - another process, no event
        await trio.sleep(_POLL_SECONDS)
      return


async def _wait_settled(home: Home) -> Postmaster | None:
  """Wait while a postmaster starts or stops; then the one that is ready, or none."""
  while (postmaster := find_postmaster(home)) is not None:
    if _is_ready(home.pid_file):
      return postmaster
    await trio.sleep(_POLL_SECONDS)
  return None


async def _start_once(home: Home, account: Account, binaries: Path) -> str | None:
  """Try one start; None, or why it failed."""
  await trio.to_thread.run_sync(_clear_the_way, home)
  home.prepare_sockets(account)
  command: list[str | Path] = [binaries / "postgres", "-D", home.pgdata]
  with trio.CancelScope(shield=True):
    # Over in a moment; cut off, it could leave a postmaster that nobody knows.
    started = await account.run(
      ["/bin/sh", "-c", _LAUNCH, "sh", home.log, *command, *_options(home)],
      new_session=True,
    )
  try:
    pid = int(started.stdout)
  except ValueError:
    # The shell complains beside the number: the log cannot be written.
    return started.stdout.decode(errors="replace").strip().splitlines()[-1]
  try:
    # Recovery after a crash may take minutes: as long as it lives, it has its time.
    while _lives(pid):
      if _read_pid(home.pid_file) == pid and _is_ready(home.pid_file):
        return None
      await trio.sleep(_POLL_SECONDS)
  except trio.Cancelled:
    # Before it has entered its folder nothing but this number leads to it.
    with suppress(ProcessLookupError):
      os.kill(pid, signal.SIGKILL)
    raise
  return home.last_words()


def _options(home: Home) -> list[str]:
  """Name what nobody may override: a socket for us alone, and no network."""
  settings = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_directories": f'"{home.sockets}"',
    "unix_socket_permissions": "0700",
  }
  return [f"--{name}={value}" for name, value in settings.items()]


def _clear_the_way(home: Home) -> None:
  """Remove what a dead postmaster left and PostgreSQL would stumble over.

  Its children are killed, for recovery follows anyway and they hold the shared memory.
  The pid files are removed only where the number is taken by somebody else, which
  PostgreSQL takes for a running server; a dead number it handles by itself.
  """
  kill_orphans(home.pgdata)
  socket_lock = home.sockets / f".s.PGSQL.{PORT}.lock"
  for file in (home.pid_file, socket_lock):
    pid = _read_pid(file)
    if pid is not None and psutil.pid_exists(pid):
      file.unlink(missing_ok=True)


def kill_orphans(pgdata: Path) -> None:
  """Kill the server processes that still work in a data directory, and wait.

  Args:
    pgdata: the data directory, links followed. It has no living postmaster.
  """
  orphans = []
  for process in psutil.process_iter(["name", "cwd"]):
    name, folder = process.info["name"] or "", process.info["cwd"]
    if name.startswith("postgres") and folder == str(pgdata):
      with suppress(psutil.NoSuchProcess):
        process.kill()
        orphans.append(process)
  psutil.wait_procs(orphans, timeout=_ORPHANS_GONE_SECONDS)


def _lives(pid: int) -> bool:
  """Tell whether the process runs: a zombie waits only for its parent."""
  try:
    return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
  except psutil.NoSuchProcess:
    return False


def _read_pid(file: Path) -> int | None:
  """Read the process id in the first line of a PostgreSQL lock file."""
  try:
    return abs(int(_read_lines(file)[_PID_LINE]))
  except (OSError, ValueError, IndexError):
    return None


def _is_ready(pid_file: Path) -> bool:
  """Whether the postmaster says that it takes connections."""
  try:
    return _read_lines(pid_file)[_STATUS_LINE].strip() == "ready"
  except (OSError, IndexError):
    return False


def _read_lines(file: Path) -> list[str]:
  """Read the lines of a PostgreSQL lock file."""
  return file.read_text(errors="replace").splitlines()
