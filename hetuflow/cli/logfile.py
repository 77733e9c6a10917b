"""The log files of the programs that ``hetuflow up`` runs, and what of them is shown."""

import json
from contextlib import suppress
from pathlib import Path

__all__ = ["LogFile", "summary_of"]

MAX_SIZE = 10 * 1024**2
"""Bytes; of a greater file a new one is begun, and one old one is kept."""
SHOWN_LEVELS = frozenset({"warning", "error", "critical"})
LEFT_OUT = frozenset({"level", "event", "timestamp", "exception", "logger"})


class LogFile:
  """Lines of bytes in a file that stays below a size.

  A line that cannot be written, as on a full disk, is lost: a program must not end
  because of its log.

  Args:
    path: made with its folder; appended to when it is there.
    max_size: in bytes.
  """

  def __init__(self, path: Path, *, max_size: int = MAX_SIZE) -> None:
    self.path = path
    self._max_size = max_size
    path.parent.mkdir(parents=True, exist_ok=True)
    # Unbuffered: what could not be written must not come up again.
    self._file = path.open("ab", buffering=0)

  def __enter__(self) -> "LogFile":
    return self

  def __exit__(self, *_: object) -> None:
    self._file.close()

  def write(self, line: bytes) -> None:
    """Append a line and its end, or lose it."""
    with suppress(OSError):
      if self._file.tell() + len(line) >= self._max_size:
        self._begin_anew()
      self._file.write(line + b"\n")

  def _begin_anew(self) -> None:
    """Put the file aside, in the place of the one before, and begin an empty one."""
    self.path.replace(self.path.with_name(self.path.name + ".1"))
    fresh = self.path.open("ab", buffering=0)
    self._file.close()
    self._file = fresh


def summary_of(line: str) -> str | None:
  """Return what a person should see of a line: warnings and errors in brief, else None."""
  try:
    event = json.loads(line)
  except ValueError:
    return None
  if not isinstance(event, dict) or event.get("level") not in SHOWN_LEVELS:
    return None
  facts = " ".join(
    f"{name}={value}" for name, value in event.items() if name not in LEFT_OUT
  )
  return f"{event['level']}: {event.get('event')} {facts}".rstrip()
