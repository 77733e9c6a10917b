"""Who may go, decided without a database: order, policies, rates."""

import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetuflow.protocol.states import OverlapPolicy
from hetuflow.storage.judgement import Candidate, Rate, choose_replaced, judge

NOW = datetime(2026, 1, 1, tzinfo=UTC)
JOB, OTHER = UUID(int=1), UUID(int=2)
P = OverlapPolicy


def task(number: int, **more: Any) -> Candidate:
  """A task that became due as the number says."""
  values: dict[str, Any] = {"lane": "a", "job_id": JOB, "max": 1} | more
  due_at = NOW - timedelta(seconds=1000 - number)
  return Candidate(id=UUID(int=1000 + number), due_at=due_at, **values)


def numbers(candidates: Any) -> list[int]:
  """Name tasks by their numbers."""
  return [getattr(each, "id", each).int - 1000 for each in candidates]


def test_free_places_go_to_those_who_wait_the_longest() -> None:
  waiting = [task(number, max=3) for number in range(5)]
  judgement = judge(waiting, {"a": 1}, room=math.inf, now=NOW)
  assert numbers(judgement.promoted) == [0, 1]
  assert judgement.holders == {"a": 3}


def test_a_task_that_must_wait_holds_up_those_behind_it_in_its_lane_only() -> None:
  waiting = [
    task(0, max=1),
    task(1, max=5, job_id=OTHER),
    task(2, lane="b", job_id=OTHER),
  ]
  judgement = judge(waiting, {"a": 1, "b": 0}, room=math.inf, now=NOW)
  assert numbers(judgement.promoted) == [2]


def test_the_room_of_a_namespace_is_given_out_in_order_over_all_lanes() -> None:
  waiting = [
    task(0, lane="b"),
    task(1, max=9),
    task(2, lane="c"),
    task(3, max=9),
  ]
  judgement = judge(waiting, {"a": 0, "b": 1, "c": 0}, room=2, now=NOW)
  assert numbers(judgement.promoted) == [1, 2]
  assert judgement.room == 0


def test_what_does_not_wait_is_skipped_and_holds_up_nobody() -> None:
  waiting = [
    task(0, overlap=P.SKIP),
    task(1, max=2, job_id=OTHER),
    task(2, max=2, job_id=OTHER),
    task(3, overlap=P.SKIP),
  ]
  judgement = judge(waiting, {"a": 1}, room=math.inf, now=NOW)
  assert numbers(judgement.promoted) == [1]
  assert numbers(judgement.skipped) == [0, 3]


def test_what_does_not_wait_waits_for_a_rate_and_for_the_namespace() -> None:
  rate = Rate(count=1, seconds=60.0, arrival_at=NOW + timedelta(seconds=5))
  limited = task(0, overlap=P.SKIP, rate=rate)
  judgement = judge([limited], {"a": 0}, room=math.inf, now=NOW)
  assert (judgement.settled, judgement.free_at) == (0, NOW + timedelta(seconds=5))
  judgement = judge([task(0, overlap=P.SKIP)], {"a": 0}, room=0, now=NOW)
  assert judgement.settled == 0


def test_the_newest_replaces_what_runs_and_those_between_are_left_out() -> None:
  waiting = [task(number, overlap=P.REPLACE) for number in range(3)]
  judgement = judge(waiting, {"a": 1}, room=math.inf, now=NOW)
  assert judgement.promoted == []
  assert numbers(judgement.outrun) == [0, 1]
  assert numbers(judgement.outrun.values()) == [2, 2]
  holder = UUID(int=7)
  assert numbers(choose_replaced(judgement, "a", [(holder, False)]).values()) == [2]
  assert choose_replaced(judgement, "a", [(holder, True)]) == {}


def test_of_tasks_that_replace_the_newest_takes_a_free_place() -> None:
  waiting = [task(number, overlap=P.REPLACE) for number in range(3)]
  judgement = judge(waiting, {"a": 0}, room=math.inf, now=NOW)
  assert numbers(judgement.promoted) == [2]
  assert numbers(judgement.outrun) == [0, 1]


