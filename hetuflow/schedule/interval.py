"""Fixed intervals: anchor + k * interval, exact to the microsecond."""

__all__ = ["count_in_interval", "next_in_interval"]


def next_in_interval(anchor: int, step: int, *, after: int) -> int:
  """Return the first time of a series after an instant.

  The series starts with the anchor itself and is computed from it each time, so it never
  drifts; changes of daylight saving time do not move it.

  Args:
    anchor: the first time; like all here in microseconds since the epoch.
    step: the interval, in microseconds, above 0.
    after: the result lies strictly behind it.
  """
  return anchor + max((after - anchor) // step + 1, 0) * step


def count_in_interval(anchor: int, step: int, *, after: int, until: int) -> int:
  """Return how many times of a series lie after ``after`` and not after ``until``."""
  first = next_in_interval(anchor, step, after=after)
  return max((until - first) // step + 1, 0)
