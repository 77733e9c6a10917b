"""Giving up: limits, fatal errors, and crashes that have to fail a test."""

import pytest
import trio

from hetuflow.errors import Refused, SettingsError, SupervisionError
from hetuflow.nursery import (
  Backoff,
  Child,
  Crowd,
  Group,
  Restart,
  Status,
  Supervisor,
)

EXACT = Backoff(initial=1, factor=2, maximum=5, jitter=0)


def exact(**changes) -> Restart:
  """Restart after exactly 1, 2, 4, 5, 5, … seconds."""
  return Restart(backoff=EXACT, **{"period": 60} | changes)


async def test_past_the_limit_the_group_stops_in_reverse_and_fails(
  autojump_clock, stage
):
  sick = stage.child("sick", crashes=9, restart=exact(max_restarts=2))
  supervisor = Supervisor(Group("root", [stage.child("a"), sick, stage.child("c")]))
  with pytest.raises(
    SupervisionError, match="sick ended 3 times within 60 s"
  ) as caught:
    await supervisor.run()
  assert isinstance(caught.value.__cause__, ValueError)
  assert stage.times["sick"] == [0, 1, 3]
  assert stage.events[-2:] == ["-c", "-a"]
  state = supervisor.state()
  assert (state.status, state.children[1].status) == (Status.FAILED, Status.FAILED)
  assert state.last_error.startswith("SupervisionError: sick")


async def test_crashes_older_than_the_period_are_forgotten(autojump_clock, stage):
  restart = Restart(backoff=EXACT, max_restarts=1, period=10)
  async with stage.running(stage.child("a", restart=restart)):
    for _ in range(5):
      stage.crash_now["a"].set()
      await trio.sleep(10)
  assert stage.times["a"] == [0, 1, 11, 21, 31, 41]


async def test_a_failed_group_is_restarted_by_its_parent(autojump_clock, stage):
  sick = stage.child("sick", crashes=2, restart=exact(max_restarts=1))
  inner = Group("inner", [stage.child("b"), sick], restart=exact())
  async with stage.running(stage.child("a"), inner) as supervisor:
    await trio.sleep(2.5)
    assert stage.times == {"a": [0], "b": [0, 2], "sick": [0, 1, 2]}
    assert supervisor.state().children[1].restarts == 1
    assert supervisor.state().children[1].last_error.startswith("SupervisionError")


async def test_failures_climb_the_tree_and_each_is_reported(autojump_clock, stage):
  sick = stage.child("sick", crashes=99, restart=Restart.never())
  inner = Group("inner", [sick], restart=exact(max_restarts=1))
  reported = []
  supervisor = Supervisor(
    Group("root", [inner]),
    on_escalate=lambda name, error: reported.append((name, error)),
  )
  with pytest.raises(SupervisionError, match="inner ended 2 times"):
    await supervisor.run()
  assert [name for name, _ in reported] == ["inner", "inner", "root"]
  assert all(isinstance(error, SupervisionError) for _, error in reported)


async def test_a_child_never_to_be_restarted_escalates_its_first_crash(
  autojump_clock, stage
):
  group = Group("root", [stage.child("a", crashes=1, restart=Restart.never())])
  with pytest.raises(SupervisionError) as caught:
    await Supervisor(group).run()
  assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("error", [Refused, SettingsError])
async def test_what_no_restart_mends_leaves_the_whole_tree_unchanged(
  autojump_clock, stage, error
):
  inner = Group("inner", [stage.child("a", crashes=1, error=error)])
  with pytest.raises(error, match="boom"):
    await Supervisor(Group("root", [inner])).run()
  assert stage.times["a"] == [0]


async def test_what_a_child_calls_fatal_is_fatal_to_its_ancestors(
  autojump_clock, stage
):
  restart = Restart(fatal=(KeyError,))
  inner = Group("inner", [stage.child("a", crashes=1, error=KeyError, restart=restart)])
  with pytest.raises(KeyError):
    await Supervisor(Group("root", [inner])).run()


async def test_a_fatal_error_is_found_inside_the_group_of_a_nursery(
  autojump_clock, stage
):
  async def refuse():
    raise Refused("bad token")

  async def connect(*, task_status):
    async with trio.open_nursery() as nursery:
      nursery.start_soon(refuse)

  with pytest.raises(Refused, match="bad token"):
    await Supervisor(Group("root", [Child("connection", connect)])).run()


async def test_a_crash_that_climbs_shows_its_traceback_once(
  autojump_clock, stage, logged
):
  sick = stage.child("sick", crashes=1, restart=Restart.never())
  inner = Group("inner", [sick], restart=Restart.never())
  with pytest.raises(SupervisionError):
    await Supervisor(Group("root", [inner])).run()
  first, second = [line for line in logged if line["event"] == "child_crashed"]
  assert (first["child"], first["escalates"]) == ("sick", True)
  assert isinstance(first["exc_info"], ValueError)
  assert (second["child"], "exc_info" in second) == ("inner", False)


async def test_with_fail_fast_any_crash_ends_the_run_with_itself(autojump_clock, stage):
  inner = Group("inner", [stage.child("b", crashes=1)])
  with pytest.raises(ValueError, match="boom"):
    await Supervisor(Group("root", [stage.child("a"), inner]), fail_fast=True).run()
  assert stage.events[-1] == "-a"


async def test_with_fail_fast_a_crash_while_stopping_is_not_lost(autojump_clock, stage):
  async def bad_end(*, task_status):
    task_status.started()
    try:
      await trio.sleep_forever()
    finally:
      raise ValueError("while stopping")

  with pytest.raises(ExceptionGroup) as caught:
    async with stage.running(Child("a", bad_end), fail_fast=True):
      pass
  assert caught.group_contains(ValueError, match="while stopping")


async def test_a_crash_while_stopping_is_logged_and_stops_nothing(
  autojump_clock, stage, logged
):
  async def bad_end(*, task_status):
    task_status.started()
    try:
      await trio.sleep_forever()
    finally:
      raise ValueError("while stopping")

  async with stage.running(stage.child("a"), Child("b", bad_end)) as supervisor:
    pass
  assert stage.events[-1] == "-a"
  assert supervisor.state().children[1].status is Status.FAILED
  assert [line["child"] for line in logged if line["event"] == "child_crashed"] == ["b"]


async def test_fail_fast_reaches_supervisors_and_crowds_inside_children(
  autojump_clock, stage
):
  crowd = Crowd("session")

  async def crash():
    raise ValueError("in a member")

  async def own(*, task_status):
    async with crowd.open():
      task_status.started()
      crowd.start_soon("s1", crash)
      await trio.sleep_forever()

  inside = Supervisor(Group("inside", [Child("owner", own)]))
  group = Group("root", [Child("outer", inside.run)])
  with pytest.raises(ValueError, match="in a member"):
    await Supervisor(group, fail_fast=True).run()


async def test_the_first_of_two_failures_is_the_one_that_counts(autojump_clock, stage):
  reported = []
  children = [stage.child(name, restart=Restart.never()) for name in ("a", "b")]
  group = Group("root", children)
  tree = Supervisor(group, on_escalate=lambda name, error: reported.append(error))

  async def crash_both():
    await trio.sleep(1)
    stage.crash_now["a"].set()
    stage.crash_now["b"].set()

  async with trio.open_nursery() as nursery:
    nursery.start_soon(crash_both)
    with pytest.raises(SupervisionError) as caught:
      await tree.run()
  assert reported == [caught.value]
