"""The agent's durable memory: which claims it holds, and what it has still to report.

Who runs it: `open_journal` is entered once, by the agent's tree; any Trio task may call
the methods. It owns one SQLite file, a lock on its directory and one writer child. All
statements run in a thread, one at a time; callers that wait together share one
transaction. A call that has returned is on record even if the agent is killed right
then. A caller that is cancelled does not know: its call may still be done. When the disk
is full or the file at its bound, calls raise `JournalFull`, nothing on record is lost,
and the writer tries each second whether there is room again. The writer outlives whoever
uses the block: it is not cancelled before the block is left. Should it die, whoever waits
for it and whoever comes later gets `trio.BrokenResourceError`, shielded or not.

Power loss: with WAL and `synchronous=NORMAL` the kernel has every call that returned, the
disk perhaps not the last ones; the file stays consistent. So after a reboot a claim in
state `held` may have been started all the same: the boot id is on record with each, and
`Claim.may_have_started` says so. The epoch is synced to the disk when it is raised.
"""

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from attrs import define, field

from hetuflow.agent.journal import sql
from hetuflow.agent.journal.file import JournalFile, Statement
from hetuflow.agent.journal.lock import lock_directory
from hetuflow.agent.journal.model import (
  Claim,
  Entry,
  JournalFull,
  Recovered,
)

__all__ = ["Journal", "open_journal"]

LIMIT_BYTES = 256 * 1024 * 1024
PROBE_SECONDS = 1.0


@define(eq=False)
class _Call:
  """One caller's statements and what became of them."""

  statements: Sequence[Statement]
  done: trio.Event = field(factory=trio.Event)
  failure: Exception | None = None


