"""Which processes run, noted in the journal so that they are found after a crash.

Who runs it: a member of the executor's crowd. It owns the processes that have not been
noted yet. Their mark in the environment finds nearly all of them; the process id and
start time noted here find those that have cleaned their environment. One that has ended
by the time of the note, most have, is not worth a line.
"""

import trio

from hetuflow.agent.journal import Journal, JournalFull
from hetuflow.agent.process import Running
from hetuflow.nursery import Wakeup

__all__ = ["Spawned"]

GATHER_SECONDS = 0.1


class Spawned:
  """Notes processes.

  Args:
    journal: where they are noted.
  """

  def __init__(self, *, journal: Journal) -> None:
    self._journal = journal
    self._new: list[Running] = []
    self._wakeup = Wakeup()

  def note(self, running: Running) -> None:
    """Take up a process that has just been started."""
    self._new.append(running)
    self._wakeup.set()

  async def run(self) -> None:
    """Note what has lived for a moment, for ever."""
    while True:
      await self._wakeup.wait()
      await trio.sleep(GATHER_SECONDS)
      await self.note_once()

  async def note_once(self) -> int:
    """Note the processes that still run; return how many that were."""
    new, self._new = self._new, []
    rows = [
      (each.instance_id, each.pid, each.start_time)
      for each in new
      if each.instance_id is not None and each.start_time is not None
    ]
    if rows:
      try:
        await self._journal.spawned(rows)
      except JournalFull:
        return 0  # the mark in the environment has to do
    return len(rows)
