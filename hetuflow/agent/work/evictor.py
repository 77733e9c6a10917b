"""What must run alone is ended before the session's lease is.

Who runs it: the executor, beside its loop. It owns nothing. When the lease is over a server
gives the work of this agent to others; most of what runs goes on all the same, and is
killed if a server says that it was superseded. What must not run twice at a time cannot
wait for that. The lease is looked at on clocks that go on while this process is frozen and
its machine asleep; when they go on again it is ended at once.
"""

import structlog
import trio

from hetuflow.agent.instances import Instances, Stage, Stop
from hetuflow.agent.timing.clock import Lease
from hetuflow.agent.work.permission import LEASE_EXPIRED, runs_alone
from hetuflow.protocol.states import TaskInstanceStatus

__all__ = ["Evictor"]

POLL_SECONDS = 1.0

_log = structlog.get_logger()


class Evictor:
  """Ends what must run alone.

  Args:
    instances: the ledger.
    lease: the session's.
  """

  def __init__(self, *, instances: Instances, lease: Lease) -> None:
    self._instances = instances
    self._lease = lease

  async def run(self) -> None:
    """Look for ever."""
    while True:
      left = self._lease.until_ending()
      await trio.sleep(min(POLL_SECONDS, left) if left > 0 else POLL_SECONDS)
      self.evict_once()

  def evict_once(self) -> int:
    """End what must run alone if the lease is ending; return how many were asked to."""
    if self._lease.until_ending() > 0:
      return 0
    alone = [
      instance
      for instance in self._instances
      if instance.stage is Stage.RUNNING and runs_alone(instance.job.config)
    ]
    left = max(0.0, self._lease.remaining())
    for instance in alone:
      if instance.stop is None:
        _log.warning("instance_evicted", instance=instance.key, left=round(left, 3))
      if instance.stop is None or instance.stop.grace > left:
        grace = min(left, instance.job.config.kill_grace)
        instance.ask_to_stop(
          Stop(status=TaskInstanceStatus.LOST, reason=LEASE_EXPIRED, grace=grace)
        )
    return len(alone)
