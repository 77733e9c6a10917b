"""The output of attempts that the server does not have yet, and the results behind it.

Who runs it: the outbox owns it; plain calls of the Trio thread. It bounds the memory that
live output takes: beyond the bound whoever has more of it waits for room.
"""

from collections.abc import Iterable
from uuid import UUID

import trio
from attrs import define, field

from hetuflow.agent.reporting.lane import Report

__all__ = ["Backlog"]


@define(eq=False)
class _Output:
  """The output of one attempt that is not acknowledged, and the result behind it."""

  reports: list[Report] = field(factory=list)
  unsent: int = 0
  result: Report | None = None


class Backlog:
  """Keeps output by attempt.

  Args:
    limit_bytes: how much of it may wait.
  """

  def __init__(self, limit_bytes: int) -> None:
    self._limit_bytes = limit_bytes
    self._bytes = 0
    self._room = trio.Event()
    self._outputs: dict[UUID, _Output] = {}

  @property
  def parked(self) -> int:
    """How many results wait for their output to be sent."""
    return sum(each.result is not None for each in self._outputs.values())

  @property
  def full(self) -> bool:
    """Whether there is no room for more."""
    return self._bytes >= self._limit_bytes

  async def wait_room(self) -> None:
    """Return when there is room, for one of those who wait at least."""
    while self.full:
      await self._room.wait()

  def add(self, report: Report) -> None:
    """Take up a piece of output."""
    output = self._outputs.setdefault(report.instance_id, _Output())
    output.reports.append(report)
    output.unsent += 1
    self._bytes += report.size

  def park(self, result: Report) -> bool:
    """Keep a result until its output is sent; False if that is so already."""
    output = self._outputs.get(result.instance_id)
    if output is None or not output.unsent:
      return False
    output.result = result
    return True

  def note_sent(self, report: Report) -> Report | None:
    """Note that a piece was sent; return the result, if it was the last before it."""
    output = self._outputs.get(report.instance_id)
    if output is None:
      return None
    output.unsent -= 1
    if output.unsent:
      return None
    result, output.result = output.result, None
    return result

  def settle(self, report: Report) -> None:
    """Let go of a piece that was acknowledged."""
    output = self._outputs.get(report.instance_id)
    if output is not None and report in output.reports:
      output.reports.remove(report)
      if not output.reports and output.result is None:
        del self._outputs[report.instance_id]

  def drop(self, instance_id: UUID) -> list[Report]:
    """Let go of everything of an attempt; return it."""
    output = self._outputs.pop(instance_id, None)
    if output is None:
      return []
    return [*output.reports, *([output.result] if output.result else [])]

  def unrecorded(self, instance_ids: Iterable[UUID]) -> list[Report]:
    """List the output of attempts that is in memory only."""
    if not self._outputs:
      return []
    return [
      report
      for instance_id in instance_ids
      if (output := self._outputs.get(instance_id)) is not None
      for report in output.reports
      if not report.seq
    ]

  def free(self, report: Report) -> None:
    """Give back the memory of a piece."""
    if report.size:
      self._bytes -= report.size
      self._room.set()
      self._room = trio.Event()
