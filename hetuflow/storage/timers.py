"""Cancelled timers of the asyncio loop are forgotten, as asyncio itself forgets them.

Every statement sets a timer for its time limit, and every connection that is given back
one for its idleness; nearly all are cancelled. trio-asyncio keeps each until its time,
for minutes, and with it the context of whoever made it: a server held the bodies of all
requests of the last five minutes.

Owns nothing: it works on the timers of a loop, in that loop's thread.
"""

import asyncio
import heapq
from contextvars import Context
from typing import Any

__all__ = ["forget_cancelled_timers"]

KEPT = 100
"""Timers below which there is nothing worth sweeping."""

_NOTHING = Context()


def forget_cancelled_timers(loop: Any) -> None:
  """Let a loop drop what a timer holds when it is cancelled, and the timer soon after.

  The heap is swept whenever it has doubled, which costs a constant per timer.

  Args:
    loop: of trio-asyncio, not yet in use.
  """
  limit = KEPT

  def note_cancelled(handle: asyncio.TimerHandle) -> None:
    """Drop a timer's context, and the cancelled timers once there are many."""
    nonlocal limit
    # asyncio drops callback and arguments by itself.
    handle._context = _NOTHING  # type: ignore[attr-defined]  # no public way
    timers = loop._timers
    if len(timers) > limit:
      timers[:] = [timer for timer in timers if not timer.cancelled()]
      heapq.heapify(timers)
      limit = 2 * len(timers) + KEPT

  loop._timer_handle_cancelled = note_cancelled
