"""What follows a crash: backoff, restart, and the children after it."""

import random

import pytest
import trio

from hetuflow.errors import SupervisionError
from hetuflow.nursery import (
  Backoff,
  Child,
  Group,
  Restart,
  Status,
  Strategy,
  Supervisor,
)

EXACT = Backoff(initial=1, factor=2, maximum=5, jitter=0)


def exact(**changes) -> Restart:
  """Restart after exactly 1, 2, 4, 5, 5, … seconds."""
  return Restart(backoff=EXACT, **{"period": 60} | changes)


async def test_restarts_come_after_exactly_the_delays_of_the_policy(
  autojump_clock, stage
):
  child = stage.child("a", crashes=5, restart=exact())
  async with stage.running(child) as supervisor:
    await trio.sleep(18)
    assert stage.times["a"] == [0, 1, 3, 7, 12, 17]
    (state,) = supervisor.state().children
    assert (state.restarts, state.status) == (5, Status.RUNNING)
    assert state.last_error == "ValueError: boom"


async def test_jitter_comes_from_the_given_random_source(autojump_clock, stage):
  restart = Restart(backoff=Backoff(initial=8, jitter=1), max_restarts=1)
  child = stage.child("a", crashes=1, restart=restart)
  async with stage.running(child, random=random.Random(4)):
    await trio.sleep(8)
  assert stage.times["a"] == [0, 8 * (1 - random.Random(4).random())]


async def test_a_crash_leaves_the_siblings_alone(autojump_clock, stage):
  a, b, c = (stage.child(name, restart=exact()) for name in "abc")
  async with stage.running(a, b, c):
    stage.events.clear()
    stage.crash_now["b"].set()
    await trio.sleep(1.5)
    assert stage.events == ["-b", "+b", "b ready"]


async def test_a_child_is_restarted_only_when_those_before_it_are_ready(
  autojump_clock, stage
):
  slow = Restart(backoff=Backoff(initial=9, maximum=9, jitter=0), max_restarts=1)
  a, b = stage.child("a", restart=slow), stage.child("b", restart=exact(max_restarts=1))
  async with stage.running(a, b) as supervisor:
    stage.crash_now["a"].set()
    stage.crash_now["b"].set()
    await trio.sleep(8)
    assert [each.status for each in supervisor.state().children] == ["backoff"] * 2
    await trio.sleep(2)
  assert (stage.times["a"], stage.times["b"]) == ([0, 9], [0, 9])


async def test_a_group_that_fails_in_a_drain_starts_nothing_more(autojump_clock, stage):
  children = [
    stage.child("a", restart=Restart.never()),
    stage.child("b", restart=exact()),
    stage.child("c", drain=stage.drainer("c", takes=9)),
  ]
  with pytest.RaisesGroup(SupervisionError):
    async with stage.running(*children) as supervisor:
      supervisor.drain()
      stage.crash_now["b"].set()
      await trio.sleep(0.5)
      stage.crash_now["a"].set()
      await trio.sleep_forever()
  assert stage.times["b"] == [0]
  assert "c drained" in stage.events


async def test_a_child_in_backoff_says_so(autojump_clock, stage):
  async with stage.running(stage.child("a", restart=exact())) as supervisor:
    stage.crash_now["a"].set()
    await trio.sleep(0.5)
    (state,) = supervisor.state().children
    assert (state.status, state.restarts) == (Status.BACKOFF, 0)


async def test_a_crash_before_started_is_retried_and_the_next_child_waits(
  autojump_clock, stage
):
  a = stage.child("a", crashes=2, ready_first=False, restart=exact())
  async with stage.running(a, stage.child("b")):
    assert stage.times == {"a": [0, 1, 3], "b": [3]}


async def test_returning_before_started_is_a_crash(autojump_clock, stage):
  async def forgetful(*, task_status):
    await trio.lowlevel.checkpoint()

  group = Group("root", [Child("a", forgetful, restart=Restart.never())])
  with pytest.raises(SupervisionError, match="returned before"):
    await Supervisor(group).run()


async def test_a_child_that_returned_is_not_restarted(autojump_clock, stage):
  async def once(*, task_status):
    stage.note("once")
    task_status.started()

  async with stage.running(Child("a", once), stage.child("b")) as supervisor:
    await trio.sleep(100)
    assert stage.events.count("once") == 1
    assert supervisor.state().children[0].status is Status.STOPPED


