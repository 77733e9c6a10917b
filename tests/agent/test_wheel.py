"""The wheel: never early, everything once, in order, cheap."""

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from hetuflow.agent.timing import wheel
from hetuflow.agent.timing.clock import DisciplinedClock
from hetuflow.agent.timing.wheel import TimingWheel, WheelDriver

START = 1_700_000_000_123

steps = st.lists(
  st.one_of(
    st.tuples(st.just("schedule"), st.integers(-50, 300)),
    st.tuples(st.just("schedule"), st.integers(-50, 200_000)),
    st.tuples(st.just("schedule"), st.integers(0, 2**40)),
    st.tuples(st.just("cancel"), st.integers(0, 1000)),
    st.tuples(st.just("advance"), st.integers(-20, 600)),
    st.tuples(st.just("advance"), st.integers(0, 2**36)),
    st.tuples(st.just("next"), st.just(0)),
  ),
  max_size=80,
)


@settings(max_examples=400, deadline=None)
@given(steps, st.integers(1, 4))
def test_the_wheel_does_what_a_sorted_list_does(steps, levels):
  now = START
  wheel = TimingWheel(START, levels=levels)
  model: list[tuple[int, int]] = []
  timers = {}
  for number, (step, value) in enumerate(steps):
    if step == "schedule":
      timers[number] = wheel.schedule(now + value, number)
      model.append((now + value, number))
    elif step == "cancel" and timers:
      chosen = sorted(timers)[value % len(timers)]
      pending = any(each == chosen for _, each in model)
      assert wheel.cancel(timers.pop(chosen)) is pending
      model = [entry for entry in model if entry[1] != chosen]
    elif step == "advance":
      now += value if levels > 2 else value % 100_000
      due = sorted(entry for entry in model if entry[0] <= now)
      assert wheel.advance(now) == [number for _, number in due]
      model = [entry for entry in model if entry[0] > now]
    elif step == "next":
      bound = wheel.next_due_ms()
      assert (bound is None) == (not model)
      assert bound is None or bound <= min(model)[0]
    assert len(wheel) == len(model)


def test_a_wheel_driven_only_by_its_own_bounds_fires_each_at_its_millisecond():
  wheel = TimingWheel(START)
  dues = [START + step for step in (1, 255, 256, 70_000, 2**24 + 5, 2**33 + 7)]
  for due in dues:
    wheel.schedule(due, due)
  turns = 0
  fired = []
  while (at := wheel.next_due_ms()) is not None:
    fired += [(at, item) for item in wheel.advance(at)]
    turns += 1
  assert fired == [(due, due) for due in dues]
  assert turns <= 30


def test_setting_time_back_fires_nothing_early():
  wheel = TimingWheel(1000)
  wheel.advance(2000)
  wheel.schedule(1500, "later")
  assert wheel.advance(1400) == []
  assert wheel.next_due_ms() == 1500
  assert wheel.advance(1500) == ["later"]


def test_cancelling_everything_leaves_no_slot_behind():
  wheel = TimingWheel(START)
  timers = [wheel.schedule(START + 37 * n, n) for n in range(10_000)]
  assert all(wheel.cancel(timer) for timer in timers)
  assert not any(timer.pending for timer in timers)
  assert not any(wheel.cancel(timer) for timer in timers)
  assert wheel.next_due_ms() is None
  assert len(wheel) == 0


def test_a_hundred_thousand_timers_fire_once_each():
  wheel = TimingWheel(START)
  for n in range(100_000):
    wheel.schedule(START + 1 + (n * 7919) % 600_000, n)
  fired = wheel.advance(START + 300_000)
  fired += wheel.advance(START + 600_001)
  assert sorted(fired) == list(range(100_000))


async def test_the_driver_fires_on_time_never_early_and_in_order(nursery):
  clock = DisciplinedClock()
  fired = []
  done = trio.Event()

  def fire(items):
    fired.extend((item, clock.now()) for item in items)
    if len(fired) == 20:
      done.set()

  driver = WheelDriver(clock, fire)
  begin = clock.now()
  for n in range(20):
    driver.schedule(begin + 0.01 + n * 0.003, begin + 0.01 + n * 0.003)
  with trio.fail_after(10):
    await nursery.start(driver.run)
    await done.wait()
  assert [due for due, _ in fired] == sorted(due for due, _ in fired)
  assert all(at >= due for due, at in fired)
  nursery.cancel_scope.cancel()


async def test_an_earlier_timer_wakes_the_sleeping_driver(nursery, monkeypatch):
  # Without the wake-up it would sleep on.
  monkeypatch.setattr(wheel, "LONGEST_SLEEP_SECONDS", 3600.0)
  clock = DisciplinedClock()
  fired = trio.Event()
  driver = WheelDriver(clock, lambda items: fired.set())
  driver.schedule(clock.now() + 3600, "late")
  with trio.fail_after(10):
    await nursery.start(driver.run)
    await trio.testing.wait_all_tasks_blocked()
    driver.schedule(clock.now() + 0.01, "soon")
    await fired.wait()
  assert len(driver) == 1
  nursery.cancel_scope.cancel()


async def test_a_step_of_database_time_is_seen_within_the_second(nursery):
  clock = DisciplinedClock()
  fired = trio.Event()
  driver = WheelDriver(clock, lambda items: fired.set())
  driver.schedule(clock.now() + 3600, "soon after the step")
  with trio.fail_after(10):
    await nursery.start(driver.run)
    local = clock.local()
    clock.observe(t_sent=local, t_server=clock.now() + 3601, t_received=local)
    await fired.wait()
  nursery.cancel_scope.cancel()


async def test_a_restarted_driver_goes_on_with_its_timers():
  clock = DisciplinedClock()
  fired = trio.Event()
  driver = WheelDriver(clock, lambda items: fired.set())
  with trio.fail_after(10):
    async with trio.open_nursery() as first:
      await first.start(driver.run)
      first.cancel_scope.cancel()
    driver.schedule(clock.now() + 0.01, "kept")
    async with trio.open_nursery() as second:
      await second.start(driver.run)
      await fired.wait()
      second.cancel_scope.cancel()


async def test_a_cancelled_timer_stays_silent(nursery):
  clock = DisciplinedClock()
  fired = []
  last = trio.Event()

  def fire(items):
    fired.extend(items)
    if "last" in fired:
      last.set()

  driver = WheelDriver(clock, fire)
  timer = driver.schedule(clock.now() + 0.01, "cancelled")
  driver.schedule(clock.now() + 0.03, "last")
  assert driver.cancel(timer)
  with trio.fail_after(10):
    await nursery.start(driver.run)
    await last.wait()
  assert fired == ["last"]
  nursery.cancel_scope.cancel()


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_what_overflows_the_top_level_comes_back(levels):
  wheel = TimingWheel(0, levels=levels)
  far = 3 * 256**levels + 17
  wheel.schedule(far, "far")
  assert wheel.advance(far - 1) == []
  assert wheel.next_due_ms() == far
  assert wheel.advance(far) == ["far"]
