"""Delays that grow, and outages that are waited out without flooding the log."""

import itertools
import random

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from hetuflow.nursery import Backoff, Outage, keep_trying

EXACT = Backoff(initial=1, factor=2, maximum=8, jitter=0)


class Away(Exception):
  """An expected outage."""


def failing(*errors, result="done"):
  """Make a step that raises these in turn and then returns."""
  left = list(errors)

  async def step():
    await trio.lowlevel.checkpoint()
    if left:
      raise left.pop(0)
    return result

  return step


backoffs = st.builds(
  Backoff,
  initial=st.floats(0.001, 100),
  factor=st.floats(1, 100),
  maximum=st.floats(0.001, 1000),
  jitter=st.floats(0, 1),
)


@given(backoffs, st.integers(0, 100_000), st.integers())
def test_a_delay_stays_within_its_bounds(backoff, attempt, seed):
  delay = backoff.delay(attempt, random.Random(seed))
  bound = backoff.bound(attempt)
  assert bound <= backoff.maximum
  assert (1 - backoff.jitter) * bound * (1 - 1e-9) <= delay <= bound


@given(backoffs, st.integers(0, 1000))
def test_bounds_never_shrink(backoff, attempt):
  assert backoff.bound(attempt) <= backoff.bound(attempt + 1)


@given(backoffs, st.integers())
def test_one_seed_gives_one_row_of_delays(backoff, seed):
  rows = [
    list(itertools.islice(backoff.delays(random.Random(seed)), 20)) for _ in range(2)
  ]
  assert rows[0] == rows[1]


def test_without_jitter_the_delays_are_the_bounds():
  assert list(itertools.islice(EXACT.delays(random.Random()), 5)) == [1, 2, 4, 8, 8]


@pytest.mark.parametrize(
  "wrong", [{"initial": 0}, {"factor": 0.5}, {"maximum": -1}, {"jitter": 1.5}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
  with pytest.raises(ValueError, match=next(iter(wrong))):
    Backoff(**wrong)


async def test_an_expected_failure_is_retried_after_its_delay(autojump_clock, logged):
  step = failing(Away(), Away(), result=7)
  assert await keep_trying(step, expected=Away, event="away", backoff=EXACT) == 7
  assert trio.current_time() == 3


async def test_an_outage_is_logged_at_its_start_and_its_end(autojump_clock, logged):
  step = failing(Away("gone"), Away("gone"), Away("gone"))
  await keep_trying(step, expected=Away, event="away", backoff=EXACT)
  assert logged == [
    {"event": "away", "log_level": "warning", "error": "gone", "failures": 1},
    {"event": "away_over", "log_level": "info", "failures": 3, "seconds": 7.0},
  ]


async def test_a_long_outage_is_recalled_once_a_minute(autojump_clock, logged):
  steady = Backoff(initial=1, factor=1, jitter=0)
  step = failing(*(Away() for _ in range(150)))
  await keep_trying(step, expected=Away, event="away", backoff=steady)
  assert [line.get("failures") for line in logged] == [1, 61, 121, 150]


async def test_a_flapping_resource_is_logged_at_most_once_a_second(
  autojump_clock, logged
):
  quick = Backoff(initial=0.01, factor=1, jitter=0)
  outage = Outage(Away, event="away", backoff=quick)
  while trio.current_time() < 10:
    await outage.retry(failing(Away()))
  assert 10 <= sum(line["event"] == "away" for line in logged) <= 11


async def test_an_unexpected_failure_is_raised_at_once(autojump_clock):
  with pytest.raises(KeyError):
    await keep_trying(failing(KeyError("bug")), expected=Away, event="away")
  assert trio.current_time() == 0


async def test_a_group_counts_when_all_in_it_is_expected(autojump_clock, logged):
  both = ExceptionGroup("two", [Away(), ExceptionGroup("one", [Away()])])
  await keep_trying(failing(both), expected=Away, event="away", backoff=EXACT)
  mixed = ExceptionGroup("two", [Away(), KeyError()])
  with pytest.raises(ExceptionGroup):
    await keep_trying(failing(mixed), expected=Away, event="away", backoff=EXACT)


async def test_waiting_out_an_outage_can_be_cancelled(autojump_clock, logged):
  step = failing(*(Away() for _ in range(99)))
  with trio.move_on_after(10) as scope:
    await keep_trying(step, expected=(Away, OSError), event="away", backoff=EXACT)
  assert scope.cancelled_caught
