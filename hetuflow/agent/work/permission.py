"""Whether an attempt may start at this moment.

Who runs it: the executor asks for each attempt right before it starts, by a plain call of
the Trio thread. It owns nothing.
"""

from hetuflow.agent.instances import Instance
from hetuflow.agent.reporting.reports import Outcome
from hetuflow.agent.timing.clock import DisciplinedClock, Lease
from hetuflow.protocol.states import TaskInstanceStatus

__all__ = ["LEASE_EXPIRED", "Permission"]

LEASE_EXPIRED = "lease expired"
START_DEADLINE = "start_deadline"
"""A reason that servers know: the task was missed."""

_S = TaskInstanceStatus


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
    if not self._lease.held() and not self._is_kept(instance):
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

  def _is_kept(self, instance: Instance) -> bool:
    """Whether a planned attempt may start without a session, as it may for a while."""
    task = instance.task
    return task.held and self._clock.now() <= instance.due_at + task.lease

  def _refused(self, status: TaskInstanceStatus, reason: str) -> Outcome:
    """Make the outcome of an attempt that does not start."""
    return Outcome(status=status, reason=reason, completed_at=self._clock.now())
