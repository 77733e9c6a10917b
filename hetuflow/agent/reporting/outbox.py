"""What the server has still to learn, until it says that it has committed it.

Who runs it: one child of the agent's tree pumps two lanes, updates and output; anybody in
the Trio thread adds to them. It owns what waits and what is in flight; the journal has a
copy of every result, and of the output that was not acknowledged when its attempt ended.
When the server goes away everything waits and is sent to the next one, in order. When the
agent dies, results are read from the journal at its next start; output of a process that
had not ended is lost with the process.

Invariants
- The result of an attempt is in the journal before it is sent, together with all of its
  output that the server does not have.
- Output of an attempt is sent before its result.
- Live output in memory is bounded; beyond the bound ``add_chunk`` waits, which fills the
  process's pipe and stops it.
- Nothing is given up: a message without an ack is sent again at most a minute later.
"""

from collections.abc import Callable, Sequence
from uuid import UUID

import structlog
import trio

from hetuflow.agent.instances import Instance, Instances, Stage
from hetuflow.agent.journal import Entry, Journal, JournalFull
from hetuflow.agent.link.link import Link, Session
from hetuflow.agent.process.chunks import Chunk
from hetuflow.agent.reporting.backlog import Backlog
from hetuflow.agent.reporting.lane import Lane, Report
from hetuflow.agent.reporting.reports import Outcome, make_update
from hetuflow.agent.reporting.sweeper import Sweeper
from hetuflow.nursery import Backoff, Outage
from hetuflow.protocol import wire
from hetuflow.protocol.messages import Ack, AckOutcome, Envelope, LogChunk, MessageKind
from hetuflow.protocol.states import LogStream, TaskInstanceStatus

__all__ = ["Outbox"]

FLUSH_SECONDS = 5.0
CHUNK_OVERHEAD_BYTES = 256

_UPDATE = MessageKind.TASK_INSTANCE_UPDATE
_LOG = MessageKind.TASK_LOG

_log = structlog.get_logger()


