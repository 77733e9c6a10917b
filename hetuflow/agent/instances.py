"""Every attempt this agent has in its hands, from dispatch to the acknowledged result.

Who runs it: plain objects of the one Trio thread. The ledger is a view for the parts of
the agent that run now; what must outlive a crash is in the journal.
"""

from collections import deque
from collections.abc import Iterator
from enum import StrEnum
from uuid import UUID

import attrs

from hetuflow.agent.timing.wheel import Timer
from hetuflow.nursery import Wakeup
from hetuflow.protocol.messages import DispatchedTask, HeldClaim, NamedConfig
from hetuflow.protocol.states import TaskInstanceStatus

__all__ = ["Instance", "Instances", "Stage", "Stop"]

RECENT = 20_000


class Stage(StrEnum):
  """How far the agent has come with an attempt."""

  HELD = "held"
  READY = "ready"
  RUNNING = "running"
  ENDING = "ending"
  FINISHED = "finished"
  GONE = "gone"


@attrs.frozen(kw_only=True)
class Stop:
  """Why and how an attempt is to end before it does so by itself.

  Args:
    status: what is reported then; None reports nothing, as the claim is superseded.
    reason: the reason reported.
    grace: seconds between SIGTERM and SIGKILL; 0 kills at once.
  """

  status: TaskInstanceStatus | None
  reason: str
  grace: float


@attrs.define(eq=False, kw_only=True)
class Instance:
  """One attempt in this agent's hands.

  Args:
    task: as dispatched.
    job: the configuration to run it with.
    stage: how far it has come; changed by ``Instances.move`` alone.
    key: its id as the journal writes it.
    due_at: epoch seconds at which it is to start.
    timer: its place on the wheel, while it waits there.
    intended: whether the journal has it that it is about to start.
    stop: that it is to end, once that was asked for.
    listener: told of a stop, while it runs.
  """

  task: DispatchedTask
  job: NamedConfig
  stage: Stage
  key: str = attrs.field(init=False)
  due_at: float = attrs.field(init=False)
  timer: "Timer[Instance] | None" = None
  intended: bool = False
  stop: Stop | None = None
  listener: Wakeup | None = None

  def __attrs_post_init__(self) -> None:
    self.key = str(self.task.instance_id)
    self.due_at = self.task.due_at.timestamp()

  @property
  def id(self) -> UUID:
    """The id of the attempt."""
    return self.task.instance_id

  def ask_to_stop(self, stop: Stop) -> None:
    """Ask it to end; a second time only what is more urgent or final counts."""
    before = self.stop
    if before is not None and stop.status is not None:
      stop = attrs.evolve(before, grace=min(before.grace, stop.grace))
    self.stop = stop
    if self.listener is not None:
      self.listener.set()


class Instances:
  """The ledger of attempts by id, with the counts budgets are made of.

  ``freed`` is set whenever a slot or a place on the wheel may have become free.
  """

  def __init__(self) -> None:
    self.freed = Wakeup()
    self.overrunning = 0
    self._all: dict[UUID, Instance] = {}
    self._counts = dict.fromkeys(Stage, 0)
    self._recent_order: deque[UUID] = deque()
    self._recent: set[UUID] = set()

  def __len__(self) -> int:
    return len(self._all)

  def __iter__(self) -> Iterator[Instance]:
    return iter(list(self._all.values()))

  def get(self, instance_id: UUID) -> Instance | None:
    """Return an attempt, or None if it is not in our hands."""
    return self._all.get(instance_id)

  def admit(
    self, task: DispatchedTask, job: NamedConfig, stage: Stage | None = None
  ) -> Instance | None:
    """Take up a dispatched attempt.

    Args:
      task: as dispatched.
      job: its configuration.
      stage: where it is; by default held or ready, as it was dispatched.

    Returns:
      Its record; None if it is known, or was until a short while ago.
    """
    if task.instance_id in self._all or task.instance_id in self._recent:
      return None
    stage = stage or (Stage.HELD if task.held else Stage.READY)
    instance = Instance(task=task, job=job, stage=stage)
    self._all[instance.id] = instance
    self._counts[stage] += 1
    return instance

  def move(self, instance: Instance, stage: Stage) -> None:
    """Note that an attempt has come to another stage."""
    self._counts[instance.stage] -= 1
    self._counts[stage] += 1
    instance.stage = stage
    self.freed.set()

  def forget(self, instance: Instance) -> None:
    """Let go of an attempt for good; a repeated dispatch is still recognised."""
    if self._all.pop(instance.id, None) is None:
      return
    self.move(instance, Stage.GONE)
    self._recent_order.append(instance.id)
    self._recent.add(instance.id)
    if len(self._recent_order) > RECENT:
      self._recent.discard(self._recent_order.popleft())

  def disown(self, instance: Instance) -> None:
    """Undo ``admit``: the attempt could not be put on record."""
    if self._all.pop(instance.id, None) is not None:
      self.move(instance, Stage.GONE)

  def claims(self) -> list[HeldClaim]:
    """List what to name at registration: all that is not acknowledged as finished."""
    return [
      HeldClaim(
        instance_id=each.task.instance_id,
        namespace_id=each.task.namespace_id,
        claim_token=each.task.claim_token,
      )
      for each in self._all.values()
    ]

  @property
  def held(self) -> int:
    """How many wait for their time."""
    return self._counts[Stage.HELD]

  @property
  def busy(self) -> int:
    """How many have, or wait for, a slot; functions past their time limit included."""
    return self._counts[Stage.READY] + self.running

  @property
  def running(self) -> int:
    """How many have a slot: until their result is on record."""
    counts = self._counts
    return counts[Stage.RUNNING] + counts[Stage.ENDING] + self.overrunning
