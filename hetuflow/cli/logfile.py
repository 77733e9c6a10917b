"""The log files of the programs that ``hetuflow up`` runs, and what of them is shown."""

import json
from pathlib import Path

__all__ = ["LogFile", "summary_of"]

MAX_SIZE = 10 * 1024**2
"""Bytes; of a greater file a new one is begun, and one old one is kept."""
SHOWN_LEVELS = frozenset({"warning", "error", "critical"})
LEFT_OUT = frozenset({"level", "event", "timestamp", "exception", "logger"})


class LogFile:
  """Lines of bytes in a file that stays below a size.

  Args:
    path: made with its folder; appended to when it is there.
    max_size: in bytes.
  """

  def __init__(self, path: Path, *, max_size: int = MAX_SIZE) -> None:
    self.path = path
    self._max_size = max_size
    path.parent.mkdir(parents=True, exist_ok=True)
    self._file = path.open("ab")

  def __enter__(self) -> "LogFile":
    return self

  def __exit__(self, *_: object) -> None:
    self._file.close()

  def write(self, line: bytes) -> None:
    """Append a line and its end."""
    if self._file.tell() + len(line) >= self._max_size:
      self._file.close()
      self.path.replace(self.path.with_name(self.path.name + ".1"))
      self._file = self.path.open("ab")
    self._file.write(line + b"\n")
    self._file.flush()


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
