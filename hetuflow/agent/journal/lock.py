"""A directory that belongs to one agent at a time, by a lock the kernel takes back."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hetuflow.errors import Refused

__all__ = ["lock_directory"]


@contextmanager
def lock_directory(directory: Path) -> Iterator[None]:
  """Own a directory, mode 0700, for the block; made if it is not there.

  Raises:
    Refused: another agent owns it; says its process id.
  """
  directory.mkdir(mode=0o700, parents=True, exist_ok=True)
  directory.chmod(0o700)
  flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
  fd = os.open(directory / "agent.lock", flags, 0o600)
  try:
    try:
      fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      owner = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
      raise Refused(
        f"{directory} is in use by another agent, process id {owner}"
      ) from error
    os.ftruncate(fd, 0)
    os.write(fd, b"%d\n" % os.getpid())
    yield
  finally:
    os.close(fd)
