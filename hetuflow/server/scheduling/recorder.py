"""What agents report becomes rows, in batches, and is acknowledged once committed.

Run by: one child of each server. Owns the queue of reports that sessions have received
and nobody has written. While one batch is written the next one gathers, so that batches
are as large as the load and a lone report waits for nothing.

If the database is away the batch is tried again until it is back; reports gather, and
the agents, who get no ack, stop sending at their own limit. What they send again in the
meantime takes the place of what still waits. If the server dies the
agents send everything again to the next one: what was written already is a duplicate.

A batch that the database refuses for its data is halved until the bad report is alone;
that one is kept as a dead letter and answered ``invalid``.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar
from uuid import UUID

import attrs
import structlog
import trio

from hetuflow.errors import StorageError, Unavailable
from hetuflow.nursery import Outage, Wakeup
from hetuflow.protocol.messages import (
  Ack,
  AckOutcome,
  AckResult,
  MessageKind,
  TaskInstanceUpdate,
)
from hetuflow.protocol.model import AgentId, InstanceId, NamespaceId
from hetuflow.protocol.states import TaskInstanceStatus
from hetuflow.server.session import Session
from hetuflow.storage.connect import Database
from hetuflow.storage.dead_letters import bury
from hetuflow.storage.logs import LogWrite, append_chunks
from hetuflow.storage.transitions import record_updates

__all__ = ["Recorder", "Report", "merge_updates"]

BATCH_ROWS = 500
"""Rows of one statement; one that takes longer than the database allows would be tried
again for ever."""
BATCH_BYTES = 4 * 1024**2

Row = TypeVar("Row", TaskInstanceUpdate, LogWrite)
Outcomes = dict[UUID, AckOutcome]

_log = structlog.get_logger()


@attrs.frozen(kw_only=True)
class Report:
  """One message of an agent: updates or pieces of output, each with its namespace."""

  session: Session
  message_id: UUID
  updates: Sequence[TaskInstanceUpdate] = ()
  chunks: Sequence[tuple[NamespaceId, LogWrite]] = ()

  @property
  def key(self) -> tuple[AgentId, UUID]:
    """What it is known by when it comes again, also in another session."""
    return self.session.agent_id, self.message_id

  @property
  def size(self) -> tuple[int, int]:
    """Rows and bytes."""
    rows = len(self.updates) + len(self.chunks)
    return rows, sum(len(chunk.data) for _, chunk in self.chunks)


@attrs.define(kw_only=True)
class RecordStatistics:
  """What the recorder has done: counts, and the seconds of the statements."""

  batches: int = 0
  updates: int = 0
  chunks: int = 0
  buried: int = 0
  seconds: float = 0.0


class Recorder:
  """The one writer of reports of a server.

  Args:
    database: where to write.
  """

  def __init__(self, database: Database) -> None:
    self._database = database
    self._queue: dict[tuple[AgentId, UUID], Report] = {}
    self._wakeup = Wakeup()
    self._idle = trio.Event()
    self._outage = Outage(Unavailable, event="recorder_waits_for_database")
    self.statistics = RecordStatistics()

  def submit(self, report: Report) -> None:
    """Take a report; it is acknowledged on its session once it is committed."""
    self._queue[report.key] = report
    self._wakeup.set()

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Write for ever."""
    task_status.started()
    while True:
      while self._queue:
        await self.record_once()
      self._idle.set()
      await self._wakeup.wait()
      self._idle = trio.Event()

  async def drain(self) -> None:
    """Wait until everything that was received is written."""
    while self._queue:
      await self._idle.wait()

  async def record_once(self) -> int:
    """Write one batch and acknowledge its messages; return how many there were."""
    batch = self._gather()
    started = trio.current_time()
    # Output first: an update may end the instance that the output belongs to.
    await self._write_chunks(batch)
    outcomes = await self._write_updates(batch)
    self.statistics.batches += 1
    self.statistics.seconds += trio.current_time() - started
    for report in batch:
      # Only now: what is cancelled in between is written again and is a duplicate then.
      # If it has come again meanwhile, the answer goes where the agent is by now.
      last = self._queue.pop(report.key)
      last.session.send(MessageKind.ACK, _ack(report, outcomes))
    return len(batch)

  def _gather(self) -> list[Report]:
    """Look at as many waiting messages as one statement takes well."""
    batch: list[Report] = []
    rows = size = 0
    for report in self._queue.values():
      more_rows, more_size = report.size
      if batch and (rows + more_rows > BATCH_ROWS or size + more_size > BATCH_BYTES):
        break
      batch.append(report)
      rows, size = rows + more_rows, size + more_size
    return batch

  async def _write_chunks(self, batch: Sequence[Report]) -> None:
    """Write the output of a batch, each piece once."""
    pieces: dict[NamespaceId, dict[tuple[object, ...], LogWrite]] = {}
    for report in batch:
      for namespace_id, chunk in report.chunks:
        key = (chunk.instance_id, chunk.claim_token, chunk.stream, chunk.offset)
        pieces.setdefault(namespace_id, {})[key] = chunk
    for namespace_id, unique in pieces.items():
      self.statistics.chunks += len(unique)

      async def write(
        rows: Sequence[LogWrite], namespace_id: NamespaceId = namespace_id
      ) -> Outcomes:
        """Write some pieces; those of superseded claims are left out in silence."""
        await append_chunks(self._database, namespace_id, rows)
        return {}

      await self._halving(list(unique.values()), write)

  async def _write_updates(self, batch: Sequence[Report]) -> Outcomes:
    """Write the updates of a batch, one per instance, and tell what was not accepted."""
    outcomes: Outcomes = {}
    updates = [update for report in batch for update in report.updates]
    for namespace_id, merged in merge_updates(updates).items():
      self.statistics.updates += len(merged)

      async def write(
        rows: Sequence[TaskInstanceUpdate], namespace_id: NamespaceId = namespace_id
      ) -> Outcomes:
        """Write some updates."""
        return await record_updates(self._database, namespace_id, rows)

      outcomes |= await self._halving(merged, write)
    return outcomes

  async def _halving(
    self, rows: Sequence[Row], write: Callable[[Sequence[Row]], Awaitable[Outcomes]]
  ) -> Outcomes:
    """Write rows, too many in parts; of those refused for their data bury the bad one."""

    async def step() -> Outcomes:
      """Try once; the outage repeats it while the database is away."""
      return await write(rows)

    if len(rows) > BATCH_ROWS:
      return await self._halves(rows, write)
    try:
      return await self._outage.retry(step)
    except StorageError as error:
      if len(rows) == 1:
        await self._bury(rows[0], str(error))
        return {rows[0].instance_id: AckOutcome.INVALID}
    return await self._halves(rows, write)

  async def _halves(
    self, rows: Sequence[Row], write: Callable[[Sequence[Row]], Awaitable[Outcomes]]
  ) -> Outcomes:
    """Write rows in two parts."""
    middle = len(rows) // 2
    first = await self._halving(rows[:middle], write)
    return first | await self._halving(rows[middle:], write)

  async def _bury(self, row: TaskInstanceUpdate | LogWrite, reason: str) -> None:
    """Keep a report that cannot be written as a dead letter."""
    self.statistics.buried += 1
    _log.error("report_refused", instance=str(row.instance_id), reason=reason)
    kind = (
      MessageKind.TASK_INSTANCE_UPDATE
      if isinstance(row, TaskInstanceUpdate)
      else MessageKind.TASK_LOG
    )

    async def step() -> None:
      """Try once."""
      await bury(
        self._database, kind=kind, agent_id=None, reason=reason, payload=repr(row)
      )

    await self._outage.retry(step)


