"""Which child processes are ours by name, so that those which are not can be told.

The agent is the subreaper (prctl(2), PR_SET_CHILD_SUBREAPER) of what it starts: a process
whose parent has ended becomes the agent's child instead of init's. A child of ours that
we did not start is such a stranger, left behind by some task. Plain state of the one Trio
thread, but that the threads which start processes add to what is known. Strangers become
children of the main thread, and what these threads start does so only when they end: so
a start that hangs keeps nothing from being reaped.
"""

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

__all__ = [
  "become_subreaper",
  "dropped",
  "is_foreign",
  "known",
  "launching",
  "reap_dropped",
  "strangers",
]

PR_SET_CHILD_SUBREAPER = 36

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

known: set[int] = set()
dropped: set[int] = set()
"""Those of the known whose owner has given up waiting for their end."""
_launches: dict[object, int] = {}


@cache
def become_subreaper() -> None:
  """Have orphans of our descendants given to us; once for the life of the process."""
  ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@contextmanager
def launching() -> Iterator[None]:
  """Mark that the helper may make a child whose pid we do not know yet."""
  launch = object()
  boot_seconds = time.clock_gettime(time.CLOCK_BOOTTIME)
  _launches[launch] = int(boot_seconds * TICKS_PER_SECOND)
  try:
    yield
  finally:
    del _launches[launch]


def reap_dropped() -> None:
  """Reap those that were let go of before their end, if that has come."""
  for pid in list(dropped):
    try:
      ended = os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
      ended = True
    if ended:
      dropped.discard(pid)
      known.discard(pid)


def is_foreign(start_time: int) -> bool:
  """Whether an unknown child with this start time cannot be one being launched now."""
  return all(start_time < launched for launched in _launches.values())


def strangers() -> list[int]:
  """List children of ours whose pid we do not know; some may be just being launched."""
  try:
    with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
      return [pid for pid in map(int, file.read().split()) if pid not in known]
  except OSError:  # a kernel built without CONFIG_PROC_CHILDREN
    return []
