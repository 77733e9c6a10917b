"""Which child processes are ours by name, so that those which are not can be told.

The agent is the subreaper (prctl(2), PR_SET_CHILD_SUBREAPER) of what it starts: a process
whose parent has ended becomes the agent's child instead of init's. A child of ours that
we did not start is such a stranger, left behind by some task. Plain state of the one Trio
thread.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

__all__ = ["become_subreaper", "known", "launching", "strangers"]

PR_SET_CHILD_SUBREAPER = 36

known: set[int] = set()
_under_way = 0


@cache
def become_subreaper() -> None:
  """Have orphans of our descendants given to us; once for the life of the process."""
  ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@contextmanager
def launching() -> Iterator[None]:
  """Mark that children may appear whose pid we do not know yet."""
  global _under_way
  _under_way += 1
  try:
    yield
  finally:
    _under_way -= 1


def strangers() -> list[int]:
  """List children of ours that we did not start; none while a pid is being learnt."""
  if _under_way:
    return []
  try:
    with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
      return [pid for pid in map(int, file.read().split()) if pid not in known]
  except OSError:  # a kernel built without CONFIG_PROC_CHILDREN
    return []
