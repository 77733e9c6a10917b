"""Advisory locks between the processes that share one DATA_DIR.

`flock` belongs to the open file, so the kernel drops it when its holder is killed: no
lock here can outlive its owner. Waiting is polling, because a thread blocked in
`flock` cannot be cancelled and would take the lock for nobody.
"""

import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import trio

__all__ = ["hold_exclusive", "lock_nowait", "open_lock"]

_POLL_SECONDS = 0.02


@contextmanager
def open_lock(path: Path) -> Iterator[int]:
  """Keep the lock file open; what was locked on it is free when the block ends.

  Args:
    path: the lock file, made with mode 0600 when absent.

  Yields:
    The file descriptor for `lock_nowait` and `hold_exclusive`; children of this
    process do not inherit it.
  """
  lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
  try:
    yield lock
  finally:
    os.close(lock)


def lock_nowait(lock: int, *, shared: bool) -> bool:
  """Take or convert the lock if that needs no waiting.

  Args:
    lock: a descriptor of `open_lock`.
    shared: with others, or alone.

  Returns:
    Whether it is held now. A refused conversion may have lost the lock held before.
  """
  kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
  try:
    fcntl.flock(lock, kind | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  return True


@asynccontextmanager
async def hold_exclusive(lock: int) -> AsyncIterator[None]:
  """Hold the lock alone inside the block, waiting for it as long as the caller lets.

  Args:
    lock: a descriptor of `open_lock`, used by one task of this process at a time.
  """
  while not lock_nowait(lock, shared=False):  # noqa: ASYNC110 - held by another process
    await trio.sleep(_POLL_SECONDS)
  try:
    yield
  finally:
    fcntl.flock(lock, fcntl.LOCK_UN)