def merge_updates(
  updates: Sequence[TaskInstanceUpdate],
) -> dict[NamespaceId, list[TaskInstanceUpdate]]:
  """Keep the last word on each attempt, with the start that an earlier one told.

  Args:
    updates: in the order in which they were reported.

  Returns:
    Per namespace at most one update per instance and claim.
  """
  merged: dict[NamespaceId, dict[tuple[UUID, UUID], TaskInstanceUpdate]] = {}
  for update in updates:
    of_namespace = merged.setdefault(update.namespace_id, {})
    # By claim too: what a stranger says of an instance must not stand for the truth.
    key = update.instance_id, update.claim_token
    known = of_namespace.get(key)
    if known is None:
      of_namespace[key] = update
    elif known.status is not TaskInstanceStatus.RUNNING:
      continue  # the end has been told; what follows is a repetition
    elif update.started_at is None:
      of_namespace[key] = attrs.evolve(update, started_at=known.started_at)
    else:
      of_namespace[key] = update
  return {name: list(rows.values()) for name, rows in merged.items()}


def _ack(report: Report, outcomes: Outcomes) -> Ack:
  """Make the answer to one message, naming only what was not simply accepted."""
  if not outcomes:
    return Ack(message_id=report.message_id)
  return Ack(
    message_id=report.message_id,
    results=[
      AckResult(instance_id=InstanceId(key), outcome=outcomes[key])
      for key in dict.fromkeys(_instances(report))
      if key in outcomes
    ],
  )


def _instances(report: Report) -> Iterator[InstanceId]:
  """Yield the instances that a message speaks of."""
  yield from (update.instance_id for update in report.updates)
  yield from (chunk.instance_id for _, chunk in report.chunks)
