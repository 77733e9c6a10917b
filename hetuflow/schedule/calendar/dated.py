"""Cron under calendars: the same times of day, on other days.

As a cron job has the same times on each of its days, calendars change its days alone; the
walk through the time zone stays as it is, and what moves to one day fires once.
"""

from attrs import field, frozen

from hetuflow.schedule.calendar.opening import OpenDays
from hetuflow.schedule.cron import CronExpression
from hetuflow.schedule.walls import NEVER, WallTimes

__all__ = ["DatedCron"]


@frozen(kw_only=True)
class DatedCron(WallTimes):
  """The wall times of an expression that calendars leave, or move."""

  expression: CronExpression
  opening: OpenDays
  # The last question and its answer, which is that of all days between the two: where
  # calendars leave nothing for long, the search is not repeated with each question.
  _known: list[tuple[int, int]] = field(
    factory=lambda: [(0, -1)], init=False, eq=False, repr=False
  )

  @property
  def wildcard(self) -> bool:
    """What it is for the expression."""
    return self.expression.wildcard

  @property
  def first_of_day(self) -> int:
    """What it is for the expression."""
    return self.expression.first_of_day

  def next_day(self, ordinal: int) -> int:
    """Return the first day at or after one on which something fires, or NEVER."""
    asked, found = self._known[0]
    if not asked <= ordinal <= found:
      found = self._search_day(ordinal)
      self._known[0] = ordinal, found
    return found

  def _search_day(self, ordinal: int) -> int:
    """Do what ``next_day`` promises."""
    day = ordinal
    while True:
      day = self.opening.next_open(day)
      if day == NEVER:
        return NEVER
      planned = self.expression.next_day(self.opening.first_source(day))
      if planned == NEVER:
        return NEVER
      if any(self._plans(source) for source in self.opening.sources(day)):
        return day
      day = max(day + 1, self.opening.first_target(planned))

  def _plans(self, day: int) -> bool:
    """Tell whether the expression by itself selects a day."""
    return self.expression.next_day(day) == day

  def next_in_day(self, at: int) -> int:
    """Return the first selected second of a day at or after ``at``, or -1."""
    return self.expression.next_in_day(at)

  def count_in_day(self, at: int) -> int:
    """Return how many selected seconds of a day lie before ``at``."""
    return self.expression.count_in_day(at)

  def count_days(self, first: int, last: int) -> int:
    """Return how many days are selected from ``first`` up to but without ``last``."""
    count, day = 0, self.next_day(first)
    while day < last:
      count, day = count + 1, self.next_day(day + 1)
    return count
