"""From signals to the end of the process, and from its end to an exit code.

Who runs it: ``main`` is a program's whole ``__main__``; inside it ``run_until_signal`` is
Trio's main task. It owns the process's SIGINT and SIGTERM while it runs. The first one
drains the tree, the second stops everything at once, and then the default handlers are
back: a third ends the process even if a clean-up hangs.
"""

import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import structlog
import trio

from hetuflow.errors import HetuflowError, Refused, SettingsError
from hetuflow.nursery.groups import sole_leaf
from hetuflow.nursery.supervise import Supervisor

__all__ = ["exit_code", "main", "run_until_signal"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
EXIT_CLEAN, EXIT_FAILED, EXIT_USAGE = 0, 1, 2

_log = structlog.get_logger()


async def run_until_signal(
  supervisor: Supervisor,
  *,
  drain_timeout: float,
  task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> int:
  """Run a tree until it ends or a signal ends it.

  Args:
    supervisor: the root.
    drain_timeout: seconds the whole drain may take after the first signal; then what is
      left is stopped undrained, which is still a clean end.
    task_status: told when the whole tree has started.

  Returns:
    The exit code: 0 after a drain or if all children ended, 1 after a second signal.

  Raises:
    Exception: what ``Supervisor.run`` raised.
  """
  code = EXIT_CLEAN
  error: Exception | None = None

  async def heed_signals(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    """Drain at the first signal, stop at the second."""
    nonlocal code
    _log.info("drain_started", signal=signal.Signals(await anext(signals)).name)
    supervisor.drain()
    with trio.move_on_after(drain_timeout) as limit:
      second = await anext(signals)
    if limit.cancelled_caught:
      _log.warning("drain_overdue", seconds=drain_timeout)
      scope.cancel()
      second = await anext(signals)
    code = EXIT_FAILED
    for number in SIGNALS:
      signal.signal(number, signal.SIG_DFL)
    _log.warning("stopped_at_once", signal=signal.Signals(second).name)
    supervisor.abort()

  with trio.open_signal_receiver(*SIGNALS) as signals:
    async with trio.open_nursery() as nursery:
      with trio.CancelScope() as scope:
        nursery.start_soon(heed_signals, signals, scope)
        try:
          await supervisor.run(task_status=task_status)
        except Exception as problem:
          error = problem
      nursery.cancel_scope.cancel()
  if error is not None:
    raise error
  return code


def exit_code(error: BaseException) -> int:
  """Map what ended a program to its exit code.

  Args:
    error: an exception or the group around it.

  Returns:
    2 for a wrong setting or a refusal, the code of a SystemExit, else 1.
  """
  error = sole_leaf(error)
  if isinstance(error, SettingsError | Refused):
    return EXIT_USAGE
  if isinstance(error, SystemExit):
    return error.code if isinstance(error.code, int) else int(error.code is not None)
  return EXIT_FAILED


def main(program: Callable[..., Awaitable[int | None]], *args: Any) -> int:
  """Run a program under Trio and tell the exit code; nothing is raised.

  What hetuflow raises on purpose becomes one line on stderr, a bug a logged traceback.

  Args:
    program: an async function that returns its exit code, None meaning 0.
    args: positional arguments for it.

  Returns:
    0 clean, 2 for a wrong setting or a refusal, 1 for anything else.
  """
  try:
    return trio.run(program, *args) or EXIT_CLEAN
  except BaseException as problem:
    error = sole_leaf(problem)
  if isinstance(error, HetuflowError):
    with suppress(OSError):
      print(f"hetuflow: {error}", file=sys.stderr)
  elif not isinstance(error, SystemExit | KeyboardInterrupt):
    _log.critical("program_crashed", exc_info=error)
  return exit_code(error)
