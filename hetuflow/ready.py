"""The files in which a running server says where it is, and whether it still is there.

``DATA_DIR/server.json`` speaks of the server started last, ``DATA_DIR/servers/<id>.json``
of each. A server that was killed leaves them behind, and its port to anybody: so they
name its process too, by id and start time, which no other process can have.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
from attrs import frozen

__all__ = ["Ready", "read_ready", "ready_files", "start_ticks"]

_STATE, _START = 0, 19
"""Of /proc/<pid>/stat behind the name in brackets: proc_pid_stat(5), fields 3 and 22."""


@frozen(kw_only=True)
class Ready:
  """What a ready file says; more is for people.

  Args:
    url: of the API, without a slash at the end.
    pid: of the server's process.
    started: when the kernel started that process, in clock ticks since the boot; None
      where it could not be told.
  """

  url: str
  pid: int | None = None
  started: int | None = None

  @property
  def is_running(self) -> bool:
    """Whether the process that wrote it lives, as far as that can be told from here."""
    if self.pid is None:
      return True
    if self.started is not None and Path("/proc/self/stat").exists():
      return start_ticks(self.pid) == self.started
    try:
      os.kill(self.pid, 0)
    except ProcessLookupError:
      return False
    except PermissionError:
      pass
    return True


def ready_files(data_dir: Path) -> Iterator[Path]:
  """Yield the files of a folder, that of the server started last first."""
  yield data_dir / "server.json"
  yield from sorted(data_dir.glob("servers/*.json"))


def read_ready(file: Path) -> Ready | None:
  """Read a ready file; None where there is none.

  Raises:
    ValueError: it says nothing that a server would.
    OSError: it cannot be read.
  """
  try:
    said = msgspec.json.decode(file.read_bytes())
    return Ready(
      url=str(said["url"]).rstrip("/"), pid=said.get("pid"), started=said.get("started")
    )
  except FileNotFoundError:
    return None
  except (KeyError, TypeError, AttributeError) as error:
    raise ValueError(f"no url in it: {error!r}") from error


def start_ticks(pid: int) -> int | None:
  """Return when a process was started, in clock ticks; None if it is gone.

  Source: proc_pid_stat(5). The name of the program may hold spaces and brackets. One
  that has ended and was not waited for counts as gone.
  """
  try:
    text = Path(f"/proc/{pid:d}/stat").read_text("utf-8", errors="replace")
  except OSError:
    return None
  fields = text.rpartition(")")[2].split()
  return None if fields[_STATE] in "ZX" else int(fields[_START])
