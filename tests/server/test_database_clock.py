"""The database's time between two looks at it."""

import time
from datetime import UTC, datetime, timedelta

from hetuflow.server.clock import DatabaseClock

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def seconds(clock: DatabaseClock, at: float) -> float:
  """Say how long after noon the clock thinks it is."""
  return (clock.now(at) - NOON).total_seconds()


def start() -> tuple[DatabaseClock, float]:
  """Make a clock that has learned noon exactly, and when that was."""
  clock, at = DatabaseClock(), time.monotonic()
  clock.learn(NOON, at - 0.001, at + 0.001)
  return clock, at


def test_before_the_first_answer_its_error_is_one_that_can_be_told() -> None:
  assert DatabaseClock().error == DatabaseClock.UNKNOWN


def test_an_answer_stands_for_the_middle_of_its_question() -> None:
  clock, at = DatabaseClock(), time.monotonic()
  clock.learn(NOON, at, at + 0.2)
  assert abs(seconds(clock, at + 0.1)) < 1e-5
  assert abs(seconds(clock, at + 5.1) - 5) < 1e-5
  assert abs(clock.error - 0.1) < 1e-9


def test_a_slow_answer_does_not_replace_a_quick_one() -> None:
  clock, at = start()
  clock.learn(NOON + timedelta(seconds=1.04), at + 0.9, at + 1.1)
  assert abs(seconds(clock, at + 1) - 1) < 1e-5


def test_an_old_answer_is_replaced_by_any() -> None:
  clock, at = start()
  later = at + DatabaseClock.MAX_AGE + 1
  clock.learn(NOON + timedelta(seconds=11.05), later - 0.1, later + 0.1)
  assert abs(seconds(clock, later) - 11.05) < 1e-5
  assert abs(clock.error - 0.1) < 1e-9


def test_an_answer_that_both_clocks_cannot_explain_is_believed_at_once() -> None:
  # The machine was suspended for an hour, which the monotonic clock does not count.
  clock, at = start()
  clock.learn(NOON + timedelta(hours=1), at + 0.9, at + 1.1)
  assert abs(seconds(clock, at + 1) - 3_600) < 1e-5


def test_the_database_has_been_in_touch_since_the_last_gap_between_its_answers() -> (
  None
):
  clock = DatabaseClock(gap=2.0)
  assert clock.steady_since > NOON + timedelta(days=36_500)

  def hear(second: float) -> float:
    """Take an answer; return since when there was no gap, in seconds after noon."""
    at = time.monotonic()
    clock.learn(NOON + timedelta(seconds=second), at, at)
    return (clock.steady_since - NOON).total_seconds()

  assert [hear(second) for second in (0, 1, 3, 4)] == [0, 0, 0, 0]
  assert [hear(second) for second in (6.5, 8)] == [6.5, 6.5]
  # It was set back: leases last as much longer.
  assert [hear(second) for second in (3, 4)] == [3, 3]