class Outbox:
  """Keeps and sends reports.

  Args:
    link: where the session is.
    journal: keeps results over restarts.
    instances: the ledger; an attempt is forgotten when its result is acknowledged.
    buffer_bytes: how much live output may wait in memory.
    supersede: told of attempts that are no longer ours.
  """

  def __init__(
    self,
    *,
    link: Link,
    journal: Journal,
    instances: Instances,
    buffer_bytes: int,
    supersede: Callable[[Sequence[UUID]], None],
  ) -> None:
    self._link = link
    self._journal = journal
    self._instances = instances
    self._supersede = supersede
    self._updates = Lane(_UPDATE, "updates")
    self._chunks = Lane(_LOG, "chunks")
    self._backlog = Backlog(buffer_bytes)
    self._sweeper = Sweeper(journal)
    self._unsent_starts: dict[UUID, Report] = {}
    self._emptied = trio.Event()
    self._outage = Outage(
      JournalFull, event="journal_full", backoff=Backoff(maximum=1.0)
    )

  def __len__(self) -> int:
    return len(self._updates) + len(self._chunks) + self._backlog.parked

  # ── what is to be said ──────────────────────────────────────────────────────────────

  def recover(self, entries: Sequence[Entry]) -> None:
    """Take up what an earlier start of the agent has not got rid of, in its order."""
    for entry in entries:
      report = Report(
        instance_id=UUID(entry.instance_id),
        key=entry.instance_id,
        body=entry.payload,
        seq=entry.seq,
        final=entry.kind != _LOG,
      )
      if entry.kind == _LOG:
        self._queue_chunk(report)
      else:
        self._queue_result(report)

  def note_started(self, instance: Instance, started_at: float) -> None:
    """Report that an attempt runs: a courtesy, dropped if the result overtakes it."""
    outcome = Outcome(status=TaskInstanceStatus.RUNNING, started_at=started_at)
    body = wire.encode(make_update(instance, outcome))
    report = Report(instance_id=instance.id, key=instance.key, body=body)
    self._unsent_starts[instance.id] = report
    self._updates.add(report)

  def add_chunk_nowait(self, instance: Instance, chunk: Chunk) -> None:
    """Send a piece of output.

    Raises:
      trio.WouldBlock: there is no room for more.
    """
    if self._backlog.full:
      raise trio.WouldBlock
    task = instance.task
    data, encoding = wire.encode_data(chunk.data)
    piece = LogChunk(
      instance_id=task.instance_id,
      namespace_id=task.namespace_id,
      claim_token=task.claim_token,
      stream=LogStream(chunk.stream),
      offset=chunk.offset,
      data=data,
      encoding=encoding,
    )
    body = wire.encode(piece)
    size = len(body) + CHUNK_OVERHEAD_BYTES
    self._queue_chunk(
      Report(instance_id=instance.id, key=instance.key, body=body, size=size)
    )

  async def add_chunk(self, instance: Instance, chunk: Chunk) -> None:
    """Send a piece of output, waiting for room."""
    while True:
      try:
        return self.add_chunk_nowait(instance, chunk)
      except trio.WouldBlock:
        await self._backlog.wait_room()

  async def finish(self, results: Sequence[tuple[Instance, Outcome]]) -> None:
    """Put results on record, then report them; waits for as long as the journal is full.

    Args:
      results: attempts that have ended, and how; those superseded by now are left out.
    """
    results = [each for each in results if each[0].stage is not Stage.GONE]
    reports = [_final(instance, outcome) for instance, outcome in results]
    if not reports:
      return

    async def record() -> None:
      """Record results and the output that the server does not have by now."""
      ids = [instance.id for instance, _ in results]
      await self._record([*self._backlog.unrecorded(ids), *reports])

    await self._outage.retry(record)
    for (instance, _), report in zip(results, reports, strict=True):
      if instance.stage is Stage.GONE:
        self._drop(report)
        continue
      self._instances.move(instance, Stage.FINISHED)
      if (start := self._unsent_starts.pop(instance.id, None)) is not None:
        start.void = True
      self._queue_result(report)

  def forget(self, instance: Instance) -> None:
    """Drop whatever is left to say about a superseded attempt, and its claim."""
    self._sweeper.add_claim(instance.key)
    self._unsent_starts.pop(instance.id, None)
    for report in self._updates.void(instance.id) + self._backlog.drop(instance.id):
      report.void = True
      self._drop(report)

  # ── what was acknowledged ───────────────────────────────────────────────────────────

  def note_ack(self, envelope: Envelope) -> None:
    """Take in that a message was committed, and what the server thought of it."""
    ack: Ack = envelope.payload
    for lane in (self._updates, self._chunks):
      if (reports := lane.land(ack.message_id)) is not None:
        break
    else:
      return
    for report in reports:
      self._settle(report)
    stale = [r.instance_id for r in ack.results if r.outcome is AckOutcome.STALE]
    for result in ack.results:
      if result.outcome is not AckOutcome.DUPLICATE:
        outcome = result.outcome.value
        _log.warning(
          "report_refused", instance=str(result.instance_id), outcome=outcome
        )
    if stale:
      self._supersede(stale)
    if not len(self):
      self._emptied.set()

  def _settle(self, report: Report) -> None:
    """Let go of one acknowledged report."""
    self._drop(report)
    if report.final:
      instance = self._instances.get(report.instance_id)
      if instance is not None:
        self._instances.forget(instance)
      return
    self._backlog.settle(report)

  def _drop(self, report: Report) -> None:
    """Free what a report takes up, in memory and in the journal; once."""
    if report.done:
      return
    report.done = True
    self._backlog.free(report)
    if report.seq:
      self._sweeper.add_report(report.seq)

  # ── queues ──────────────────────────────────────────────────────────────────────────

  def _queue_chunk(self, report: Report) -> None:
    """Let a piece of output wait to be sent."""
    self._backlog.add(report)
    self._chunks.add(report)

  def _queue_result(self, report: Report) -> None:
    """Let a result wait to be sent: behind its output, if that waits too."""
    if not self._backlog.park(report):
      self._updates.add(report)

  async def _record(self, reports: list[Report]) -> None:
    """Write reports to the journal; once begun it is not cancelled, so it is known."""
    entries = [
      Entry(
        instance_id=report.key,
        kind=_UPDATE if report.final else _LOG,
        payload=report.body,
      )
      for report in reports
    ]
    with trio.CancelScope(shield=True):
      numbered = await self._journal.finish(entries)
    for report, entry in zip(reports, numbered, strict=True):
      report.seq = entry.seq
      if report.done:  # acknowledged in the meantime
        self._sweeper.add_report(entry.seq)

  # ── the child ───────────────────────────────────────────────────────────────────────

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Send and forget, for ever."""
    async with trio.open_nursery() as nursery:
      nursery.start_soon(self._sweeper.run)
      task_status.started()
      await self._link.each_session(self._serve)

  async def drain(self) -> None:
    """Give the server a while to acknowledge what there is, if there is a server."""
    with trio.move_on_after(FLUSH_SECONDS):
      while len(self) and self._link.online:
        self._emptied = trio.Event()
        with trio.move_on_after(0.5):
          await self._emptied.wait()
    await self._sweeper.sweep_once()

  async def _serve(self, session: Session) -> None:
    """Send again what is in flight, output first, then what waits."""
    now = trio.current_time()
    await self._chunks.send_all_again(session, now)
    await self._updates.send_all_again(session, now)
    async with trio.open_nursery() as nursery:
      nursery.start_soon(self._chunks.pump, session, self._let_results_follow)
      nursery.start_soon(self._updates.pump, session, self._note_updates_sent)

  def _let_results_follow(self, chunks: Sequence[Report]) -> None:
    """Queue the results whose last output is being sent."""
    for chunk in chunks:
      result = self._backlog.note_sent(chunk)
      if result is not None:
        self._updates.add(result)

  def _note_updates_sent(self, updates: Sequence[Report]) -> None:
    """Note that these are no longer to be dropped should a result overtake them."""
    for update in updates:
      self._unsent_starts.pop(update.instance_id, None)


def _final(instance: Instance, outcome: Outcome) -> Report:
  """Make the report of a result."""
  body = wire.encode(make_update(instance, outcome))
  return Report(instance_id=instance.id, key=instance.key, body=body, final=True)
