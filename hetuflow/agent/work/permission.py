"""Whether an attempt may start at this moment, and whether it may go on without a lease.

Who runs it: the executor asks for each attempt right before it starts, by a plain call of
the Trio thread. It owns nothing.

What must hold on both sides: a server gives an attempt to another agent only when this one
may not start it any more. For one that was handed out ahead of its time, and for all that
a former start of the agent has left, that is at the task's due time and its lease, whatever
becomes of the session; for any other not before the end of the session's lease. Of both
this side leaves out the last part, for clocks that differ and for starts that take time.
"""

from hetuflow.agent.instances import Instance
from hetuflow.agent.reporting.reports import Outcome
from hetuflow.agent.timing.clock import DisciplinedClock, Lease
from hetuflow.protocol.model import TaskConfig
from hetuflow.protocol.states import OnLost, OverlapPolicy, TaskInstanceStatus

__all__ = ["LEASE_EXPIRED", "Permission", "runs_alone"]

LEASE_EXPIRED = "lease expired"
START_DEADLINE = "start_deadline"
"""A reason that servers know: the task was missed."""
MARGIN_SHARE = 0.1
"""The part of a task's lease that is left out, but for the known error of the clock."""

_S = TaskInstanceStatus


def runs_alone(config: TaskConfig) -> bool:
  """Tell whether an attempt must have ended before a server starts another in its place.

  So it is where a job limits how many run, and is run again when an agent is lost.
  """
  limited = config.overlap is not OverlapPolicy.ALLOW or bool(
    config.max_concurrent or config.concurrency_key
  )
  return limited and config.on_lost is OnLost.RETRY


class Permission:
  """Judges by what was asked for, the lease and the deadline of the start.

  Args:
    clock: database time.
    lease: the session's; without it only what was held may start, for a while.
  """

  def __init__(self, *, clock: DisciplinedClock, lease: Lease) -> None:
    self._clock = clock
    self._lease = lease

  def refusal(self, instance: Instance) -> Outcome | None:
    """Say what to report of an attempt that must not start now; None if it may."""
    if (stop := instance.stop) is not None:
      return self._refused(stop.status or _S.CANCELLED, stop.reason)
    if not self._is_trusted(instance):
      return self._refused(_S.RELEASED, LEASE_EXPIRED)
    if self._is_late(instance):
      return self._refused(_S.CANCELLED, START_DEADLINE)
    return None

  def _is_late(self, instance: Instance) -> bool:
    """Whether a task should have started by now; what has, or was asked for anew, may."""
    deadline = instance.job.config.start_deadline
    if deadline is None or instance.task.attempt > 1:
      return False
    return self._clock.now() > instance.due_at + deadline

  def _is_trusted(self, instance: Instance) -> bool:
    """Whether nobody else is given the attempt, so that it may start."""
    if runs_alone(instance.job.config):
      # What would have to end at once need not begin.
      return self._lease.until_ending() > 0
    return self._lease.held() or self._is_kept(instance)

  def _is_kept(self, instance: Instance) -> bool:
    """Whether a planned attempt may start without a session, as it may for a while."""
    task = instance.task
    if not task.held:
      return False
    error = self._clock.error_ms / 1000 if self._clock.synchronised else 0.0
    lease = task.lease * (1 - MARGIN_SHARE)
    return self._clock.now() + error <= instance.due_at + lease

  def _refused(self, status: TaskInstanceStatus, reason: str) -> Outcome:
    """Make the outcome of an attempt that does not start."""
    return Outcome(status=status, reason=reason, completed_at=self._clock.now())
