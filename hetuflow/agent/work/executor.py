"""Slots: what is due gets one, in order of time, runs, and leaves its result.

Who runs it: one child of the agent's tree; wheel, intake and control hand it attempts by
plain calls. It owns the ready queue and the crowd of running attempts. Each start is on
record in the journal before it happens, each result before it is reported; both are
written for a batch at once. When the executor is stopped, so is all that runs, and
reported as lost; what was ready stays in the queue for its next incarnation.

Functions registered as inline are the hot path: a batch of them is one transaction to
intend, one loop that calls them, one transaction and one report to finish.
"""

import heapq
import itertools
from collections.abc import Iterable, Mapping, Sequence

import attrs
import structlog
import trio

from hetuflow.agent.executors.attempt import Attempt, Runner, Turned
from hetuflow.agent.executors.python import PythonExecutor
from hetuflow.agent.instances import Instance, Instances, Stage, Stop
from hetuflow.agent.journal import Journal, JournalFull
from hetuflow.agent.reporting.outbox import Outbox
from hetuflow.agent.reporting.reports import Outcome, describe_exception
from hetuflow.agent.timing.clock import DisciplinedClock
from hetuflow.agent.work.evictor import Evictor
from hetuflow.agent.work.orphans import Orphans
from hetuflow.agent.work.permission import Permission
from hetuflow.agent.work.spawned import Spawned
from hetuflow.errors import LaunchError
from hetuflow.nursery import Backoff, Crowd, Outage, Wakeup
from hetuflow.protocol.states import ExecutorKind, TaskInstanceStatus

__all__ = ["Executor"]

BATCH = 500
POLL_SECONDS = 1.0
LAST_WORDS_SECONDS = 5.0
YIELD_SECONDS = 0.005
SHUT_DOWN = "agent shut down"

_S = TaskInstanceStatus

_log = structlog.get_logger()


