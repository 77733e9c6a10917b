"""How many times a schedule fired in a span, and the newest of them, without listing all.

A schedule that fires each second has 34.5 million fires in 400 days; what was missed is
counted by days and segments of the time zone, and only what is asked for is listed.
"""

from datetime import datetime

from hetuflow.schedule.instants import LAST, SECOND, to_micros, to_moment
from hetuflow.schedule.timing import Timing, fire_times

__all__ = ["count_fires", "last_fires"]


def count_fires(timing: Timing, *, after: datetime, until: datetime) -> int:
  """Return how many fires a span has.

  Args:
    timing: the definition.
    after: the fires lie strictly behind it; aware.
    until: the last moment that counts; aware.
  """
  return timing.count_micros(to_micros(after), to_micros(until))


def last_fires(
  timing: Timing, *, after: datetime, until: datetime, count: int
) -> list[datetime]:
  """Return the newest fires of a span.

  Args:
    timing: the definition.
    after: the fires lie strictly behind it; aware.
    until: the last moment that counts; aware.
    count: how many at most.

  Returns:
    UTC times, strictly increasing.
  """
  if count <= 0:
    return []
  low, high = to_micros(after), min(to_micros(until), LAST)
  start = to_moment(_start_of_last(timing, low, high, count))
  return fire_times(timing, after=start, until=until, limit=count)


def _start_of_last(timing: Timing, after: int, until: int, count: int) -> int:
  """Return the instant behind which the last ``count`` fires of a span begin.

  Looks back in steps that double, then halves the step that holds the instant; what has
  been counted is not counted again.
  """
  high, step = until, SECOND
  while True:
    low = max(after, high - step)
    found = timing.count_micros(low, high)
    if found >= count or low == after:
      break
    count, high, step = count - found, low, 2 * step
  while found > count:
    middle = (low + high) // 2
    newer = timing.count_micros(middle, high)
    if newer >= count:
      low, found = middle, newer
    else:
      count, high, found = count - newer, middle, found - newer
  return low
