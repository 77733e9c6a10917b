"""Ending a process with all its descendants, and nothing else.

Who runs it: the instance's child at its end, or the executor when it kills. A descendant
is one in the session or group of the process, one with its HETUFLOW_INSTANCE_ID in the
environment, or a child of one of those; `setsid` and double forks leave the first, a
cleaned environment the second, hardly anything both. Every signal goes through a pidfd
whose start time was compared first, so a recycled pid is never hit.
"""

import contextlib
import errno
import os
import signal
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

import trio

from hetuflow.agent.process import registry
from hetuflow.agent.process.census import Census, take_census
from hetuflow.agent.process.running import Running
from hetuflow.agent.process.stat import (
  Stat,
  read_instance_id,
  read_stat,
  read_stats,
)

__all__ = [
  "end_orphans",
  "find_orphans",
  "has_leftovers",
  "open_exactly",
  "scan_instances",
  "signal_exactly",
  "terminate_tree",
]

KILL_SECONDS = 5.0
ROUND_SECONDS = 0.2
NEVER = frozenset({0, 1})
# The last two say, by age of the kernel, that a thread has the number by now.
NO_PROCESS = (errno.ESRCH, errno.ENOENT, errno.EINVAL)


def scan_instances() -> dict[str, list[tuple[int, int]]]:
  """Find every process of any task instance: id to `(pid, start_time)` pairs."""
  found: dict[str, list[tuple[int, int]]] = {}
  for stat in read_stats():
    if stat.alive and stat.pid != os.getpid() and (name := read_instance_id(stat.pid)):
      found.setdefault(name, []).append((stat.pid, stat.start_time))
  return found


def find_orphans(instance_id: str) -> list[tuple[int, int]]:
  """Find the processes of one task instance, as `(pid, start_time)` pairs."""
  return scan_instances().get(instance_id, [])


async def end_orphans(instance_id: str, *, grace: float) -> bool:
  """End what is left of an instance of an earlier agent; True if nothing is, verified."""
  return await _end(_Tree(instance_id, None), grace)


async def terminate_tree(running: Running, *, grace: float) -> bool:
  """End a process and all its descendants; returns when they are gone.

  SIGTERM to all of them, SIGCONT so that stopped ones get it, `grace` seconds for all to
  end, then SIGKILL until none is found, for at most 5 s.

  Args:
    running: the process; it may have ended before.
    grace: seconds between SIGTERM and SIGKILL; 0 sends SIGKILL at once.

  Returns:
    Whether it is verified that none is left; False means that the kernel holds one, such
    as in an uninterruptible read.
  """
  return await _end(_Tree(running.instance_id, running), grace)


def has_leftovers(running: Running) -> bool:
  """Whether an ended process has left others behind: cheap, for each end of a task."""
  with contextlib.suppress(ProcessLookupError, PermissionError):
    os.killpg(running.pid, 0)
    return True
  return any(_is_left_by(pid, running) for pid in _reap_strangers())


def _is_left_by(pid: int, running: Running) -> bool:
  """Whether an adopted child comes from this process."""
  if running.instance_id is not None and read_instance_id(pid) == running.instance_id:
    return True
  stat = read_stat(pid)
  return stat is not None and running.pid in (stat.session, stat.group)


def _reap_strangers() -> list[int]:
  """Reap adopted children that have ended; return those that live."""
  registry.reap_dropped()
  alive = []
  own_session = os.getsid(0)
  for pid in registry.strangers():
    stat = read_stat(pid)
    if stat is None or stat.session == own_session:
      continue  # started by other code of this program, which waits for it itself
    if stat.alive:
      alive.append(pid)
    elif registry.is_foreign(stat.start_time):
      with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
  return alive


class _Tree:
  """The living members of one instance's tree, found anew each time.

  Args:
    instance_id: its mark in the environment, if any.
    running: its main process, if it is a child of ours.
  """

  def __init__(self, instance_id: str | None, running: Running | None) -> None:
    self._instance_id = instance_id
    self._running = running
    self._seen: set[tuple[int, int]] = set()
    self._session = None if running is None else running.pid

  async def members(self) -> list[Stat]:
    """Find the living members; a child of one seen before stays one when that has ended."""
    main = self._running
    ended = main is not None and main.poll() is not None
    census = await take_census()
    if ended:
      self._check_session(census)
    stats = [stat for stat in census.stats if stat.pid not in NEVER]
    found = {stat.pid for stat in stats if self._is_root(stat, census)}
    while more := {s.pid for s in stats if s.parent in found} - found:
      found |= more
    members = [stat for stat in stats if stat.pid in found]
    self._seen.update((stat.pid, stat.start_time) for stat in members)
    return [stat for stat in members if stat.alive]

  def signal(self, number: int, members: Iterable[Stat]) -> None:
    """Signal each member once: the group as a whole while it is surely ours."""
    group = None
    if self._running is not None:
      with contextlib.suppress(ProcessLookupError, PermissionError):
        if self._running.signal_group(number):
          group = self._running.pid
    for stat in members:
      if stat.group != group:
        signal_exactly(stat.pid, stat.start_time, number)

  def _check_session(self, census: Census) -> None:
    """Give up the number of our session and group once it may become another's.

    The kernel keeps it while the session or group has members. A process that carries it
    as its pid, in a census begun after ours was reaped, shows that it had none.
    """
    named = [s for s in census.stats if self._session in (s.session, s.group)]
    if not named or any(stat.pid == self._session for stat in named):
      self._session = None

  def _is_root(self, stat: Stat, census: Census) -> bool:
    """Whether a process belongs to the tree by itself, whoever its parent is."""
    if (stat.pid, stat.start_time) in self._seen:
      return True
    if self._session is not None and self._session in (stat.session, stat.group):
      return True
    marked = self._instance_id
    return marked is not None and census.instance_ids.get(stat.pid) == marked


async def _end(tree: _Tree, grace: float) -> bool:
  """TERM, wait, KILL until none is left; True if so."""
  members = await tree.members()
  if members and grace > 0:
    tree.signal(signal.SIGTERM, members)
    tree.signal(signal.SIGCONT, members)
    with trio.move_on_after(grace):
      while members := await tree.members():
        await _wait_gone(members)
  with trio.move_on_after(KILL_SECONDS):
    while members := await tree.members():
      tree.signal(signal.SIGKILL, members)
      with trio.move_on_after(ROUND_SECONDS):
        await _wait_gone(members)
  _reap_strangers()
  return not await tree.members()


async def _wait_gone(members: Collection[Stat]) -> None:
  """Wait until every one of these processes has ended."""
  for stat in members:
    with open_exactly(stat.pid, stat.start_time) as pidfd:
      if pidfd is not None:
        await trio.lowlevel.wait_readable(pidfd)


@contextmanager
def open_exactly(pid: int, start_time: int) -> Iterator[int | None]:
  """Open a pidfd of just that process; None if it is gone or its pid is another's."""
  try:
    pidfd = os.pidfd_open(pid)
  except OSError as error:
    if error.errno not in NO_PROCESS:
      raise
    yield None
    return
  try:
    stat = read_stat(pid)
    yield pidfd if stat is not None and stat.start_time == start_time else None
  finally:
    os.close(pidfd)


def signal_exactly(pid: int, start_time: int, number: int) -> bool:
  """Signal just that process; False if it is gone or its pid is another's."""
  with open_exactly(pid, start_time) as pidfd:
    if pidfd is None:
      return False
    with contextlib.suppress(ProcessLookupError, PermissionError):
      signal.pidfd_send_signal(pidfd, number)
      return True
    return False