async def test_a_child_that_is_always_to_run_is_restarted_after_a_return(
  autojump_clock, stage
):
  times = []

  async def brief(*, task_status):
    times.append(trio.current_time())
    task_status.started()

  restart = Restart.always(backoff=EXACT, max_restarts=2)
  with pytest.raises(SupervisionError, match=r"brief ended 3 times.*it returned"):
    await Supervisor(Group("root", [Child("brief", brief, restart=restart)])).run()
  assert times == [0, 1, 3]


async def test_several_errors_of_one_child_are_one_crash(autojump_clock, stage, logged):
  async def fail(error):
    raise error

  async def double(*, task_status):
    task_status.started()
    async with trio.open_nursery() as nursery:
      nursery.start_soon(fail, ValueError("x"))
      nursery.start_soon(fail, KeyError("y"))

  group = Group("root", [Child("a", double, restart=exact(max_restarts=1))])
  with pytest.raises(SupervisionError):
    await Supervisor(group).run()
  assert [line["event"] for line in logged].count("child_crashed") == 2


async def test_cancelling_during_backoff_ends_it_at_once(autojump_clock, stage):
  async with stage.running(stage.child("a", crashes=1, restart=exact())) as supervisor:
    await trio.sleep(0.5)
    assert supervisor.state().children[0].status is Status.BACKOFF
  assert trio.current_time() == 0.5
  assert supervisor.state().children[0].status is Status.STOPPED
  assert stage.times["a"] == [0]


async def test_draining_during_backoff_ends_it_at_once(autojump_clock, stage):
  child = stage.child("a", crashes=1, restart=exact(), drain=stage.drainer("a"))
  supervisor = Supervisor(Group("root", [child, Group("inner", [stage.child("b")])]))
  async with trio.open_nursery() as nursery:
    nursery.start_soon(supervisor.run)
    await trio.sleep(0.5)
    supervisor.drain()
  assert trio.current_time() == 0.5
  assert "drain a" not in stage.events


async def test_the_log_line_of_a_crash_tells_when_it_restarts(
  autojump_clock, stage, logged
):
  async with stage.running(stage.child("a", crashes=1, restart=exact())):
    await trio.sleep(2)
  (crash,) = [line for line in logged if line["event"] == "child_crashed"]
  assert (crash["child"], crash["restart_in"]) == ("a", 1)
  assert isinstance(crash["exc_info"], ValueError)


async def test_the_rest_is_stopped_in_reverse_and_started_again_in_order(
  autojump_clock, stage
):
  children = [stage.child(name, restart=exact()) for name in "abcd"]
  async with stage.running(*children, strategy=Strategy.REST_FOR_ONE):
    stage.events.clear()
    stage.crash_now["b"].set()
    await trio.sleep(1.5)
    assert stage.events == [
      *("-b", "-d", "-c"),
      *("+b", "b ready", "+c", "c ready", "+d", "d ready"),
    ]
    assert stage.times["a"] == [0]


async def test_of_the_rest_only_what_had_not_ended_by_itself_starts_again(
  autojump_clock, stage
):
  async def once(*, task_status):
    stage.note("once")
    task_status.started()

  children = [stage.child("a", restart=exact()), Child("b", once), stage.child("c")]
  async with stage.running(*children, strategy=Strategy.REST_FOR_ONE):
    stage.crash_now["a"].set()
    await trio.sleep(1.5)
  assert stage.events.count("once") == 1
  assert stage.events.count("+c") == 2


async def test_two_crashes_at_once_still_restart_the_rest_in_order(
  autojump_clock, stage
):
  children = [stage.child(name, restart=exact()) for name in "abcd"]
  async with stage.running(*children, strategy=Strategy.REST_FOR_ONE):
    stage.events.clear()
    stage.crash_now["c"].set()
    stage.crash_now["b"].set()
    await trio.sleep(3)
    starts = [event for event in stage.events if event[0] == "+"]
    assert starts == ["+b", "+c", "+d"]
    assert stage.events[-1] == "d ready"


async def test_calling_started_twice_is_a_crash(autojump_clock, stage):
  async def eager(*, task_status):
    task_status.started()
    task_status.started()

  group = Group("root", [Child("a", eager, restart=Restart.never())])
  with pytest.raises(SupervisionError, match="was called twice"):
    await Supervisor(group).run()
