"""Clearing the journal of what is of no use any more.

Who runs it: the outbox, beside its pumps. It owns what is to be cleared and not yet is;
if the agent dies before it is, the server gets a report twice, which is harmless.
"""

from hetuflow.agent.journal import Journal, JournalFull
from hetuflow.nursery import Backoff, Outage, Wakeup

__all__ = ["Sweeper"]


class Sweeper:
  """Clears reports and claims.

  Args:
    journal: what is cleared.
  """

  def __init__(self, journal: Journal) -> None:
    self._journal = journal
    self._seqs: list[int] = []
    self._keys: list[str] = []
    self._wakeup = Wakeup()
    self._outage = Outage(
      JournalFull, event="journal_full", backoff=Backoff(maximum=1.0)
    )

  def add_report(self, seq: int) -> None:
    """Have a report cleared: the server has it, or nobody wants it any more."""
    self._seqs.append(seq)
    self._wakeup.set()

  def add_claim(self, key: str) -> None:
    """Have a claim cleared: it is not ours any more."""
    self._keys.append(key)
    self._wakeup.set()

  async def run(self) -> None:
    """Clear what comes, for ever."""
    while True:
      await self._wakeup.wait()
      await self.sweep_once()

  async def sweep_once(self) -> int:
    """Clear what there is; return how much that was."""
    seqs, self._seqs = self._seqs, []
    keys, self._keys = self._keys, []
    if keys:
      await self._outage.retry(lambda: self._journal.release(keys))
    if seqs:
      await self._outage.retry(lambda: self._journal.acknowledge(seqs))
    return len(seqs) + len(keys)
