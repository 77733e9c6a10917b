"""From wall times to instants: cron in a time zone, through every change of its clock.

A job at a fixed time (neither its minute nor its hour begins with ``*``) fires once for
each wall time it names: one that falls into a gap fires at the first instant after it (or
not at all), one that occurs twice fires as the policy says. A job with ``*`` in one of
them follows the clock on the wall: what the clock does not show does not fire, what it
shows twice fires twice. That is what Debian's cron does, with two differences: it lets
fixed-time jobs catch up only when the clock jumps by less than three hours, while here
the rule holds for gaps of any size (Samoa skipped 2011-12-30 as a whole: that day's jobs
fire as the 31st begins); and wall times that meet in one instant fire once, not each.
"""

from typing import Literal, get_args
from zoneinfo import ZoneInfo

from attrs import frozen

from hetuflow.errors import ScheduleError
from hetuflow.schedule.walls import NEVER, WallTimes
from hetuflow.schedule.zones import Segment, segment_at

__all__ = ["DstPolicy", "Fold", "Gap", "count_instants", "next_instant", "shown_walls"]

Gap = Literal["shift", "skip"]
Fold = Literal["first", "both", "last"]

# No offset or change of it moves a wall time further than this from its instant.
_REACH = 2 * 86_400


@frozen(kw_only=True)
class DstPolicy:
  """What a job at a fixed time does where the clock on the wall jumps.

  Args:
    gap: a time that does not occur fires at the first instant after the gap
      (``shift``) or not at all (``skip``).
    fold: a time that occurs twice fires the first time, both times or the last time.

  Raises:
    ScheduleError: another word; field ``dst``.
  """

  gap: Gap = "shift"
  fold: Fold = "first"

  def __attrs_post_init__(self) -> None:
    """Refuse words that are not of the policy."""
    _check_word("gap", self.gap, get_args(Gap))
    _check_word("fold", self.fold, get_args(Fold))


def _check_word(name: str, word: str, allowed: tuple[str, ...]) -> None:
  """Raise ScheduleError unless a word of the policy is one of the allowed."""
  if word not in allowed:
    raise ScheduleError(
      f"dst.{name} {word!r} is unknown; allowed: {', '.join(allowed)}", field="dst"
    )


def next_instant(
  job: WallTimes, zone: ZoneInfo, dst: DstPolicy, *, after: int, until: int
) -> int | None:
  """Return the first fire after an instant.

  Args:
    job: the wall times.
    zone: whose wall.
    dst: the policy for jobs at fixed times.
    after: seconds since the epoch; the fire lies strictly behind it.
    until: the last instant that counts, in seconds since the epoch.

  Returns:
    Seconds since the epoch, or None when nothing fires until ``until`` or 2199.
  """
  at = max(after + 1, -_REACH)
  while at <= until:
    segment = segment_at(zone, at)
    if at == segment.start and _shifted_to_start(job, segment, dst):
      return at
    low, high = shown_walls(segment, dst, wildcard=job.wildcard)
    wall = job.next_wall(max(low, at + segment.offset))
    if wall < high:
      fire = wall - segment.offset
      return fire if fire <= until else None
    at = segment.end
    # Where the clock goes back, earlier wall times come again: look at that segment.
    if segment.after >= segment.offset:
      if wall == NEVER:
        return None
      at = max(at, wall - _REACH)
  return None


def count_instants(
  job: WallTimes, zone: ZoneInfo, dst: DstPolicy, *, after: int, until: int
) -> int:
  """Return how many fires a span has, by counting days and not fires.

  Args:
    job: the wall times.
    zone: whose wall.
    dst: the policy for jobs at fixed times.
    after: seconds since the epoch; the fires lie strictly behind it.
    until: the last instant that counts, in seconds since the epoch.
  """
  total = 0
  at = max(after + 1, -_REACH)
  while at <= until:
    segment = segment_at(zone, at)
    low, high = shown_walls(segment, dst, wildcard=job.wildcard)
    first = segment.start + segment.offset
    if at == segment.start and _shifted_to_start(job, segment, dst):
      # What is moved to an instant at which another time fires anyway is one with it.
      total += not (low <= first < high and job.next_wall(first) == first)
    high = min(high, until + 1 + segment.offset)
    total += job.count_walls(max(low, at + segment.offset), high)
    at = segment.end
  return total


def _shifted_to_start(job: WallTimes, segment: Segment, dst: DstPolicy) -> bool:
  """Tell whether a fixed time fell into the gap that ends where the segment starts."""
  if job.wildcard or dst.gap == "skip" or segment.before >= segment.offset:
    return False
  last_shown = segment.start + segment.before
  return job.next_wall(last_shown) < segment.start + segment.offset


def shown_walls(
  segment: Segment, dst: DstPolicy, *, wildcard: bool = False
) -> tuple[int, int]:
  """Return the wall times of a segment that count: from the first, up to the second."""
  low, high = segment.start + segment.offset, segment.end + segment.offset
  if not wildcard:
    if dst.fold == "first":
      low = max(low, segment.start + segment.before)
    elif dst.fold == "last":
      high = min(high, segment.end + segment.after)
  return low, high
