"""Whether tasks and gaps cover the planned times of a definition exactly once.

Gaps are compared by counting, what lies between them time by time: a gap of millions of
times costs as much as one of two.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice

import attrs

from hetuflow.protocol.model import LedgerCheck
from hetuflow.schedule import Timing, count_fires, fire_times, next_fire

__all__ = ["BookedGap", "check_coverage"]

SHOWN = 100
"""Times at fault that are listed; more would say no more."""
_MICROSECOND = timedelta(microseconds=1)


@attrs.frozen(kw_only=True)
class BookedGap:
  """A gap as it stands in the ledger."""

  from_at: datetime
  to_at: datetime
  count: int


@attrs.frozen(kw_only=True)
class _Stretch:
  """Times behind ``after`` up to ``until``; inside a gap or between gaps."""

  after: datetime
  until: datetime
  gap: BookedGap | None = None


def check_coverage(
  timing: Timing,
  *,
  after: datetime,
  until: datetime,
  tasks: Sequence[datetime],
  gaps: Sequence[BookedGap],
  limit: int,
) -> LedgerCheck:
  """Compare what is covered with what a definition has.

  Args:
    timing: the definition.
    after: the times lie strictly behind it.
    until: the last moment that counts.
    tasks: the planned times that have a task, in order; times that the definition does
      not have were there before it and are of no account.
    gaps: those that reach into the span, by their beginnings.
    limit: how many times to look at one by one; behind them the check ends.
  """
  if len(tasks) > limit:
    until = min(until, tasks[limit] - _MICROSECOND)
  found = _Findings(timing=timing, times=tasks, tasks=Counter(tasks), left=limit)
  at = after
  for stretch in _stretches(after, until, gaps):
    at = found.look_at(stretch)
    if at < stretch.until:
      break
  else:
    at = max(after, until)
  planned = count_fires(timing, after=after, until=at)
  return LedgerCheck(
    after_at=after,
    until_at=at,
    planned=planned,
    covered=planned - found.missing,
    uncovered=found.uncovered,
    doubled=found.doubled,
    miscounted=found.miscounted,
    complete=not (found.missing or found.doubled or found.miscounted),
    more=at < until or len(tasks) > limit,
  )


def _stretches(
  after: datetime, until: datetime, gaps: Sequence[BookedGap]
) -> Iterator[_Stretch]:
  """Cut a span into gaps and what is between them, in order."""
  at = after
  for gap in gaps:
    start, end = max(gap.from_at - _MICROSECOND, after), min(gap.to_at, until)
    if start >= until:
      break
    if start > at:
      yield _Stretch(after=at, until=start)
    yield _Stretch(after=start, until=end, gap=gap)
    at = max(at, end)
  if at < until:
    yield _Stretch(after=at, until=until)


@attrs.define(kw_only=True)
class _Findings:
  """What was found so far; ``left`` times may still be looked at one by one."""

  timing: Timing
  times: Sequence[datetime]
  tasks: Counter[datetime]
  left: int
  missing: int = 0
  uncovered: list[datetime] = attrs.field(factory=list)
  doubled: list[datetime] = attrs.field(factory=list)
  miscounted: list[datetime] = attrs.field(factory=list)
  _seen: datetime | None = None

  def look_at(self, stretch: _Stretch) -> datetime:
    """Compare one stretch; return up to where it was looked at."""
    if stretch.gap is None:
      return self._look_between(stretch)
    self._look_inside(stretch, stretch.gap)
    return stretch.until

  def _look_between(self, stretch: _Stretch) -> datetime:
    """Demand one task for each time."""
    times = fire_times(
      self.timing, after=stretch.after, until=stretch.until, limit=self.left
    )
    cut = len(times) == self.left
    self.left -= len(times)
    uncovered = [at for at in times if not self.tasks[at]]
    self.missing += len(uncovered)
    _list(self.uncovered, uncovered)
    _list(self.doubled, [at for at in times if self.tasks[at] > 1])
    if not cut:
      return stretch.until
    return times[-1] if times else stretch.after

  def _look_inside(self, stretch: _Stretch, gap: BookedGap) -> None:
    """Demand no task, no other gap, and the right count of a gap that is all in view."""
    first = bisect_right(self.times, stretch.after)
    taken = self.times[first : bisect_right(self.times, stretch.until)]
    _list(self.doubled, [at for at in taken if self._is_planned(at)])
    if self._seen is not None and self._seen > stretch.after:
      both = min(self._seen, stretch.until)
      times = fire_times(self.timing, after=stretch.after, until=both, limit=SHOWN)
      _list(self.doubled, times)
    self._seen = max(stretch.until, self._seen or stretch.until)
    if stretch.after < gap.from_at and stretch.until == gap.to_at:
      count = count_fires(
        self.timing, after=gap.from_at - _MICROSECOND, until=gap.to_at
      )
      if count != gap.count:
        _list(self.miscounted, [gap.from_at])

  def _is_planned(self, at: datetime) -> bool:
    """Tell whether the definition has a time."""
    return next_fire(self.timing, after=at - _MICROSECOND) == at


def _list(known: list[datetime], more: Sequence[datetime]) -> None:
  """Add times that are at fault, as long as they are shown."""
  known.extend(islice(more, max(0, SHOWN - len(known))))
