"""A level-triggered hint that there may be something to do.

Who runs it: one loop waits, anybody in the same Trio thread sets. It owns nothing but
one bit. If the setter dies no hint comes, and the loop still runs at its timeout:
a wake-up is a hint, polling is the truth.

Invariant: a ``set()`` that happens before a ``wait()`` begins, or while it waits, ends
that wait; the bit is cleared only by a wait that returns True. A wait that is cancelled
leaves the bit alone.

Rejected: a memory channel (a full one drops or blocks, a burst wakes once per item); a
bare ``trio.Event`` (every user would write the swap, and some would lose a set in it).
"""

import math

import trio

__all__ = ["Wakeup"]


class Wakeup:
  """One loop's wake-up: many sets before a wait are one."""

  def __init__(self) -> None:
    self._event = trio.Event()
    self._taken = False

  def set(self) -> None:
    """Wake the waiter, or the next one to come; from the Trio thread only."""
    self._event.set()

  async def wait(self, timeout: float | None = None) -> bool:
    """Wait for a hint and take it.

    Args:
      timeout: seconds after which to return anyway, the loop's poll interval; None waits
        for as long as it takes.

    Returns:
      True if woken, False if the time was up.

    Raises:
      trio.BusyResourceError: another task waits already.
    """
    if self._taken:
      raise trio.BusyResourceError("this wake-up has a waiter")
    self._taken = True
    try:
      with trio.move_on_after(math.inf if timeout is None else timeout):
        await self._event.wait()
    finally:
      self._taken = False
    woken = self._event.is_set()
    if woken:
      self._event = trio.Event()
    return woken
