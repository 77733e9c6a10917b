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
from attrs import define, field

from hetuflow.agent.instances import Instance, Instances, Stage
from hetuflow.agent.journal import Entry, Journal, JournalFull
from hetuflow.agent.lane import Flight, Lane, Report
from hetuflow.agent.link import Link, Session
from hetuflow.agent.output import Chunk
from hetuflow.agent.reports import Outcome, make_update
from hetuflow.nursery import Backoff, Outage, Wakeup
from hetuflow.protocol import wire
from hetuflow.protocol.messages import Ack, AckOutcome, Envelope, LogChunk, MessageKind
from hetuflow.protocol.states import LogStream, TaskInstanceStatus

__all__ = ["Outbox"]

GATHER_SECONDS = 0.005
FLUSH_SECONDS = 5.0
WARN_SENDS = 5
CHUNK_OVERHEAD_BYTES = 256

_UPDATE = MessageKind.TASK_INSTANCE_UPDATE
_LOG = MessageKind.TASK_LOG

_log = structlog.get_logger()


@define(eq=False)
class _Output:
  """The output of one attempt that is not acknowledged, and the result behind it."""

  reports: list[Report] = field(factory=list)
  unsent: int = 0
  result: Report | None = None


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
    self._buffer_bytes = buffer_bytes
    self._supersede = supersede
    self._updates = Lane(_UPDATE, "updates")
    self._chunks = Lane(_LOG, "chunks")
    self._outputs: dict[UUID, _Output] = {}
    self._unsent_starts: dict[UUID, Report] = {}
    self._buffered = 0
    self._room = trio.Event()
    self._forgettable: list[int] = []
    self._superseded: list[str] = []
    self._forget = Wakeup()
    self._emptied = trio.Event()
    self._outage = Outage(
      JournalFull, event="journal_full", backoff=Backoff(maximum=1.0)
    )

  def __len__(self) -> int:
    parked = sum(each.result is not None for each in self._outputs.values())
    return len(self._updates) + len(self._chunks) + parked

  # ── what is to be said ──────────────────────────────────────────────────────────────

  def recover(self, entries: Sequence[Entry]) -> None:
    """Take up what an earlier start of the agent has not got rid of, in its order."""
    for entry in entries:
      identity = UUID(entry.instance_id)
      if entry.kind == _LOG:
        report = Report(instance_id=identity, body=entry.payload, seq=entry.seq)
        self._queue_chunk(report)
      else:
        self._queue_result(
          Report(instance_id=identity, body=entry.payload, seq=entry.seq, final=True)
        )

  def note_started(self, instance: Instance, started_at: float) -> None:
    """Report that an attempt runs: a courtesy, dropped if the result overtakes it."""
    outcome = Outcome(status=TaskInstanceStatus.RUNNING, started_at=started_at)
    body = wire.encode(make_update(instance, outcome))
    report = Report(instance_id=instance.id, body=body)
    self._unsent_starts[instance.id] = report
    self._updates.add(report)

  def add_chunk_nowait(self, instance: Instance, chunk: Chunk) -> None:
    """Send a piece of output.

    Raises:
      trio.WouldBlock: there is no room for more.
    """
    if self._buffered >= self._buffer_bytes:
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
    self._queue_chunk(Report(instance_id=instance.id, body=body, size=size))

  async def add_chunk(self, instance: Instance, chunk: Chunk) -> None:
    """Send a piece of output, waiting for room."""
    while True:
      try:
        return self.add_chunk_nowait(instance, chunk)
      except trio.WouldBlock:
        await self._room.wait()

  async def finish(self, results: Sequence[tuple[Instance, Outcome]]) -> None:
    """Put results on record, then report them; waits for as long as the journal is full.

    Args:
      results: attempts that have ended, and how; those superseded by now are left out.
    """
    results = [each for each in results if each[0].stage is not Stage.GONE]
    reports = [_final(instance, outcome) for instance, outcome in results]
    durable = [*self._unrecorded_output(results), *reports]
    if not durable:
      return
    await self._outage.retry(lambda: self._record(durable))
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
    identity = instance.id
    self._superseded.append(instance.key)
    self._forget.set()
    self._updates.void(identity)
    self._unsent_starts.pop(identity, None)
    if (output := self._outputs.pop(identity, None)) is not None:
      for report in output.reports:
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
    output = self._outputs.get(report.instance_id)
    if output is not None and report in output.reports:
      output.reports.remove(report)
      if not output.reports and output.result is None:
        del self._outputs[report.instance_id]

  def _drop(self, report: Report) -> None:
    """Free what a report takes up, in memory and in the journal; once."""
    if report.done:
      return
    report.done = True
    if report.size:
      self._buffered -= report.size
      self._room.set()
      self._room = trio.Event()
    if report.seq:
      self._forgettable.append(report.seq)
      self._forget.set()

  # ── queues ──────────────────────────────────────────────────────────────────────────

  def _queue_chunk(self, report: Report) -> None:
    """Let a piece of output wait to be sent."""
    output = self._outputs.setdefault(report.instance_id, _Output())
    output.reports.append(report)
    output.unsent += 1
    self._buffered += report.size
    self._chunks.add(report)

  def _queue_result(self, report: Report) -> None:
    """Let a result wait to be sent: behind its output, if that waits too."""
    output = self._outputs.get(report.instance_id)
    if output is not None and output.unsent:
      output.result = report
    else:
      self._updates.add(report)

  def _unrecorded_output(
    self, results: Sequence[tuple[Instance, Outcome]]
  ) -> list[Report]:
    """List the output of attempts that neither the server nor the journal has."""
    if not self._outputs:
      return []
    return [
      report
      for instance, _ in results
      if (output := self._outputs.get(instance.id)) is not None
      for report in output.reports
      if not report.seq
    ]

  async def _record(self, reports: list[Report]) -> None:
    """Write reports to the journal; once begun it is not cancelled, so it is known."""
    entries = [
      Entry(
        instance_id=str(report.instance_id),
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
        self._forgettable.append(entry.seq)
        self._forget.set()

  # ── the child ───────────────────────────────────────────────────────────────────────

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Send and forget, for ever."""
    async with trio.open_nursery() as nursery:
      nursery.start_soon(self._forget_for_ever)
      task_status.started()
      await self._link.each_session(self._serve)

  async def drain(self) -> None:
    """Give the server a while to acknowledge what there is, if there is a server."""
    with trio.move_on_after(FLUSH_SECONDS):
      while len(self) and self._link.online:
        self._emptied = trio.Event()
        with trio.move_on_after(0.5):
          await self._emptied.wait()
    await self._forget_once()

  async def _serve(self, session: Session) -> None:
    """Send again what is in flight, output first, then what waits."""
    now = trio.current_time()
    await self._chunks.send_all_again(session, now)
    await self._updates.send_all_again(session, now)
    async with trio.open_nursery() as nursery:
      nursery.start_soon(self._pump, session, self._chunks)
      nursery.start_soon(self._pump, session, self._updates)

  async def _pump(self, session: Session, lane: Lane) -> None:
    """Send what waits on a lane and repeat what is overdue, until cancelled."""
    while True:
      while lane.may_take:
        if lane.flights and not lane.has_batch:
          await trio.sleep(GATHER_SECONDS)
        await self.send_once(session, lane)
      now = trio.current_time()
      for flight in lane.overdue(now):
        await self._send_again(session, lane, flight)
      await lane.wakeup.wait(max(0.0, lane.next_resend_at() - trio.current_time()))

  async def send_once(self, session: Session, lane: Lane) -> int:
    """Send one message of what waits on a lane; return how many reports are in it."""
    flight = lane.take()
    if flight is None:
      return 0
    for report in flight.reports:
      self._note_sent(report)
    await lane.send(session, flight, trio.current_time())
    return len(flight.reports)

  def _note_sent(self, report: Report) -> None:
    """Let a result follow when the last of its output has gone."""
    if report.final:
      return
    identity = report.instance_id
    if self._unsent_starts.get(identity) is report:
      del self._unsent_starts[identity]
      return
    output = self._outputs.get(identity)
    if output is None or report not in output.reports:
      return
    output.unsent -= 1
    if not output.unsent and output.result is not None:
      result, output.result = output.result, None
      self._updates.add(result)

  async def _send_again(self, session: Session, lane: Lane, flight: Flight) -> None:
    """Repeat a message whose ack is overdue."""
    if flight.sends >= WARN_SENDS:
      _log.warning(
        "report_unacknowledged",
        message_id=str(flight.message_id),
        kind=lane.kind.value,
        sends=flight.sends,
      )
    await lane.send(session, flight, trio.current_time())

  async def _forget_for_ever(self) -> None:
    """Clear the journal of what was acknowledged, as it comes."""
    while True:
      await self._forget.wait()
      await self._forget_once()

  async def _forget_once(self) -> int:
    """Clear the journal of what is of no use any more; return how much that was."""
    seqs, self._forgettable = self._forgettable, []
    keys, self._superseded = self._superseded, []
    if keys:
      await self._outage.retry(lambda: self._journal.release(keys))
    if seqs:
      await self._outage.retry(lambda: self._journal.acknowledge(seqs))
    return len(seqs) + len(keys)


def _final(instance: Instance, outcome: Outcome) -> Report:
  """Make the report of a result."""
  body = wire.encode(make_update(instance, outcome))
  return Report(instance_id=instance.id, body=body, final=True)
