"""Python functions registered in this agent.

Who runs it: each running attempt calls ``run`` as a member of the executor's crowd; the
executor itself calls ``call`` for inline functions. A plain function runs in a thread,
which nobody can stop: past its time limit the attempt is reported, but the thread keeps
its slot until it returns. An async function is cancelled like any Trio code.
"""

import functools
from collections.abc import Callable
from typing import Any

import trio
from attrs import define

from hetuflow.agent.executors.attempt import Attempt
from hetuflow.agent.functions import Function, TaskContext, registered
from hetuflow.agent.instances import Instance, Instances, Stop
from hetuflow.agent.process.chunks import Chunk
from hetuflow.agent.reporting.reports import Outcome, clean, describe_exception
from hetuflow.agent.timing.clock import DisciplinedClock
from hetuflow.errors import LaunchError
from hetuflow.nursery import Crowd
from hetuflow.protocol import wire
from hetuflow.protocol.model import TaskMetrics
from hetuflow.protocol.states import ExecutorKind, TaskInstanceStatus

__all__ = ["PythonExecutor"]

CHUNK_BYTES = 64 * 1024

_S = TaskInstanceStatus


@define(eq=False)
class _Call:
  """A call under way: what it returned or raised, once it has."""

  value: Any = None
  error: BaseException | None = None
  ended: bool = False


class PythonExecutor:
  """Calls registered functions.

  Args:
    clock: database time, for what is reported.
    instances: the ledger, for slots that are held beyond an attempt's end.
    crowd: owns the threads.
    threads: how many may run at once.
  """

  def __init__(
    self, *, clock: DisciplinedClock, instances: Instances, crowd: Crowd, threads: int
  ) -> None:
    self._clock = clock
    self._instances = instances
    self._crowd = crowd
    self._threads = threads
    self._limiter: trio.CapacityLimiter | None = None

  def is_inline(self, instance: Instance) -> bool:
    """Whether an attempt is the call of an inline function."""
    config = instance.job.config
    if config.executor is not ExecutorKind.PYTHON:
      return False
    function = registered().get(config.cmd)
    return function is not None and function.inline

  def call(self, instance: Instance) -> Outcome:
    """Call an inline function and return how that went; never raises."""
    function = registered()[instance.job.config.cmd]
    started = self._clock.now()
    call = _make(lambda: function.call(**_arguments(function, instance)))
    return self._judge(call, started)

  async def run(self, attempt: Attempt) -> Outcome:
    """Run one attempt in a thread or as Trio code.

    Raises:
      Turned: it must not start any more.
      LaunchError: there is no such function.
    """
    instance = attempt.instance
    name = instance.job.config.cmd
    function = registered().get(name)
    if function is None:
      raise LaunchError(f"no function {name!r} is registered in this agent")
    target = functools.partial(function.call, **_arguments(function, instance))
    attempt.check()
    started = self._clock.now()
    attempt.note_started(started)
    call = _Call()
    if function.is_async:
      await self._run_async(attempt, target, call)
    else:
      await self._run_thread(attempt, target, call)
    outcome = self._judge(call, started, None if call.ended else instance.stop)
    attempt.result = outcome
    await _print(attempt, outcome.output)
    return outcome

  async def _run_async(
    self, attempt: Attempt, target: Callable[[], Any], call: _Call
  ) -> None:
    """Await an async function; cancel it at its time limit or when asked."""
    async with trio.open_nursery() as nursery:

      async def cancel_when_asked() -> None:
        """Cancel the call."""
        await attempt.wait_stop()
        nursery.cancel_scope.cancel()

      nursery.start_soon(cancel_when_asked)
      try:
        call.value = await target()
      except BaseException as error:
        if _is_for_trio(error):
          raise
        call.error = error
      call.ended = True
      nursery.cancel_scope.cancel()

  async def _run_thread(
    self, attempt: Attempt, target: Callable[[], Any], call: _Call
  ) -> None:
    """Call a plain function in a thread; stop waiting at its time limit or when asked."""
    returned = trio.Event()
    self._crowd.start_soon(
      f"{attempt.instance.key} thread", self._call_in_thread, target, call, returned
    )
    async with trio.open_nursery() as nursery:

      async def give_up_when_asked() -> None:
        """Stop waiting; the thread keeps the slot."""
        await attempt.wait_stop()
        nursery.cancel_scope.cancel()

      nursery.start_soon(give_up_when_asked)
      await returned.wait()
      nursery.cancel_scope.cancel()
    if not call.ended:
      self._instances.overrunning += 1
      self._crowd.start_soon(
        f"{attempt.instance.key} overrun", self._free_slot, returned
      )

  async def _call_in_thread(
    self, target: Callable[[], Any], call: _Call, returned: trio.Event
  ) -> None:
    """Call a function in a thread and note what it returned or raised."""
    if self._limiter is None:
      self._limiter = trio.CapacityLimiter(self._threads)
    try:
      made = await trio.to_thread.run_sync(
        _make, target, abandon_on_cancel=True, limiter=self._limiter
      )
      call.value, call.error, call.ended = made.value, made.error, True
    finally:
      returned.set()

  async def _free_slot(self, returned: trio.Event) -> None:
    """Free the slot that a thread still has, when it returns or is given up."""
    try:
      await returned.wait()
    finally:
      self._instances.overrunning -= 1
      self._instances.freed.set()

  def _judge(self, call: _Call, started: float, stop: Stop | None = None) -> Outcome:
    """Say what the end of a call means."""
    output, error = b"", call.error
    if error is None and stop is None and call.value is not None:
      try:
        output = _as_bytes(call.value)
      except Exception as problem:
        error = problem
    if stop is not None:
      status, reason = stop.status or _S.CANCELLED, stop.reason
    elif error is not None:
      status, reason = _S.FAILED, f"{type(error).__name__}: {_words(error)}"
    else:
      status, reason = _S.SUCCEEDED, None
    return Outcome(
      status=status,
      reason=reason,
      started_at=started,
      completed_at=self._clock.now(),
      error_message=None if error is None else describe_exception(error),
      output=output,
      metrics=TaskMetrics(output_bytes=len(output)) if output else None,
    )


