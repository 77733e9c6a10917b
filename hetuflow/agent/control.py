"""What the server wants of attempts and of the agent: cancel, kill, drop, drain, end.

Who runs it: called by the connection for each command, from the Trio thread; it owns
nothing. What takes time is done by the executor.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import assert_never
from uuid import UUID

import structlog

from hetuflow.agent.instances import Instance, Instances, Stage, Stop
from hetuflow.agent.puller import Puller
from hetuflow.agent.reporting.outbox import Outbox
from hetuflow.agent.work.executor import Executor
from hetuflow.agent.work.intake import Intake
from hetuflow.protocol.messages import AgentCommand, AgentCommandKind, Envelope
from hetuflow.protocol.states import TaskInstanceStatus

__all__ = ["Control"]

SUPERSEDED = "superseded"

_log = structlog.get_logger()


class Control:
  """Carries out what a server says.

  Args:
    instances: the ledger.
    intake: takes planned attempts off the wheel.
    executor: ends what runs, and reports what was cancelled before it ran.
    outbox: drops what is left to say of superseded attempts.
    puller: paused and resumed.
    shut_down: drains the whole agent.
  """

  def __init__(
    self,
    *,
    instances: Instances,
    intake: Intake,
    executor: Executor,
    outbox: Outbox,
    puller: Puller,
    shut_down: Callable[[], None],
  ) -> None:
    self._instances = instances
    self._intake = intake
    self._executor = executor
    self._outbox = outbox
    self._puller = puller
    self._shut_down = shut_down

  def note_command(self, envelope: Envelope) -> None:
    """Carry out a command."""
    command: AgentCommand = envelope.payload
    _log.info("command_received", command=command.command.value, reason=command.reason)
    match command.command:
      case AgentCommandKind.CANCEL:
        self.cancel(command.instance_ids, command.reason)
      case AgentCommandKind.KILL:
        self.cancel(command.instance_ids, command.reason, at_once=True)
      case AgentCommandKind.DRAIN:
        self._puller.pause()
      case AgentCommandKind.RESUME:
        self._puller.resume()
      case AgentCommandKind.SHUTDOWN:
        self._shut_down()
      case unknown:
        assert_never(unknown)

  def cancel(
    self, instance_ids: Iterable[UUID], reason: str, *, at_once: bool = False
  ) -> None:
    """End attempts and report them cancelled; those we do not have are ignored.

    Args:
      instance_ids: which.
      reason: why.
      at_once: kill, without time to clean up.
    """
    for instance in self._known(instance_ids):
      grace = 0.0 if at_once else instance.job.config.kill_grace
      stop = Stop(
        status=TaskInstanceStatus.CANCELLED, reason=reason or "cancelled", grace=grace
      )
      self._stop(instance, stop)

  def supersede(self, instance_ids: Sequence[UUID]) -> None:
    """End attempts that are no longer ours, and never speak of them again."""
    for instance in self._known(instance_ids):
      _log.warning("instance_superseded", instance=instance.key)
      self._stop(instance, Stop(status=None, reason=SUPERSEDED, grace=0.0))
      self._outbox.forget(instance)
      self._instances.forget(instance)

  def _stop(self, instance: Instance, stop: Stop) -> None:
    """End an attempt, whether it waits or runs."""
    self._intake.unschedule([instance])
    waits = instance.stage in (Stage.HELD, Stage.READY)
    instance.ask_to_stop(stop)
    if waits and stop.status is not None:
      self._executor.refuse(instance, stop.status, stop.reason)

  def _known(self, instance_ids: Iterable[UUID]) -> list[Instance]:
    """Look attempts up."""
    found = (self._instances.get(each) for each in instance_ids)
    return [instance for instance in found if instance is not None]
