"""A process that runs, and the account of it when it has ended.

Who runs it: one instance's child owns a `Running` and closes it; any task may wait for it
or signal it. It owns a pidfd and the read ends of two pipes. The pid is ours until `poll`
has reaped it; afterwards nothing here signals it any more.
"""

import os
import signal
import time
from collections.abc import Callable
from resource import struct_rusage

import trio
from attrs import frozen

from hetuflow.agent.process import registry
from hetuflow.agent.process.stat import read_stat

__all__ = ["Exit", "Running"]

TRACED_SECONDS = 0.05


@frozen(kw_only=True)
class Exit:
  """How a process ended and what it took.

  Args:
    exit_code: its exit code, None if a signal ended it.
    signal: the signal that ended it, None if it exited.
    cpu_seconds: user and system time, its waited-for children included.
    max_memory_bytes: peak resident memory of the largest of them; None if unknown: the
      kernel lets a child inherit its starter's peak, so less than that is hidden.
    started_at: epoch seconds right after its program was executed.
    ended_at: epoch seconds when its end was seen.
    seconds: from start to end on the monotonic clock.
  """

  exit_code: int | None
  signal: int | None
  cpu_seconds: float
  max_memory_bytes: int | None
  started_at: float
  ended_at: float
  seconds: float


class Running:
  """A process of ours, leader of its own session and group.

  Made by `start_process` only.

  Args:
    pid: its process id, unreaped.
    instance_id: the task instance it runs for.
    stdout: our end of its standard output, non-blocking, None if not captured.
    stderr: likewise its standard error.
    memory_floor_bytes: a peak memory up to this says nothing.
    started_at: epoch seconds right after its program was executed.
    wall: epoch seconds.
  """

  def __init__(
    self,
    *,
    pid: int,
    instance_id: str | None,
    stdout: int | None,
    stderr: int | None,
    memory_floor_bytes: int,
    started_at: float,
    wall: Callable[[], float] = time.time,
  ) -> None:
    self.pid = pid
    self.instance_id = instance_id
    self.stdout = stdout
    self.stderr = stderr
    self.exit: Exit | None = None
    self.started_at = started_at
    self._started_monotonic = time.monotonic()
    self._wall = wall
    self._memory_floor_bytes = memory_floor_bytes
    self._start_time: int | None = None
    registry.known.add(pid)
    try:
      self.pidfd = os.pidfd_open(pid)
    except OSError:  # no descriptor left: we could not own it
      os.kill(pid, signal.SIGKILL)
      os.waitpid(pid, 0)
      registry.known.discard(pid)
      raise

  @property
  def start_time(self) -> int | None:
    """When the kernel started it, in its ticks since boot; None if asked too late.

    With the pid it names the process for ever: field 22 of proc_pid_stat(5).
    """
    if self._start_time is None and self.exit is None and (stat := read_stat(self.pid)):
      self._start_time = stat.start_time
    return self._start_time

  def poll(self) -> Exit | None:
    """Reap the process if it has ended; return how, or None while it runs."""
    if self.exit is None:
      pid, status, usage = os.wait4(self.pid, os.WNOHANG)
      if pid:
        registry.known.discard(pid)
        self.exit = self._account(status, usage)
    return self.exit

  async def wait(self) -> Exit:
    """Wait until it has ended; any number of tasks may."""
    if (ended := self.poll()) is not None:
      return ended
    # Trio lets one task wait for a descriptor, so each waiter has a copy.
    copy = os.dup(self.pidfd)
    try:
      await trio.lowlevel.wait_readable(copy)
    finally:
      os.close(copy)
    while (ended := self.poll()) is None:  # noqa: ASYNC110 - nothing tells of it
      # Whoever traces it, such as a debugger, reaps it before us.
      await trio.sleep(TRACED_SECONDS)
    return ended

  def signal_group(self, number: int) -> bool:
    """Signal its whole process group; False once it was reaped, as then it may be another's."""
    if self.exit is not None:
      return False
    os.killpg(self.pid, number)
    return True

  def close(self) -> None:
    """Close its descriptors; the process itself is not touched.

    One that has not ended, as the kernel holds it, is reaped at the end of another.
    """
    if self.exit is None:
      registry.dropped.add(self.pid)
    self.close_streams()
    if self.pidfd >= 0:
      os.close(self.pidfd)
      self.pidfd = -1

  def close_streams(self) -> None:
    """Close our ends of its output; it gets SIGPIPE if it goes on writing."""
    for fd in (self.stdout, self.stderr):
      if fd is not None:
        os.close(fd)
    self.stdout = self.stderr = None

  def _account(self, status: int, usage: struct_rusage) -> Exit:
    """Make the account from what wait4 says."""
    peak = usage.ru_maxrss * 1024
    signalled = os.WIFSIGNALED(status)
    return Exit(
      exit_code=None if signalled else os.WEXITSTATUS(status),
      signal=os.WTERMSIG(status) if signalled else None,
      cpu_seconds=usage.ru_utime + usage.ru_stime,
      max_memory_bytes=peak if peak > self._memory_floor_bytes else None,
      started_at=self.started_at,
      ended_at=self._wall(),
      seconds=time.monotonic() - self._started_monotonic,
    )