def _make(target: Callable[[], Any]) -> _Call:
  """Call a plain function; whatever it raises is its own, `sys.exit` too."""
  try:
    return _Call(value=target(), ended=True)
  except KeyboardInterrupt:
    raise
  except BaseException as error:
    return _Call(error=error, ended=True)


def _is_for_trio(error: BaseException) -> bool:
  """Whether what came out of an async function is not its own, but ends what awaits it."""
  if isinstance(error, BaseExceptionGroup):
    return any(map(_is_for_trio, error.exceptions))
  return isinstance(error, trio.Cancelled | KeyboardInterrupt | GeneratorExit)


def _words(error: BaseException) -> str:
  """Return the message of an exception, whatever its class thinks of that."""
  try:
    return str(error)
  except Exception:
    return "<without words>"


def _arguments(function: Function, instance: Instance) -> dict[str, Any]:
  """Choose what to call a function with."""
  task = instance.task
  return function.arguments(
    task.parameters,
    lambda: TaskContext(
      instance_id=task.instance_id,
      task_id=task.task_id,
      attempt=task.attempt,
      scheduled_at=task.scheduled_at,
      parameters=task.parameters,
      job_name=instance.job.job_name,
    ),
  )


def _as_bytes(value: Any) -> bytes:
  """Write what a function returned: text as it is, anything else as JSON."""
  return clean(value).encode() if isinstance(value, str) else wire.encode(value)


async def _print(attempt: Attempt, output: bytes) -> None:
  """Report what a function returned as if it had printed it."""
  config = attempt.instance.job.config
  if not config.capture_output:
    return
  kept = output[: config.max_output_size]
  for start in range(0, len(kept), CHUNK_BYTES):
    await attempt.send(Chunk("stdout", start, kept[start : start + CHUNK_BYTES]))
