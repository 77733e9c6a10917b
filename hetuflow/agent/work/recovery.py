"""Taking up where an earlier start of this agent ended.

Runs once, before the tree. Every claim of the journal finds its place: results wait to be
reported, what never started fires at its time if its lease holds, what may have started
is ended and reported as lost.
"""

import attrs
import structlog

from hetuflow.agent.instances import Instance, Instances, Stage
from hetuflow.agent.journal import Claim, ClaimState, Journal
from hetuflow.agent.reporting.outbox import Outbox
from hetuflow.agent.timing.clock import DisciplinedClock
from hetuflow.agent.work.claims import describe_claim, read_claim
from hetuflow.agent.work.executor import Executor
from hetuflow.agent.work.intake import Intake
from hetuflow.agent.work.orphans import Orphan, Orphans
from hetuflow.agent.work.permission import LEASE_EXPIRED
from hetuflow.errors import ProtocolError
from hetuflow.protocol.messages import MessageKind
from hetuflow.protocol.states import TaskInstanceStatus

__all__ = ["Recovery"]

UNREADABLE = "the agent cannot read what it has of it"
AGENT_RESTARTED = "the agent was restarted"
MACHINE_RESTARTED = "the machine was restarted"

_log = structlog.get_logger()


class Recovery:
  """Puts everything back in its place.

  Args:
    journal: what was on record.
    instances: the ledger.
    clock: database time, as far as it is known yet.
    intake: places what is to run.
    executor: reports what is given back.
    outbox: takes reports that were not acknowledged.
    orphans: ends what may run.
  """

  def __init__(
    self,
    *,
    journal: Journal,
    instances: Instances,
    clock: DisciplinedClock,
    intake: Intake,
    executor: Executor,
    outbox: Outbox,
    orphans: Orphans,
  ) -> None:
    self._journal = journal
    self._instances = instances
    self._clock = clock
    self._intake = intake
    self._executor = executor
    self._outbox = outbox
    self._orphans = orphans

  def recover(self) -> int:
    """Take everything up; return how many claims there were."""
    recovered = self._journal.load()
    update = MessageKind.TASK_INSTANCE_UPDATE.value
    reported = {each.instance_id for each in recovered.outbox if each.kind == update}
    for claim in recovered.claims:
      self._take_up(claim, has_result=claim.instance_id in reported)
    self._outbox.recover(recovered.outbox)
    if recovered.claims or recovered.outbox:
      _log.info(
        "journal_recovered", claims=len(recovered.claims), reports=len(recovered.outbox)
      )
    return len(recovered.claims)

  def _take_up(self, claim: Claim, *, has_result: bool) -> None:
    """Find the place of one claim; each stands on its own lease now."""
    if claim.state is ClaimState.FINISHED and not has_result:
      return  # the server has the result, only output is left to be acknowledged
    try:
      (task, job), readable = read_claim(claim), True
    except ProtocolError as error:
      (task, job), readable = describe_claim(claim), False
      _log.error("claim_unreadable", instance=claim.instance_id, problem=str(error))
    task = attrs.evolve(task, held=True)
    if claim.state is ClaimState.FINISHED:
      self._instances.admit(task, job, Stage.FINISHED)
    elif claim.may_have_started:
      self._take_up_orphan(claim, self._instances.admit(task, job, Stage.ENDING))
    elif (instance := self._instances.admit(task, job, Stage.HELD)) is not None:
      self._take_up_held(instance, readable)

  def _take_up_held(self, instance: Instance, readable: bool) -> None:
    """Have what never started fire at its time, or give it back."""
    released = TaskInstanceStatus.RELEASED
    if not readable:
      self._executor.refuse(instance, released, UNREADABLE)
    elif self._clock.now() > instance.due_at + instance.task.lease:
      self._executor.refuse(instance, released, LEASE_EXPIRED)
    else:
      self._intake.place([instance])

  def _take_up_orphan(self, claim: Claim, instance: Instance | None) -> None:
    """Have what may have started ended and reported."""
    if instance is None:
      return
    rebooted = claim.earlier_boot
    self._orphans.add(
      [
        Orphan(
          instance=instance,
          pid=None if rebooted else claim.pid,
          pid_start=None if rebooted else claim.pid_start,
          reason=MACHINE_RESTARTED if rebooted else AGENT_RESTARTED,
        )
      ]
    )
