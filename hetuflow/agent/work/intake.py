"""What is dispatched to this agent: on record first, then placed, then acknowledged.

Who runs it: the connection runs ``run`` beside its sessions and calls ``note_dispatch``
for each batch; the wheel's drain gives back what waits. It owns the batches that are not
on record yet. A batch that comes twice is acknowledged twice and taken once: whether a
task is known is decided the moment the batch is read. A server that does not take the
acknowledgement holds up the next batch, not what is due.

A batch that cannot be recorded is not acknowledged: the server sends it again, or gives
its tasks to others. But if its session is over by then, a later registration may have
named its tasks as held, so they are given back in words.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence

import structlog
import trio
from attrs import frozen

from hetuflow.agent.instances import Instance, Instances, Stage
from hetuflow.agent.journal import Journal, JournalFull
from hetuflow.agent.link.link import Link, Session
from hetuflow.agent.timing.clock import DisciplinedClock
from hetuflow.agent.timing.wheel import WheelDriver
from hetuflow.agent.work.claims import make_claims, unknown_job
from hetuflow.agent.work.executor import Executor
from hetuflow.nursery import Wakeup
from hetuflow.protocol.messages import (
  Ack,
  DispatchTaskRequest,
  Envelope,
  MessageKind,
)
from hetuflow.protocol.states import TaskInstanceStatus

__all__ = ["Intake"]

SHUTS_DOWN = "the agent shuts down"
JOURNAL_FULL = "the agent's journal is full"
WITHOUT_CONFIG = "dispatched without its configuration"

_log = structlog.get_logger()


@frozen
class _Batch:
  """What is new in one message, and whom to tell when it is on record."""

  envelope: Envelope
  instances: list[Instance]
  session: Session | None


class Intake:
  """Takes tasks in and gives them back.

  Args:
    link: where acks go.
    journal: has each task on record before it is acknowledged.
    instances: the ledger.
    clock: says what is due.
    wheel: keeps what is not.
    executor: takes what is, and reports what is given back.
    note_dispatched: told how much of the run and hold budgets was used.
  """

  def __init__(
    self,
    *,
    link: Link,
    journal: Journal,
    instances: Instances,
    clock: DisciplinedClock,
    wheel: WheelDriver[Instance],
    executor: Executor,
    note_dispatched: Callable[[int, int], None],
  ) -> None:
    self._link = link
    self._journal = journal
    self._instances = instances
    self._clock = clock
    self._wheel = wheel
    self._executor = executor
    self._note_dispatched = note_dispatched
    self._batches: deque[_Batch] = deque()
    self._wakeup = Wakeup()
    self._draining = False

  def note_dispatch(self, envelope: Envelope) -> None:
    """Take up a batch; from here on its tasks are ours to answer for."""
    request: DispatchTaskRequest = envelope.payload
    new = []
    for task in request.tasks:
      job = request.configs.get(task.config)
      instance = self._instances.admit(task, job or unknown_job(task.config))
      if instance is None:
        continue
      new.append(instance)
      if job is None:
        _log.error("dispatch_without_config", instance=instance.key)
        self._executor.refuse(instance, TaskInstanceStatus.FAILED, WITHOUT_CONFIG)
    self._book(new)
    self._batches.append(_Batch(envelope, new, self._link.session))
    self._wakeup.set()

  def _book(self, instances: Sequence[Instance], *, sign: int = 1) -> None:
    """Book that these have used up what was granted; with a sign of -1 that they will."""
    held = sum(each.task.held for each in instances)
    self._note_dispatched(sign * (len(instances) - held), sign * held)

  async def run(self) -> None:
    """Put on record, acknowledge and place, batch by batch, for ever."""
    while True:
      while self._batches:
        await self.take_once()
      await self._wakeup.wait()

  async def take_once(self) -> int:
    """Deal with the oldest batch; return how many tasks were taken in."""
    batch = self._batches.popleft()
    # What was cancelled or superseded since it was read must not come on record now.
    instances = _waiting(batch.instances)
    if not await self._hold(instances, batch.session):
      return 0
    if not self._draining:
      self.place(instances)
    if batch.session is not None:
      ack = Ack(message_id=batch.envelope.message_id)
      await batch.session.send(MessageKind.ACK, ack)
    if self._draining:
      await self._executor.release(instances, SHUTS_DOWN)
    return len(instances)

  async def _hold(self, instances: Sequence[Instance], session: Session | None) -> bool:
    """Put attempts on record; False if there is no room for them."""
    if not instances:
      return True
    self._intend(instances)
    try:
      # Once begun it is not cancelled, so that it is known whether they are on record.
      with trio.CancelScope(shield=True):
        await self._journal.hold(make_claims(instances))
    except JournalFull as problem:
      _log.warning("dispatch_refused", tasks=len(instances), reason=str(problem))
      self._turn_away(instances, session)
      return False
    except BaseException:
      self._disown(instances)
      raise
    return True

  def _turn_away(self, instances: Sequence[Instance], session: Session | None) -> None:
    """Let go of attempts that could not be put on record."""
    if session is not None and not session.ended.is_set():
      self._disown(instances)
      self._book(instances, sign=-1)  # they will be sent again on the same grant
      return
    for instance in _waiting(instances):
      self._executor.refuse(instance, TaskInstanceStatus.RELEASED, JOURNAL_FULL)

  def _disown(self, instances: Sequence[Instance]) -> None:
    """Forget attempts that only the session they came with knows of."""
    for instance in instances:
      self._instances.disown(instance)

  def _intend(self, instances: Sequence[Instance]) -> None:
    """Mark what will start as soon as it is on record: that saves a transaction."""
    now, free = self._clock.now(), self._executor.free
    for instance in instances:
      if free > 0 and instance.stage is Stage.READY and instance.due_at <= now:
        instance.intended = True
        free -= 1

  def place(self, instances: Iterable[Instance]) -> None:
    """Give what is due to the executor and the rest to the wheel."""
    now = self._clock.now()
    due = []
    for instance in _waiting(instances):
      if instance.due_at > now:
        instance.timer = self._wheel.schedule(instance.due_at, instance)
      else:
        due.append(instance)
    self._executor.submit(due)

  async def give_back(self) -> None:
    """Return what waits on the wheel: the wheel's drain."""
    self._draining = True
    waiting = [
      each
      for each in self._instances
      if each.stage is Stage.HELD or (each.timer is not None and each.timer.pending)
    ]
    self.unschedule(waiting)
    await self._executor.release(waiting, SHUTS_DOWN)

  def unschedule(self, instances: Iterable[Instance]) -> None:
    """Take attempts off the wheel, those that are on it."""
    for instance in instances:
      if instance.timer is not None:
        self._wheel.cancel(instance.timer)


def _waiting(instances: Iterable[Instance]) -> list[Instance]:
  """List the attempts that are still to run."""
  return [each for each in instances if each.stage in (Stage.HELD, Stage.READY)]
