"""A hint is never lost, and never counted twice."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from hetuflow.nursery import Wakeup


async def test_a_set_before_the_wait_is_not_lost(autojump_clock):
  wakeup = Wakeup()
  wakeup.set()
  assert await wakeup.wait(5)
  assert trio.current_time() == 0


async def test_a_set_during_the_wait_ends_it(autojump_clock, nursery):
  wakeup = Wakeup()

  async def setter():
    await trio.sleep(2)
    wakeup.set()

  nursery.start_soon(setter)
  assert await wakeup.wait()
  assert trio.current_time() == 2


async def test_without_a_set_the_wait_ends_at_its_timeout(autojump_clock):
  assert not await Wakeup().wait(3)
  assert trio.current_time() == 3


async def test_many_sets_are_one(autojump_clock):
  wakeup = Wakeup()
  for _ in range(10):
    wakeup.set()
  assert await wakeup.wait(1)
  assert not await wakeup.wait(1)


async def test_a_timeout_of_zero_asks_without_waiting(autojump_clock):
  wakeup = Wakeup()
  assert not await wakeup.wait(0)
  wakeup.set()
  assert await wakeup.wait(0)


async def test_a_cancelled_wait_leaves_the_hint_to_the_next(autojump_clock):
  wakeup = Wakeup()
  with trio.CancelScope() as scope:
    wakeup.set()
    scope.cancel()
    await wakeup.wait()
  assert scope.cancelled_caught
  assert await wakeup.wait(0)


async def test_a_second_waiter_is_refused(autojump_clock, nursery):
  wakeup = Wakeup()
  nursery.start_soon(wakeup.wait)
  await wait_all_tasks_blocked()
  with pytest.raises(trio.BusyResourceError):
    await wakeup.wait()
  wakeup.set()


@given(
  sets=st.lists(st.floats(0, 10), max_size=12),
  waits=st.lists(st.floats(0, 3), min_size=1, max_size=12),
)
def test_every_set_is_followed_by_a_wait_that_says_so(sets, waits):
  """Whatever the timing: work noted before a set is seen by a wait that returns True."""

  async def scenario():
    wakeup = Wakeup()
    noted, seen = 0, 0

    async def setter():
      nonlocal noted
      for at in sorted(sets):
        await trio.sleep_until(at)
        noted += 1
        wakeup.set()

    async with trio.open_nursery() as nursery:
      nursery.start_soon(setter)
      for timeout in waits:
        before = noted
        if await wakeup.wait(timeout):
          assert noted > seen
          seen = noted
        else:
          assert before == seen
    if await wakeup.wait(0):
      seen = noted
    assert seen == noted

  trio.run(scenario, clock=MockClock(autojump_threshold=0))
