"""What the kernel says of processes: proc_pid_stat(5) and proc_pid_environ(5)."""

import os
from collections.abc import Iterator

from attrs import frozen

__all__ = ["Stat", "read_instance_id", "read_stat", "read_stats"]

MARK = b"HETUFLOW_INSTANCE_ID="
NOT_OURS = (FileNotFoundError, ProcessLookupError, PermissionError)


@frozen
class Stat:
  """One process; pid and start time together name it for ever."""

  pid: int
  state: str
  parent: int
  group: int
  session: int
  threads: int
  start_time: int

  @property
  def alive(self) -> bool:
    """Whether it still does anything: not dead, no zombie.

    One whose first thread has ended looks like a zombie while its other threads go on.
    """
    return self.state not in "ZXx" or self.threads > 1


def read_stat(pid: int) -> Stat | None:
  """Read one process, None if there is none or it is hidden from us (hidepid)."""
  try:
    with open(f"/proc/{pid}/stat", "rb") as file:
      text = file.read()
  except NOT_OURS:
    return None
  # The name stands in parentheses and may hold anything, parentheses too.
  fields = text[text.rindex(b")") + 2 :].split()
  return Stat(
    pid,
    fields[0].decode(),
    int(fields[1]),
    int(fields[2]),
    int(fields[3]),
    int(fields[17]),
    int(fields[19]),
  )


def read_stats() -> Iterator[Stat]:
  """Read every process of the machine."""
  for name in os.listdir("/proc"):
    if name.isdigit() and (stat := read_stat(int(name))):
      yield stat


def read_instance_id(pid: int) -> str | None:
  """Read for which task instance a process was started; None if none or not ours to see."""
  try:
    with open(f"/proc/{pid}/environ", "rb") as file:
      content = file.read()
  except NOT_OURS:
    return None
  for entry in content.split(b"\0"):
    if entry.startswith(MARK):
      return entry[len(MARK) :].decode(errors="replace")
  return None
