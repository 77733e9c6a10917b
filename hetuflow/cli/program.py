"""One program of ``hetuflow up``: a process that is started, heard, and stopped.

Who runs it: the supervisor of ``up``, which starts it again after a crash. It owns the
process (in a session of its own, so that Ctrl-C in the terminal reaches only ``up``) and
the pipe with what the program logs. When the process dies, ``run`` raises with its last
lines; when ``run`` is cancelled the process gets a SIGTERM, a second one, and is killed,
each after a bounded wait. When ``up`` itself is killed the program runs on: it is a
whole server or agent, and the next SIGTERM ends it in order.
"""

import signal
import subprocess
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import trio

from hetuflow.cli.logfile import LogFile, summary_of
from hetuflow.errors import HetuflowError, SettingsError

__all__ = ["Program", "ProgramEnded", "StartFailed"]

LAST_LINES = 10
MAX_LINE = 64 * 1024
"""Bytes of one line that are looked at; longer ones are cut into pieces."""
READY_TIMEOUT_S = 60.0
PATIENCE_S = (10.0, 5.0)
"""How long a cancelled program may take after the first and after the second SIGTERM."""
LATE_OUTPUT_S = 1.0
EXIT_USAGE = 2


class ProgramEnded(HetuflowError):
  """A program that should run has ended; it may be started again."""


class StartFailed(HetuflowError):
  """A program ended before it was ever ready: trying again would not help."""


class Program:
  """A process of ``python -m MODULE``.

  Args:
    module: such as ``hetuflow.server``.
    arguments: called before each start.
    ready: returns when the process with the given pid can be relied upon.
    log: takes every line.
    show: takes the lines that a person should see.
  """

  def __init__(
    self,
    module: str,
    arguments: Callable[[], Sequence[str]],
    *,
    ready: Callable[[int], Awaitable[None]],
    log: LogFile,
    show: Callable[[str], None],
  ) -> None:
    self._module = module
    self._arguments = arguments
    self._ready = ready
    self._log = log
    self._show = show
    self._process: trio.Process | None = None
    self._draining = False
    self._was_ready = False
    self._tail: deque[str] = deque(maxlen=LAST_LINES)

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Run the process until it ends or this is cancelled.

    Raises:
      SettingsError: it ended at once because of its settings.
      StartFailed: it ended before it was ready, or was not ready in time.
      ProgramEnded: it ended though nobody asked it to.
    """
    self._tail.clear()
    process = self._process = await trio.lowlevel.open_process(
      [sys.executable, "-m", self._module, *self._arguments()],
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )
    life = trio.CancelScope()
    async with trio.open_nursery() as nursery:
      nursery.start_soon(self._listen, process, life)
      try:
        with life:
          await self._wait_ready(process.pid)
          task_status.started()
          await trio.sleep_forever()
      finally:
        with trio.CancelScope(shield=True):
          await self._end(process)
        self._process = None
    if not self._draining:
      raise self._reason(process.returncode)

  async def _wait_ready(self, pid: int) -> None:
    """Wait until the process can be relied upon, within bounds."""
    with trio.move_on_after(READY_TIMEOUT_S) as patience:
      await self._ready(pid)
    if patience.cancelled_caught:
      raise StartFailed(self._said(f"was not ready in {READY_TIMEOUT_S:g} s"))
    self._was_ready = True

  async def drain(self) -> None:
    """Ask the program to finish what it has and to end, and wait until it has ended."""
    self._draining = True
    if self._process is not None:
      self._process.terminate()
      await self._process.wait()

  async def _listen(self, process: trio.Process, life: trio.CancelScope) -> None:
    """Keep what the program says until it has ended, then end the waiting for it.

    Shielded: a program that is being stopped has last words, and a pipe that nobody
    empties would hold it up.
    """
    with trio.CancelScope(shield=True):
      async with trio.open_nursery() as nursery:
        nursery.start_soon(self._read, process)
        await process.wait()
        # A process it left behind may hold the pipe open.
        nursery.cancel_scope.deadline = trio.current_time() + LATE_OUTPUT_S
    life.cancel()

  async def _read(self, process: trio.Process) -> None:
    """Take the lines of the pipe until it is closed."""
    assert process.stdout is not None  # noqa: S101 - it was asked for
    rest = b""
    async for data in process.stdout:
      *lines, rest = (rest + data).split(b"\n")
      if len(rest) > MAX_LINE:
        lines, rest = [*lines, rest], b""
      for line in lines:
        self._take(line)
    if rest:
      self._take(rest)

  def _take(self, line: bytes) -> None:
    """Write one line to the log, and show it where it warns."""
    self._log.write(line)
    text = line.decode("utf-8", "replace")
    self._tail.append(text)
    if summary := summary_of(text):
      self._show(f"{self._module.rpartition('.')[2]}: {summary}")

  async def _end(self, process: trio.Process) -> None:
    """See the process out: by SIGTERM twice, then by SIGKILL."""
    for patience in PATIENCE_S:
      if process.returncode is not None:
        return
      process.send_signal(signal.SIGTERM)
      with trio.move_on_after(patience):
        await process.wait()
    if process.returncode is None:
      process.kill()
      await process.wait()

  def _reason(self, code: int | None) -> HetuflowError:
    """Say why the program ended, with its last words."""
    if code == EXIT_USAGE and not self._was_ready:
      return SettingsError(self._said("refuses its settings"))
    ended = self._said(f"ended with code {code}")
    if not self._was_ready:
      return StartFailed(ended)
    self._show(ended)
    return ProgramEnded(ended)

  def _said(self, what: str) -> str:
    """Put what happened in front of the last lines of the log."""
    lines = "".join(f"\n  {line}" for line in self._tail)
    return f"{self._module} {what}; its log is {self._log.path}{lines}"
