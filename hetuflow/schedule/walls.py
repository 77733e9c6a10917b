"""Days, and times of day that are the same on each of them: what a cron job names.

Wall times are integers: seconds since 1970-01-01T00:00:00 read off a clock on the wall,
so that ``wall // 86400`` is a day and ``wall % 86400`` the second of that day. Days are
ordinals of ``date``. Time zones come in ``walk``.
"""

from abc import ABC, abstractmethod
from datetime import date

__all__ = ["DAY", "EPOCH_ORDINAL", "NEVER", "WallTimes"]

NEVER = 1 << 62
"""The wall time, or day, that lies after every other."""

DAY = 86_400
EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


class WallTimes(ABC):
  """Wall times in order: some days, and on each of them the same times of day."""

  __slots__ = ()

  @property
  @abstractmethod
  def wildcard(self) -> bool:
    """True when the job goes along with the wall clock as it is changed."""

  @property
  @abstractmethod
  def first_of_day(self) -> int:
    """The second of the day at which a selected day first fires."""

  @abstractmethod
  def next_day(self, ordinal: int) -> int:
    """Return the first selected day at or after one, as ordinals, or NEVER."""

  @abstractmethod
  def next_in_day(self, at: int) -> int:
    """Return the first selected second of a day at or after ``at``, or -1."""

  @abstractmethod
  def count_days(self, first: int, last: int) -> int:
    """Return how many days are selected from ``first`` up to but without ``last``."""

  @abstractmethod
  def count_in_day(self, at: int) -> int:
    """Return how many selected seconds of a day lie before ``at``."""

  def next_wall(self, wall: int) -> int:
    """Return the first selected wall time at or after one, or NEVER after 2199."""
    day, second = divmod(wall, DAY)
    ordinal = day + EPOCH_ORDINAL
    found = self.next_day(ordinal)
    if found == ordinal:
      at = self.next_in_day(second)
      if at >= 0:
        return day * DAY + at
      found = self.next_day(ordinal + 1)
    if found == NEVER:
      return NEVER
    return (found - EPOCH_ORDINAL) * DAY + self.first_of_day

  def count_walls(self, low: int, high: int) -> int:
    """Return how many wall times lie from ``low`` up to but without ``high``."""
    if high <= low:
      return 0
    first, start = divmod(low, DAY)
    last, end = divmod(high, DAY)
    first, last = first + EPOCH_ORDINAL, last + EPOCH_ORDINAL
    total = self.count_days(first, last) * self.count_in_day(DAY)
    if start and self.next_day(first) == first:
      total -= self.count_in_day(start)
    if end and self.next_day(last) == last:
      total += self.count_in_day(end)
    return total
