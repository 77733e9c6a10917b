"""One attempt as the code that runs it sees it."""

from collections.abc import Callable
from typing import Protocol

import trio

from hetuflow.agent.instances import Instance, Stop
from hetuflow.agent.process.chunks import Chunk
from hetuflow.agent.reporting.outbox import Outbox
from hetuflow.agent.reporting.reports import Outcome
from hetuflow.nursery import Wakeup
from hetuflow.protocol.states import TaskInstanceStatus

__all__ = ["Attempt", "Runner", "Turned"]


class Turned(Exception):
  """The attempt must not start any more.

  Args:
    outcome: what to report instead.
  """

  def __init__(self, outcome: Outcome) -> None:
    self.outcome = outcome
    super().__init__(outcome.reason)


class Attempt:
  """Runs once; made when an attempt gets its slot.

  Its runner says in ``cut_short`` that it was told to end before it had ended, and in
  ``result`` how it went, should that be known before its output is on its way: what waits
  for room is not worth running it again.

  Args:
    instance: what to run.
    refusal: says what to report if it must not start at this moment.
    outbox: takes output, and that it runs.
  """

  def __init__(
    self,
    instance: Instance,
    *,
    refusal: Callable[[Instance], Outcome | None],
    outbox: Outbox,
  ) -> None:
    self.instance = instance
    self.started_at: float | None = None
    self.cut_short = False
    self.result: Outcome | None = None
    self._refusal = refusal
    self._outbox = outbox
    self._stopped = instance.listener = Wakeup()

  def check(self) -> None:
    """Ask for the last time whether it may start: right before it does.

    Raises:
      Turned: it must not.
    """
    outcome = self._refusal(self.instance)
    if outcome is not None:
      raise Turned(outcome)

  def note_started(self, started_at: float) -> None:
    """Report that it runs, since ``started_at`` in epoch seconds."""
    self.started_at = started_at
    self._outbox.note_started(self.instance, started_at)

  async def wait_stop(self) -> Stop:
    """Wait until it is to end, by its time limit or because somebody asked."""
    timeout = self.instance.job.config.timeout
    with trio.move_on_after(timeout or float("inf")):
      return await self.wait_asked()
    stop = Stop(
      status=TaskInstanceStatus.TIMEOUT,
      reason=f"timeout after {timeout:g} s",
      grace=self.instance.job.config.kill_grace,
    )
    self.instance.ask_to_stop(stop)
    return stop

  async def wait_asked(self) -> Stop:
    """Wait until somebody asks for its end, or for a quicker one."""
    while True:
      await self._stopped.wait()
      if self.instance.stop is not None:
        return self.instance.stop

  # The two that ``collect`` wants of what takes its chunks.

  def send_nowait(self, chunk: Chunk) -> None:
    """Report a piece of output.

    Raises:
      trio.WouldBlock: there is no room for more.
    """
    self._outbox.add_chunk_nowait(self.instance, chunk)

  async def send(self, chunk: Chunk) -> None:
    """Report a piece of output, waiting for room."""
    await self._outbox.add_chunk(self.instance, chunk)


class Runner(Protocol):
  """What an executor is: it runs one attempt to its end."""

  async def run(self, attempt: Attempt) -> Outcome:
    """Run it and return how it went.

    Raises:
      Turned: it must not start any more.
      LaunchError: it could not be started.
    """