def test_as_many_of_the_oldest_are_replaced_as_places_are_needed() -> None:
  waiting = [task(number, max=3, overlap=P.REPLACE) for number in range(3)]
  judgement = judge(waiting, {"a": 2}, room=math.inf, now=NOW)
  assert numbers(judgement.promoted) == [0]
  holders = [UUID(int=7), UUID(int=8)]
  replaced = choose_replaced(judgement, "a", [(holders[0], True), (holders[1], False)])
  assert list(replaced) == [holders[1]]


POLICIES = st.sampled_from([P.ALLOW, P.QUEUE, P.SKIP, P.REPLACE])
TASKS = st.lists(
  st.tuples(
    st.sampled_from("abc"),
    st.sampled_from([1, 2, 3, math.inf]),
    POLICIES,
    st.booleans(),
  ),
  max_size=30,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
  TASKS,
  st.fixed_dictionaries({lane: st.integers(0, 4) for lane in "abc"}),
  st.sampled_from([0, 1, 4, math.inf]),
)
def test_no_place_is_given_twice_and_none_stays_free(
  tasks: list[tuple[str, float, OverlapPolicy, bool]],
  holders: dict[str, int],
  room: float,
) -> None:
  waiting = [
    task(number, lane=lane, max=limit, overlap=policy, job_id=JOB if first else OTHER)
    for number, (lane, limit, policy, first) in enumerate(tasks)
  ]
  judgement = judge(waiting, holders, room=room, now=NOW)
  given_out = Counter(each.lane for each in judgement.promoted)
  assert judgement.holders == {lane: holders[lane] + given_out[lane] for lane in "abc"}
  assert len(judgement.promoted) <= room
  taken = Counter(holders)
  for each in judgement.promoted:
    assert taken[each.lane] < each.max
    taken[each.lane] += 1
  settled = {
    *(each.id for each in judgement.promoted + judgement.skipped),
    *judgement.outrun,
  }
  assert len(settled) == judgement.settled
  for lane in "abc":
    rest = [each for each in waiting if each.lane == lane and each.id not in settled]
    if rest:
      assert judgement.room <= 0 or judgement.holders[lane] >= rest[0].max
    promoted = [each for each in judgement.promoted if each.lane == lane]
    assert all(a.due_at < b.due_at for a, b in pairwise([*promoted, *rest[:1]]))


@pytest.mark.parametrize(
  ("count", "seconds"), [(10, 60.0), (1, 2.0), (7, 1.0), (1000, 1.0), (3, 0.01)]
)
def test_of_a_rate_no_span_of_time_sees_more_than_its_count(
  count: int, seconds: float
) -> None:
  now, starts = NOW, []
  rate = Rate(count=count, seconds=seconds, arrival_at=None)
  span = timedelta(seconds=seconds)
  while now < NOW + 5 * span:
    waiting = [task(number, max=math.inf, rate=rate) for number in range(count + 1)]
    judgement = judge(waiting, {"a": 0}, room=math.inf, now=now)
    starts += [now] * len(judgement.promoted)
    assert judgement.free_at is not None
    rate = attrs.evolve(rate, arrival_at=judgement.arrivals.get(JOB, rate.arrival_at))
    # The pass comes a little after the time it was to come at.
    now = max(judgement.free_at, now) + timedelta(milliseconds=2)
  assert all(b - a >= span for a, b in zip(starts, starts[count:], strict=False))
  assert len(starts) >= count * 2.5
  if seconds / count > 0.1:
    gaps = {b - a for a, b in pairwise(starts)}
    assert min(gaps) >= span / count


def test_a_rate_that_was_slower_does_not_hold_up_the_one_of_now() -> None:
  rate = Rate(count=10, seconds=1.0, arrival_at=NOW + timedelta(days=1))
  judgement = judge([task(0, max=math.inf, rate=rate)], {"a": 0}, room=9, now=NOW)
  assert judgement.free_at is not None
  assert judgement.free_at - NOW <= timedelta(seconds=0.2)
