"""Instants as whole microseconds since the epoch, which are exact and quick to count with."""

from datetime import UTC, datetime, timedelta

from hetuflow.schedule.fields import LAST_YEAR

__all__ = ["LAST", "SECOND", "to_micros", "to_moment"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

SECOND = 1_000_000
"""One second, in microseconds."""

LAST = (datetime(LAST_YEAR, 12, 31, 23, 59, 59, tzinfo=UTC) - _EPOCH) // _MICROSECOND
"""The last instant at which anything fires."""


def to_micros(moment: datetime) -> int:
  """Return the microseconds from the epoch to an aware moment, exactly."""
  return (moment - _EPOCH) // _MICROSECOND


def to_moment(micros: int) -> datetime:
  """Return the UTC time of microseconds since the epoch."""
  return _EPOCH + timedelta(microseconds=micros)
