"""Processes: started, read, watched, ended, and what their end means.

Who runs it: each running attempt calls ``run`` as a member of the executor's crowd; one
more Trio task watches for its time limit and for whoever wants it to end. It owns the
process, and if it is cancelled the process and all its descendants are killed.
"""

import signal
from collections.abc import Callable

import structlog
import trio

from hetuflow.agent.executors.attempt import Attempt
from hetuflow.agent.executors.environment import fill, make_spec
from hetuflow.agent.instances import Instance, Stop
from hetuflow.agent.process import Helper, LaunchSpec, Running, terminate_tree
from hetuflow.agent.process.launcher import start_process
from hetuflow.agent.process.output import Collected, collect
from hetuflow.agent.reporting.reports import Outcome
from hetuflow.agent.timing.clock import DisciplinedClock
from hetuflow.protocol.model import TaskMetrics
from hetuflow.protocol.states import TaskInstanceStatus

__all__ = ["ProcessExecutor", "process_argv"]

_MIB = 1024 * 1024
SIGNAL_BASE = 128
LOOKUPS = 8
_S = TaskInstanceStatus

_lookups = trio.CapacityLimiter(LOOKUPS)
_log = structlog.get_logger()


def process_argv(instance: Instance) -> tuple[str, ...]:
  """Return the program and its filled-in arguments.

  Raises:
    LaunchError: a template names a parameter that is missing.
  """
  config, parameters = instance.job.config, instance.task.parameters
  return (config.cmd, *(fill(each, parameters) for each in config.args))


class ProcessExecutor:
  """Runs attempts as processes.

  Args:
    argv: makes the command line of an attempt.
    clock: database time, for what is reported.
    helper: starts processes of other users.
    note_spawned: told of each process, so that it can be found after a crash.
  """

  def __init__(
    self,
    argv: Callable[[Instance], tuple[str, ...]],
    *,
    clock: DisciplinedClock,
    helper: Helper,
    note_spawned: Callable[[Running], None],
  ) -> None:
    self._argv = argv
    self._clock = clock
    self._helper = helper
    self._note_spawned = note_spawned

  async def run(self, attempt: Attempt) -> Outcome:
    """Run one attempt.

    Raises:
      Turned: it must not start any more.
      LaunchError: it could not be started.
    """
    instance = attempt.instance
    config = instance.job.config
    spec = await _prepare(instance, self._argv(instance))
    attempt.check()
    running = await start_process(spec, helper=self._helper, wall=self._clock.now)
    attempt.note_started(running.started_at)
    self._note_spawned(running)

    def keep(done: Collected) -> None:
      """Note how it went."""
      attempt.result = self._judge(done, instance.stop if attempt.cut_short else None)

    async with trio.open_nursery() as nursery:
      nursery.start_soon(self._end_when_asked, running, attempt)
      done = await collect(
        running,
        send=attempt,
        limit=config.max_output_size,
        grace=config.kill_grace,
        interrupted=keep,
      )
      nursery.cancel_scope.cancel()
    return self._judge(done, instance.stop if attempt.cut_short else None)

  async def _end_when_asked(self, running: Running, attempt: Attempt) -> None:
    """End the process at its time limit or when somebody asks, again only if quicker."""
    stop = await attempt.wait_stop()
    attempt.cut_short = running.poll() is None
    async with trio.open_nursery() as nursery:
      while True:
        nursery.start_soon(self._end, running, stop.grace)
        grace = stop.grace
        while stop.grace >= grace:
          stop = await attempt.wait_asked()

  async def _end(self, running: Running, grace: float) -> None:
    """End the process and its descendants."""
    if not await terminate_tree(running, grace=grace):
      _log.error("process_not_gone", instance=running.instance_id, pid=running.pid)

  def _judge(self, done: Collected, stop: Stop | None) -> Outcome:
    """Say what the end of a process means, which had to end if there is a `stop`."""
    ended = done.exit
    if ended.signal is None:
      code, words = ended.exit_code, f"exit code {ended.exit_code}"
    else:
      code, words = SIGNAL_BASE + ended.signal, f"signal {_signal_name(ended.signal)}"
    if stop is not None:
      status, reason = stop.status or _S.CANCELLED, stop.reason
    elif code == 0:
      status, reason = _S.SUCCEEDED, None
    else:
      status, reason = _S.FAILED, words
    return Outcome(
      status=status,
      reason=reason,
      started_at=ended.started_at,
      completed_at=ended.ended_at,
      exit_code=code,
      output=done.tail,
      metrics=TaskMetrics(
        cpu_seconds=ended.cpu_seconds,
        max_memory_mb=_megabytes(ended.max_memory_bytes),
        output_bytes=sum(done.written.values()),
      ),
    )


async def _prepare(instance: Instance, argv: tuple[str, ...]) -> LaunchSpec:
  """Make what starts an attempt; the directory of users may take its time to answer."""
  if instance.job.config.user is None:
    return make_spec(instance, argv)
  return await trio.to_thread.run_sync(
    make_spec, instance, argv, abandon_on_cancel=True, limiter=_lookups
  )


def _signal_name(number: int) -> str:
  """Name a signal; real-time ones have numbers only."""
  try:
    return signal.Signals(number).name
  except ValueError:
    return str(number)


def _megabytes(size: int | None) -> float | None:
  """Bring a known number of bytes to megabytes."""
  return None if size is None else round(size / _MIB, 3)
