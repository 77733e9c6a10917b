"""What changes of the clock on the wall do to schedules."""

from typing import Literal
from zoneinfo import ZoneInfo

from attrs import frozen

from hetuflow.schedule.instants import SECOND, to_micros
from hetuflow.schedule.timing import Timing
from hetuflow.schedule.zones import segment_at

__all__ = ["ClockChange", "Effect", "clock_changes", "effect_of"]


@frozen(kw_only=True)
class ClockChange:
  """An instant at which a zone changes its offset.

  Args:
    at: in seconds since the epoch.
    before: the offset until then, in seconds east of UTC.
    after: the offset from then on.
  """

  at: int
  before: int
  after: int

  @property
  def kind(self) -> Literal["gap", "fold"]:
    """Whether wall times are left out, or come twice."""
    return "gap" if self.after > self.before else "fold"


@frozen(kw_only=True)
class Effect:
  """How many times of a schedule fire later, not at all, or twice because of a change."""

  moved: int = 0
  skipped: int = 0
  doubled: int = 0


def clock_changes(zone: ZoneInfo, *, start: int, end: int) -> list[ClockChange]:
  """Find the changes of a zone's clock.

  Args:
    zone: whose.
    start: the first instant, in microseconds since the epoch.
    end: the instant behind the last one.
  """
  found = []
  segment = segment_at(zone, start // SECOND)
  while segment.end * SECOND < end:
    if segment.after != segment.offset and segment.end * SECOND >= start:
      found.append(
        ClockChange(at=segment.end, before=segment.offset, after=segment.after)
      )
    segment = segment_at(zone, segment.end)
  return found


def effect_of(timing: Timing, change: ClockChange) -> Effect:
  """Say what a change of the clock of its zone does to a schedule.

  Intervals and single times do not read the wall, and nothing happens to them.
  """
  walls = timing.walls
  if walls is None or not _covers(timing, change.at * SECOND):
    return Effect()
  low, high = sorted((change.at + change.before, change.at + change.after))
  count = walls.count_walls(low, high)
  if change.kind == "fold":
    doubled = walls.wildcard or timing.dst.fold == "both"
    return Effect(doubled=count if doubled else 0)
  if walls.wildcard or timing.dst.gap == "skip":
    return Effect(skipped=count)
  return Effect(moved=count)


def _covers(timing: Timing, at: int) -> bool:
  """Tell whether a schedule fires at all around an instant."""
  start, end = timing.start_at, timing.end_at
  begun = start is None or to_micros(start) <= at
  return begun and (end is None or at <= to_micros(end))