class Journal:
  """The open journal; made by `open_journal`.

  `agent_id` is a UUID v7 made when the directory was first used, `epoch` counts the
  starts of this agent.
  """

  def __init__(self, file: JournalFile) -> None:
    self.agent_id = file.agent_id
    self.epoch = file.epoch
    self._file = file
    self._last_seq = file.last_seq
    self._thread = trio.CapacityLimiter(1)
    self._calls: list[_Call] = []
    self._called = trio.Event()
    self._over_limit = file.measure()
    self._disk_full = False
    self._writer = trio.CancelScope(shield=True)
    self._over = False

  @property
  def full(self) -> bool:
    """Whether to take no new claims: over the limit, or the last write found no room."""
    return self._over_limit or self._disk_full

  def load(self) -> Recovered:
    """Read all that is on record; blocks, so at the start only."""
    return self._file.load()

  async def hold(self, claims: Sequence[Claim]) -> None:
    """Record new claims; one that is held already is renewed, one further on is not.

    A claim whose state is `starting` is intended at the same time.

    Raises:
      JournalFull: there is no room, none of them is on record.
    """
    if self._over_limit:
      raise JournalFull("the journal is at its limit until reports are acknowledged")
    await self._write(*self._file.holding(claims))

  async def intend(self, instance_ids: Iterable[str]) -> None:
    """Record that processes are about to be started; before the spawn."""
    await self._write((sql.INTEND, _as_json(list(instance_ids))))

  async def spawned(self, processes: Iterable[tuple[str, int, int]]) -> None:
    """Record running processes as `(instance_id, pid, pid_start_time)`."""
    notes = {instance_id: (pid, start) for instance_id, pid, start in processes}
    await self._write((sql.SPAWNED, _as_json(notes)))

  async def finish(self, entries: Iterable[Entry]) -> list[Entry]:
    """Record results and that their claims are finished, at once; return them numbered.

    The claim stays, `finished`, until all reports of its instance are acknowledged.
    """
    numbered = self._number(entries)
    keys = _as_json([entry.instance_id for entry in numbered])
    await self._write((sql.FINISH, keys), _appending(numbered))
    return numbered

  async def append(self, entries: Iterable[Entry]) -> list[Entry]:
    """Record reports; return them numbered, in the order given."""
    numbered = self._number(entries)
    await self._write(_appending(numbered))
    return numbered

  async def acknowledge(self, seqs: Iterable[int]) -> None:
    """Forget reports that the server has, and finished claims without any left."""
    numbers = _as_json(list(seqs))
    await self._write((sql.ACKNOWLEDGE, numbers), (sql.FORGET, [()]))

  async def release(self, instance_ids: Iterable[str]) -> None:
    """Forget claims, whatever their state; their reports stay."""
    await self._write((sql.RELEASE, _as_json(list(instance_ids))))

  def _number(self, entries: Iterable[Entry]) -> list[Entry]:
    """Give each entry the next number; the queue keeps their order."""
    numbered = []
    for entry in entries:
      self._last_seq += 1
      numbered.append(  # attrs.evolve takes six times as long
        Entry(
          instance_id=entry.instance_id,
          kind=entry.kind,
          payload=entry.payload,
          seq=self._last_seq,
        )
      )
    return numbered

  async def _write(self, *statements: Statement) -> None:
    """Have the writer run statements in one transaction; return when they are on record.

    Raises:
      trio.BrokenResourceError: there is no writer any more.
    """
    if self._over:
      raise trio.BrokenResourceError("the journal is closed")
    call = _Call(statements)
    self._calls.append(call)
    self._called.set()
    await call.done.wait()
    if call.failure is not None:
      raise call.failure

  async def _run(self) -> None:
    """Write what callers have gathered until `_end`; then nobody is left waiting."""
    try:
      with self._writer:
        while True:
          await self._wait_calls()
          await self.write_once()
    finally:
      self._over = True
      for call in self._calls:
        call.failure = trio.BrokenResourceError("the journal's writer has died")
        call.done.set()

  async def _wait_calls(self) -> None:
    """Wait for callers; after a while without room, look whether there is some again."""
    with trio.move_on_after(PROBE_SECONDS if self._disk_full else float("inf")):
      await self._called.wait()
    if not self._calls:
      self._calls.append(_Call([(sql.PROBE, [(str(self.epoch),)])]))

  def _end(self) -> None:
    """End the writer."""
    self._writer.cancel()

  async def write_once(self) -> int:
    """Write what is waiting in one transaction; return how many calls that were."""
    calls, self._calls = self._calls, []
    self._called = trio.Event()
    try:
      # A thread is never abandoned, so whoever waits learns how its call went.
      failures, self._over_limit = await trio.to_thread.run_sync(
        self._apply, [call.statements for call in calls], limiter=self._thread
      )
    except BaseException:
      self._calls = calls + self._calls
      raise
    self._disk_full = any(isinstance(each, JournalFull) for each in failures)
    for call, failure in zip(calls, failures, strict=True):
      call.failure = failure
      call.done.set()
    return len(calls)

  def _apply(
    self, batch: list[Sequence[Statement]]
  ) -> tuple[list[Exception | None], bool]:
    """Write a batch and measure the file, in the thread."""
    return self._file.apply(batch), self._file.measure()


def _as_json(value: object) -> list[tuple[str]]:
  """Make the one row of a statement that takes all it needs as one JSON value."""
  return [(json.dumps(value),)]


def _appending(entries: list[Entry]) -> Statement:
  """Make the statement that stores numbered entries."""
  rows = [(e.seq, e.instance_id, e.kind, e.payload) for e in entries]
  return (sql.APPEND, rows)


@asynccontextmanager
async def open_journal(
  directory: Path | str, limit_bytes: int = LIMIT_BYTES
) -> AsyncIterator[Journal]:
  """Open the journal in a directory for the block, alone.

  Args:
    directory: the agent's own; made with mode 0700, the files in it with 0600.
    limit_bytes: size from which on no claims are taken. Reports are, up to twice that.

  Raises:
    Refused: another agent has the directory open; says its process id. Or another
      version of the agent has written the journal.
    JournalFull: the disk is too full to open it.
  """
  with lock_directory(Path(directory)):
    path = Path(directory) / "journal.db"
    file = await trio.to_thread.run_sync(JournalFile, path, limit_bytes)
    try:
      journal = Journal(file)
      async with trio.open_nursery() as nursery:
        nursery.start_soon(journal._run)
        try:
          yield journal
        finally:
          journal._end()
    finally:
      file.close()
