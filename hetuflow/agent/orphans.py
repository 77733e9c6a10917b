"""What an earlier start of this agent left running: ended first, then reported as lost.

Who runs it: a member of the executor's crowd, at its start. It owns the attempts that
were intended or running when the agent died; each is let go of when it is reported. The
server may run them again at once, so nothing is reported before it is gone.
"""

import contextlib
import os
import signal
from collections.abc import Sequence

import structlog
import trio
from attrs import frozen

from hetuflow.agent.clock import DisciplinedClock
from hetuflow.agent.instances import Instance
from hetuflow.agent.outbox import Outbox
from hetuflow.agent.process import end_orphans, scan_instances
from hetuflow.agent.process.tree import open_exactly
from hetuflow.agent.reports import Outcome
from hetuflow.protocol.states import TaskInstanceStatus

__all__ = ["Orphan", "Orphans"]

BATCH = 500

_log = structlog.get_logger()


@frozen(kw_only=True)
class Orphan:
  """An attempt that may have started.

  Args:
    instance: the attempt.
    pid: its main process, if that came to be recorded.
    pid_start: when the kernel started that process.
    reason: why it is lost.
  """

  instance: Instance
  pid: int | None = None
  pid_start: int | None = None
  reason: str


class Orphans:
  """Ends and reports orphans.

  Args:
    outbox: takes the reports.
    clock: database time.
  """

  def __init__(self, *, outbox: Outbox, clock: DisciplinedClock) -> None:
    self._outbox = outbox
    self._clock = clock
    self._left: list[Orphan] = []

  def add(self, orphans: Sequence[Orphan]) -> None:
    """Take up what the journal says may have started."""
    self._left.extend(orphans)

  async def run(self) -> None:
    """End and report all of them."""
    if not self._left:
      return
    alive = await trio.to_thread.run_sync(scan_instances)
    found = [each for each in self._left if each.instance.key in alive or each.pid]
    quiet = [each for each in self._left if each not in found]
    await self._report(quiet)
    async with trio.open_nursery() as nursery:
      for orphan in found:
        nursery.start_soon(self._end, orphan)

  async def _end(self, orphan: Orphan) -> None:
    """End one orphan and all it started, and report it."""
    instance = orphan.instance
    grace = instance.job.config.kill_grace
    self._signal(orphan, signal.SIGTERM)
    gone = await end_orphans(instance.key, grace=grace)
    self._signal(orphan, signal.SIGKILL)
    _log.info("orphan_ended", instance=instance.key, gone=gone)
    await self._report([orphan])

  async def _report(self, orphans: Sequence[Orphan]) -> None:
    """Report orphans as lost and let go of them."""
    now = self._clock.now()
    for start in range(0, len(orphans), BATCH):
      results = [
        (
          orphan.instance,
          Outcome(
            status=TaskInstanceStatus.LOST, reason=orphan.reason, completed_at=now
          ),
        )
        for orphan in orphans[start : start + BATCH]
      ]
      await self._outbox.finish(results)
    self._left = [each for each in self._left if each not in orphans]

  def _signal(self, orphan: Orphan, number: signal.Signals) -> None:
    """Signal the group of a recorded process, even if it has cleaned its environment."""
    if orphan.pid is None or orphan.pid_start is None:
      return
    with open_exactly(orphan.pid, orphan.pid_start) as pidfd:
      # While the leader lives, the group's number is nobody else's.
      if pidfd is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
          os.killpg(orphan.pid, number)
