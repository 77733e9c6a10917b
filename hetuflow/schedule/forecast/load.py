"""How many tasks are under way, hour by hour."""

from attrs import define, field

__all__ = ["HOUR", "Hour", "Load"]

HOUR = 3_600_000_000
"""One hour, in microseconds."""


@define
class Hour:
  """One hour of a span.

  ``fires`` are the planned times in it; ``busy`` is how long tasks were under way, in
  microseconds of all of them together; ``peak`` how many at most at the same time, and
  ``peak_at`` since when, in microseconds since the epoch.
  """

  start: int
  fires: float = 0
  busy: float = 0
  peak: int = 0
  peak_at: int = 0


@define(kw_only=True)
class Load:
  """Adds up what is under way from one instant to the next, all in microseconds.

  Args:
    start: where the first hour begins.
    end: what lies behind it does not count; the last hour may be shorter.
  """

  start: int
  end: int
  running: int = 0
  hours: list[Hour] = field(init=False)
  _at: int = field(init=False)

  def __attrs_post_init__(self) -> None:
    """Begin with empty hours."""
    self._at = self.start
    self.hours = [Hour(at, peak_at=at) for at in range(self.start, self.end, HOUR)]

  def move_to(self, at: int) -> None:
    """Let time pass, with as many under way as there are."""
    at = min(at, self.end)
    while self._at < at:
      hour = self.hours[(self._at - self.start) // HOUR]
      until = min(at, hour.start + HOUR)
      hour.busy += self.running * (until - self._at)
      self._at = until
      if until < self.end and (until - self.start) % HOUR == 0:
        self._mark()

  def change(self, by: int) -> None:
    """Begin or end some at the instant that time has come to."""
    self.running += by

  def settle(self) -> None:
    """Take note of how many there are when all of an instant has happened."""
    if self._at < self.end:
      self._mark()

  def count_fire(self) -> None:
    """Count a planned time at the instant that time has come to."""
    self.hours[(self._at - self.start) // HOUR].fires += 1

  def _mark(self) -> None:
    """Raise the peak of the hour."""
    hour = self.hours[(self._at - self.start) // HOUR]
    if self.running > hour.peak:
      hour.peak, hour.peak_at = self.running, self._at
