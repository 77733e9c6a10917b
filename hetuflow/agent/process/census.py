"""The process table, read once for all who want to know it at the same time.

Who runs it: whoever ends a tree awaits `take_census`; many may, in one Trio thread. A
reading takes some 10 ms for every few hundred processes, so it gives way to other tasks
on its way, and those who ask while one is under way share the next. If the reader is
cancelled, another of those who wait reads instead.
"""

import os

import trio
from attrs import define, frozen

from hetuflow.agent.process.stat import Stat, read_instance_id, read_stats

__all__ = ["Census", "take_census"]

SLICE = 32


@frozen(kw_only=True)
class Census:
  """The processes of the machine, but for ourselves.

  Args:
    stats: what the kernel says of each.
    instance_ids: by process id, for which task instance it was started, if for any.
  """

  stats: list[Stat]
  instance_ids: dict[int, str]


@define(eq=False)
class _Reading:
  """One reading that is to come, and its result."""

  census: Census | None = None


class _Office:
  """Lets one read at a time, and those who come meanwhile share the next reading."""

  def __init__(self) -> None:
    self._turn = trio.Lock()
    self._next = _Reading()

  async def take(self) -> Census:
    """Return a census that was begun after this was called."""
    reading = self._next
    async with self._turn:
      if reading.census is None:
        if self._next is reading:
          self._next = _Reading()
        reading.census = await _read()
      return reading.census


_office = _Office()


async def take_census() -> Census:
  """Read the process table; what it says is not older than the call."""
  return await _office.take()


async def _read() -> Census:
  """Read the process table in slices."""
  stats, instance_ids = [], {}
  for number, stat in enumerate(read_stats()):
    if number % SLICE == 0:
      await trio.lowlevel.checkpoint()
    if stat.pid == os.getpid():
      continue
    stats.append(stat)
    if (instance_id := read_instance_id(stat.pid)) is not None:
      instance_ids[stat.pid] = instance_id
  return Census(stats=stats, instance_ids=instance_ids)
