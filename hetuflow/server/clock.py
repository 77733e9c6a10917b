"""The database's time, as this server knows it between two looks at it."""

import time
from datetime import UTC, datetime, timedelta

__all__ = ["DatabaseClock"]


class DatabaseClock:
  """An offset between this process's monotonic clock and the database's wall clock.

  The database's answer is taken to stand for the middle of the time the question took,
  so the error is at most half of that; quick exchanges replace slow ones, old ones are
  replaced by any, and so are those that can no longer be true: a clock was set, or this
  machine was suspended.

  Args:
    gap: seconds of the database's time between two answers from which on they count as
      having been out of touch.
  """

  MAX_AGE = 10.0
  """Seconds after which a quick exchange no longer beats a fresh one."""
  DRIFT = 0.005
  """Seconds by which two sound clocks may part in that time."""
  UNKNOWN = 86_400.0
  """The error in seconds before the first answer."""

  def __init__(self, *, gap: float = 4.0) -> None:
    self._gap = timedelta(seconds=gap)
    self._anchor: datetime = datetime.now(UTC)
    self._at = time.monotonic()
    self._error = self.UNKNOWN
    self._latest = self._steady_since = datetime.max.replace(tzinfo=UTC)

  def learn(self, read: datetime, asked_at: float, answered_at: float) -> None:
    """Take a reading of the database's clock.

    Args:
      read: what the database said.
      asked_at: when it was asked, by ``time.monotonic()``.
      answered_at: when the answer was there.
    """
    if not timedelta(0) <= read - self._latest <= self._gap:
      self._steady_since = read
    self._latest = read
    error = (answered_at - asked_at) / 2
    middle = (asked_at + answered_at) / 2
    surprise = abs((read - self.now(middle)).total_seconds())
    if (
      error <= self._error
      or answered_at - self._at > self.MAX_AGE
      or surprise > error + self._error + self.DRIFT
    ):
      self._anchor, self._at, self._error = read, middle, error

  def now(self, at: float | None = None) -> datetime:
    """Return the database's time, now or at a moment of ``time.monotonic()``."""
    moment = time.monotonic() if at is None else at
    return self._anchor + timedelta(seconds=moment - self._at)

  @property
  def steady_since(self) -> datetime:
    """Since when the database has been in touch, by its own time; never: far ahead.

    It was not while it was away, this process frozen or its machine suspended; nor is it
    when its time leaps.
    """
    return self._steady_since

  @property
  def error(self) -> float:
    """How far the clock may be off, in seconds."""
    return self._error
