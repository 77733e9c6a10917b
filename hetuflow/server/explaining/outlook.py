"""When a task may start, from how long its job took before."""

import heapq
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from statistics import median

__all__ = ["expect_start", "spread_ends"]


def spread_ends(now: datetime, slots: int, seconds: float) -> list[datetime]:
  """Guess when full slots get free of which only the number is known.

  Args:
    now: the time.
    slots: how many.
    seconds: how long an attempt takes; the slots are thought to be evenly far in it.
  """
  return [
    now + timedelta(seconds=seconds * (number + 1) / slots) for number in range(slots)
  ]


def expect_start(
  ends: Iterable[datetime], ahead: int, durations: Sequence[float]
) -> datetime | None:
  """Guess when the next but so many gets a place.

  Args:
    ends: when each place gets free.
    ahead: how many others come before.
    durations: seconds that attempts took lately; each to come is thought to take the
      middle one.

  Returns:
    When, or None where nothing is known of the job or there are no places.
  """
  free = list(ends)
  if not free or not durations:
    return None
  heapq.heapify(free)
  took = timedelta(seconds=median(durations))
  try:
    for _ in range(ahead):
      heapq.heapreplace(free, free[0] + took)
  except OverflowError:
    return None  # beyond what a calendar has
  return free[0]