class Executor:
  """Runs attempts.

  Args:
    journal: has each start on record before it happens.
    outbox: takes results.
    instances: the ledger.
    clock: database time.
    permission: asked for each attempt right before it starts.
    evictor: ends what must run alone when the lease does.
    runners: how each kind runs; but for inline functions.
    functions: the executor of Python functions, for the inline ones.
    orphans: ends what an earlier start of the agent left running.
    spawned: notes processes for the next start of the agent.
    crowd: the running attempts, drawn below the executor.
    max_concurrent: how many slots there are.
    drain_timeout: seconds that running attempts have when the agent drains.
    kill_grace: seconds between SIGTERM and SIGKILL for those that took longer.
  """

  def __init__(
    self,
    *,
    journal: Journal,
    outbox: Outbox,
    instances: Instances,
    clock: DisciplinedClock,
    permission: Permission,
    evictor: Evictor,
    runners: Mapping[ExecutorKind, Runner],
    functions: PythonExecutor,
    orphans: Orphans,
    spawned: Spawned,
    crowd: Crowd,
    max_concurrent: int,
    drain_timeout: float,
    kill_grace: float,
  ) -> None:
    self._journal = journal
    self._outbox = outbox
    self._instances = instances
    self._clock = clock
    self._permission = permission
    self._evictor = evictor
    self._runners = runners
    self._functions = functions
    self._orphans = orphans
    self._spawned = spawned
    self._crowd = crowd
    self._max_concurrent = max_concurrent
    self._drain_timeout = drain_timeout
    self._kill_grace = kill_grace
    self._ready: list[tuple[float, int, Instance]] = []
    self._refused: list[tuple[Instance, Outcome]] = []
    self._order = itertools.count()
    self._wakeup = Wakeup()
    self._outage = Outage(
      JournalFull, event="journal_full", backoff=Backoff(maximum=1.0)
    )

  # ── what is handed to it ────────────────────────────────────────────────────────────

  def submit(self, instances: Iterable[Instance]) -> None:
    """Queue attempts that are due; never blocks, never raises."""
    for instance in instances:
      if instance.stage is Stage.HELD:
        self._instances.move(instance, Stage.READY)
      heapq.heappush(self._ready, (instance.due_at, next(self._order), instance))
    self._wakeup.set()

  def refuse(self, instance: Instance, status: TaskInstanceStatus, reason: str) -> None:
    """Report an attempt that has not started as ended; it never will."""
    self._instances.move(instance, Stage.ENDING)
    self._refused.append((instance, self._ended(status, reason)))
    self._wakeup.set()

  async def release(self, instances: Iterable[Instance], reason: str) -> None:
    """Give attempts that have not started back to the server."""
    outcome = self._ended(_S.RELEASED, reason)
    waiting = [each for each in instances if each.stage in (Stage.HELD, Stage.READY)]
    for instance in waiting:
      self._instances.move(instance, Stage.ENDING)
    await self._outbox.finish([(instance, outcome) for instance in waiting])

  @property
  def free(self) -> int:
    """How many slots would be free once all that is ready has one."""
    return self._max_concurrent - self._instances.running - len(self._ready)

  # ── the child ───────────────────────────────────────────────────────────────────────

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Run what is due, for ever."""
    async with self._crowd.open(), trio.open_nursery() as nursery:
      nursery.start_soon(self._spawned.run)
      nursery.start_soon(self._evictor.run)
      self._crowd.start_soon("orphans", self._orphans.run)
      task_status.started()
      while True:
        if not await self.run_once():
          await self._wakeup.wait(POLL_SECONDS)

  async def run_once(self) -> int:
    """Start a batch of what is ready; return how many attempts were dealt with."""
    refused = await self._report_refused()
    batch = self._take()
    inline: list[Instance] = []
    others: list[Instance] = []
    for instance in batch:
      (inline if self._functions.is_inline(instance) else others).append(instance)
    if inline:
      self._crowd.start_soon(f"batch-{next(self._order)}", self._run_inline, inline)
    if others:
      await self._intend(others)
      for instance in others:
        self._crowd.start_soon(instance.key, self._live, instance)
    return refused + len(batch)

  async def drain(self) -> None:
    """Give back what has not started; let the rest finish, within the time there is."""
    await self.release([instance for _, _, instance in self._ready], SHUT_DOWN)
    with trio.move_on_after(self._drain_timeout):
      await self._crowd.wait_empty()
      return
    stop = Stop(status=_S.LOST, reason=SHUT_DOWN, grace=self._kill_grace)
    for instance in self._instances:
      if instance.stage is Stage.RUNNING:
        instance.ask_to_stop(stop)
    await self._crowd.wait_empty()

  def _take(self) -> list[Instance]:
    """Give free slots to what is ready, the longest due first."""
    batch: list[Instance] = []
    limit = min(BATCH, self._max_concurrent - self._instances.running)
    while self._ready and len(batch) < limit:
      instance = heapq.heappop(self._ready)[2]
      if instance.stage is Stage.READY:
        batch.append(instance)
    for instance in batch:
      self._instances.move(instance, Stage.RUNNING)
    return batch

  async def _report_refused(self) -> int:
    """Report what was refused; return how many those are."""
    refused, self._refused = self._refused, []
    try:
      await self._outbox.finish(refused)
    except BaseException:
      self._refused += refused
      raise
    return len(refused)

  async def _intend(self, batch: Sequence[Instance]) -> None:
    """Put on record that these are about to start, however long that takes."""
    keys = [instance.key for instance in batch if not instance.intended]
    if not keys:
      return
    try:
      await self._outage.retry(lambda: self._journal.intend(keys))
    except BaseException:
      again = [each for each in batch if each.stage is Stage.RUNNING]
      for instance in again:
        self._instances.move(instance, Stage.READY)
      self.submit(again)
      raise

  # ── one attempt ─────────────────────────────────────────────────────────────────────

  async def _live(self, instance: Instance) -> None:
    """Run one attempt to its end and leave its result."""
    attempt = Attempt(instance, refusal=self._permission.refusal, outbox=self._outbox)
    try:
      outcome = await self._run(attempt)
    except BaseException:
      await self._leave([(instance, attempt.result or self._lost(attempt))])
      raise
    await self._leave([(instance, outcome)])

  async def _run(self, attempt: Attempt) -> Outcome:
    """Run an attempt; whatever keeps it from running is an outcome too."""
    kind = attempt.instance.job.config.executor
    try:
      runner = self._runners.get(kind)
      if runner is None:
        raise LaunchError(f"this agent has no executor {kind.value!r}")
      return await runner.run(attempt)
    except Turned as turned:
      return turned.outcome
    except LaunchError as error:
      return Outcome(
        status=_S.FAILED,
        reason=f"launch: {error}",
        error_message=str(error),
        completed_at=self._clock.now(),
      )
    except Exception as error:
      _log.exception("executor_failed", instance=attempt.instance.key)
      return Outcome(
        status=_S.FAILED,
        reason=f"the agent failed: {type(error).__name__}",
        error_message=describe_exception(error),
        started_at=attempt.started_at,
        completed_at=self._clock.now(),
      )

  async def _leave(self, results: Sequence[tuple[Instance, Outcome]]) -> None:
    """Leave results; their slots are free then.

    Only while the journal is full can it be cancelled, with nothing recorded; then there
    is a moment more, as what has ended would be taken for lost and run again.
    """
    try:
      await self._outbox.finish(results)
    except trio.Cancelled:
      with trio.move_on_after(LAST_WORDS_SECONDS, shield=True):
        await self._outbox.finish(results)
      raise
    finally:
      self._wakeup.set()

  def _lost(self, attempt: Attempt) -> Outcome:
    """Make the outcome of an attempt that was cut off from outside."""
    return attrs.evolve(self._ended(_S.LOST, SHUT_DOWN), started_at=attempt.started_at)

  def _ended(self, status: TaskInstanceStatus, reason: str) -> Outcome:
    """Make the outcome of an attempt that never started."""
    return Outcome(status=status, reason=reason, completed_at=self._clock.now())

  # ── the hot path ────────────────────────────────────────────────────────────────────

  async def _run_inline(self, batch: Sequence[Instance]) -> None:
    """Run a batch of inline functions."""
    await self._intend(batch)
    results = []
    pause_at = trio.current_time() + YIELD_SECONDS
    for instance in batch:
      outcome = self._permission.refusal(instance) or self._functions.call(instance)
      results.append((instance, outcome))
      if trio.current_time() > pause_at:
        await trio.lowlevel.cancel_shielded_checkpoint()
        pause_at = trio.current_time() + YIELD_SECONDS
    await self._leave(results)
