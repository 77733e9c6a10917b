"""The comparison of what is covered with what a definition has."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hetuflow.protocol.model import LedgerCheck
from hetuflow.schedule import Timing
from hetuflow.storage.coverage import BookedGap, check_coverage

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
EACH_MINUTE = Timing(kind="cron", cron_expression="* * * * *")


def minute(number: float) -> datetime:
  """Return some minute after noon."""
  return NOON + timedelta(minutes=number)


def gap(first: int, last: int, count: int | None = None) -> BookedGap:
  """Book the minutes from one to another."""
  return BookedGap(
    from_at=minute(first),
    to_at=minute(last),
    count=last - first + 1 if count is None else count,
  )


def check(
  tasks: list[float], gaps: list[BookedGap], until: int = 20, **more: Any
) -> LedgerCheck:
  """Look at the minutes behind noon."""
  return check_coverage(
    EACH_MINUTE,
    **{
      "after": NOON,
      "until": minute(until),
      "tasks": [minute(number) for number in tasks],
      "gaps": gaps,
      "limit": 1_000,
    }
    | more,
  )


def test_tasks_and_gaps_that_cover_each_time_once_are_complete() -> None:
  found = check([*range(1, 6), *range(15, 21)], [gap(6, 9), gap(10, 14)])
  assert found.complete
  assert (found.planned, found.covered, found.more) == (20, 20, False)
  assert (found.after_at, found.until_at) == (NOON, minute(20))


def test_times_that_nothing_covers_are_listed() -> None:
  found = check([1, 2, 3, 20], [gap(6, 18)])
  assert not found.complete
  assert found.uncovered == [minute(4), minute(5), minute(19)]
  assert (found.planned, found.covered) == (20, 17)


def test_times_with_two_tasks_or_a_task_and_a_gap_or_two_gaps_are_listed() -> None:
  found = check(sorted([*range(1, 11), 3, 12]), [gap(11, 15), gap(15, 20)])
  assert found.doubled == [minute(3), minute(12), minute(15)]
  assert found.uncovered == []
  assert not found.complete


def test_a_gap_that_counts_otherwise_than_the_definition_is_named() -> None:
  found = check(list(range(1, 11)), [gap(11, 20, count=9)])
  assert found.miscounted == [minute(11)]
  assert not found.complete


def test_a_gap_that_reaches_out_of_the_span_is_taken_at_its_word() -> None:
  assert check([], [gap(-9, 40, count=7)]).complete


def test_times_that_the_definition_does_not_have_are_of_no_account() -> None:
  found = check([0.5, *range(1, 11), 12.5], [gap(11, 20)])
  assert found.complete
  assert found.planned == 20


def test_a_gap_of_years_of_seconds_is_compared_by_counting() -> None:
  timing = Timing(kind="cron", cron_expression="* * * * * *")
  end = NOON + timedelta(days=4_000)
  booked = BookedGap(
    from_at=NOON + timedelta(seconds=1), to_at=end, count=4_000 * 86_400
  )
  found = check_coverage(
    timing, after=NOON, until=end, tasks=[], gaps=[booked], limit=10
  )
  assert found.complete
  assert found.planned == 4_000 * 86_400


@settings(max_examples=200, deadline=None)
@given(
  tasks=st.lists(st.integers(1, 60), max_size=70),
  gaps=st.lists(st.tuples(st.integers(-5, 65), st.integers(0, 12)), max_size=6),
  limit=st.integers(1, 70),
)
def test_it_says_what_a_look_at_each_time_says(
  tasks: list[int], gaps: list[tuple[int, int]], limit: int
) -> None:
  booked = [gap(first, first + more) for first, more in sorted(gaps)]
  tasks.sort()
  covers = {
    minute(number): tasks.count(number)
    + sum(
      minute(number) >= each.from_at and minute(number) <= each.to_at for each in booked
    )
    for number in range(1, 61)
  }
  uncovered, doubled, covered, at = [], set(), 0, NOON
  for _ in range(100):
    found = check_coverage(
      EACH_MINUTE,
      after=at,
      until=minute(60),
      tasks=[minute(number) for number in tasks if minute(number) > at][: limit + 1],
      gaps=[each for each in booked if each.to_at > at],
      limit=limit,
    )
    uncovered += found.uncovered
    doubled |= set(found.doubled)
    covered += found.covered
    if not found.more:
      break
    if found.until_at == at:
      # More tasks of one time than the limit lets see.
      return
    at = found.until_at
  assert found.until_at == minute(60)
  assert uncovered == [at for at, times in covers.items() if times == 0]
  assert doubled == {at for at, times in covers.items() if times > 1}
  assert covered == 60 - len(uncovered)
