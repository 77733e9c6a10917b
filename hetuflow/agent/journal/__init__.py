"""The agent's durable memory: which claims it holds, and what it has still to report."""

from hetuflow.agent.journal.journal import Journal, open_journal
from hetuflow.agent.journal.model import (
  Claim,
  ClaimState,
  Entry,
  JournalFull,
  Recovered,
)

__all__ = [
  "Claim",
  "ClaimState",
  "Entry",
  "Journal",
  "JournalFull",
  "Recovered",
  "open_journal",
]
