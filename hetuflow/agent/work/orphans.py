"""What an earlier start of this agent left running: ended first, then reported as lost.

Who runs it: a member of the executor's crowd, at its start. It owns the attempts that
were intended or running when the agent died; each is let go of when it is reported. The
server may run them again at once, so nothing is reported before it is gone, or has
withstood SIGKILL for some seconds, which is logged.
"""

import contextlib
import os
import signal
from collections.abc import Sequence

import structlog
import trio
from attrs import frozen

from hetuflow.agent.instances import Instance
from hetuflow.agent.process import end_orphans, scan_instances
from hetuflow.agent.process.tree import open_exactly
from hetuflow.agent.reporting.outbox import Outbox
from hetuflow.agent.reporting.reports import Outcome
from hetuflow.agent.timing.clock import DisciplinedClock
from hetuflow.protocol.states import TaskInstanceStatus

__all__ = ["Orphan", "Orphans"]

BATCH = 500
KILL_SECONDS = 5.0

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
    self._left: dict[str, Orphan] = {}

  def add(self, orphans: Sequence[Orphan]) -> None:
    """Take up what the journal says may have started."""
    self._left.update((each.instance.key, each) for each in orphans)

  async def run(self) -> None:
    """End and report all of them."""
    if not self._left:
      return
    alive = await trio.to_thread.run_sync(scan_instances)
    found: list[Orphan] = []
    quiet: list[Orphan] = []
    for key, orphan in self._left.items():
      (found if key in alive or orphan.pid else quiet).append(orphan)
    await self._report(quiet)
    async with trio.open_nursery() as nursery:
      for orphan in found:
        nursery.start_soon(self._end, orphan)

  async def _end(self, orphan: Orphan) -> None:
    """End one orphan and all it started, and report it."""
    instance = orphan.instance
    grace = instance.job.config.kill_grace
    gone = await end_orphans(instance.key, grace=grace)
    gone = await self._end_recorded(orphan, grace) and gone
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
      for instance, _ in results:
        self._left.pop(instance.key, None)

  async def _end_recorded(self, orphan: Orphan, grace: float) -> bool:
    """End a recorded process that has cleaned its environment; True once it is gone."""
    pid, start = orphan.pid, orphan.pid_start
    if pid is None or start is None:
      return True
    with open_exactly(pid, start) as pidfd:
      if pidfd is None:
        return True
      for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, KILL_SECONDS)):
        # While the leader lives, the number of its group is nobody else's.
        with contextlib.suppress(ProcessLookupError, PermissionError):
          os.killpg(pid, number)
        with trio.move_on_after(patience):
          await trio.lowlevel.wait_readable(pidfd)
          return True
    return False
