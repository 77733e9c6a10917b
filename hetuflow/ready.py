"""The files in which a running server says where it is, and whether it still is there.

``DATA_DIR/server.json`` speaks of the server started last, ``DATA_DIR/servers/<id>.json``
of each. A server that was killed leaves them behind, and its port to anybody. So a server
keeps its files locked (flock(2)) for as long as it runs: whoever can lock one has found
what is left of a dead one. Ids of processes are given anew and mean nothing in another
container; a lock means the same to everybody on the machine.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from attrs import frozen

__all__ = ["Ready", "publish_ready", "read_ready", "ready_files"]


@frozen(kw_only=True)
class Ready:
  """What a ready file tells.

  Args:
    url: of the API, without a slash at the end.
    pid: of the process that wrote it; None where it does not say.
    is_running: whether the server that wrote it still runs.
  """

  url: str
  pid: int | None
  is_running: bool


def ready_files(data_dir: Path) -> Iterator[Path]:
  """Yield the files of a folder, that of the server started last first."""
  yield data_dir / "server.json"
  yield from sorted(data_dir.glob("servers/*.json"))


@contextmanager
def publish_ready(path: Path, text: bytes) -> Iterator[None]:
  """Write a ready file, so that nobody reads half of it, and lock it for the block."""
  draft = path.with_name(f".{path.name}.{os.getpid()}")
  with draft.open("wb", buffering=0) as file:
    file.write(text)
    fcntl.flock(file, fcntl.LOCK_EX)
    draft.replace(path)
    yield


def read_ready(path: Path) -> Ready | None:
  """Read a ready file; None where there is none.

  Raises:
    ValueError: it says nothing that a server would.
    OSError: it cannot be read.
  """
  try:
    with path.open("rb") as file:
      said = msgspec.json.decode(file.read())
      return Ready(
        url=str(said["url"]).rstrip("/"),
        pid=said.get("pid"),
        is_running=_is_locked(file.fileno()),
      )
  except FileNotFoundError:
    return None
  except (KeyError, TypeError) as error:
    raise ValueError(f"no url in it: {error!r}") from error


def _is_locked(fd: int) -> bool:
  """Tell whether somebody keeps an open file locked."""
  try:
    fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
  except BlockingIOError:
    return True
  return False
