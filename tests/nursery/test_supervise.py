"""Starting, stopping and draining a tree, and what is seen of it meanwhile."""

import json

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from hetuflow.nursery import Child, Group, Kind, Restart, Status, Supervisor


async def test_each_child_starts_once_the_one_before_it_is_ready(autojump_clock, stage):
  async with stage.running(stage.child("a", starts_in=5), stage.child("b")):
    assert stage.events == ["+a", "a ready", "+b", "b ready"]
    assert stage.times == {"a": [0.0], "b": [5.0]}


async def test_a_group_is_ready_when_all_its_children_are(autojump_clock, stage):
  inner = Group("inner", [stage.child("b"), stage.child("c", starts_in=3)])
  async with stage.running(stage.child("a"), inner, stage.child("d")):
    assert stage.events == [
      *("+a", "a ready", "+b", "b ready", "+c", "c ready", "+d", "d ready")
    ]


async def test_cancelling_stops_the_children_in_reverse_each_awaited(
  autojump_clock, stage
):
  inner = Group("inner", [stage.child("b"), stage.child("c", stops_in=1)])
  async with stage.running(stage.child("a"), inner, stage.child("d", stops_in=2)):
    stage.events.clear()
  assert stage.events == ["-d", "-c", "-b", "-a"]
  assert trio.current_time() == 3


async def test_cancelling_during_the_start_stops_what_was_started(
  autojump_clock, stage
):
  group = Group("root", [stage.child("a"), stage.child("b", starts_in=9)])
  with trio.move_on_after(1):
    await Supervisor(group).run()
  assert stage.events == ["+a", "a ready", "+b", "-b", "-a"]
  assert trio.current_time() == 1


async def test_a_slow_clean_up_holds_up_the_others_only_for_its_stop_timeout(
  autojump_clock, stage, logged
):
  slow = stage.child("slow", stops_in=8, stop_timeout=2)
  async with stage.running(stage.child("a"), slow):
    stage.events.clear()
  assert stage.events == ["-a", "-slow"]
  assert trio.current_time() == 8
  overdue = [line for line in logged if line["event"] == "child_stop_overdue"]
  assert [line["child"] for line in overdue] == ["slow"]


async def test_a_group_whose_children_all_returned_is_over(autojump_clock, stage):
  async def once(*, task_status):
    task_status.started()

  supervisor = Supervisor(Group("root", [Child("a", once), Child("b", once)]))
  await supervisor.run()
  assert [node.status for node in supervisor.state().children] == ["stopped"] * 2
  assert supervisor.state().status is Status.STOPPED


async def test_an_empty_group_is_ready_and_over(autojump_clock, stage):
  async with trio.open_nursery() as nursery:
    await nursery.start(Supervisor(Group("root", [])).run)


async def test_a_supervisor_refuses_to_run_twice_at_once_but_may_run_again(
  autojump_clock, stage
):
  supervisor = Supervisor(Group("root", [stage.child("a")]))
  async with trio.open_nursery() as nursery:
    await nursery.start(supervisor.run)
    with pytest.raises(trio.BusyResourceError, match="root"):
      await supervisor.run()
    nursery.cancel_scope.cancel()
  async with trio.open_nursery() as nursery:
    await nursery.start(supervisor.run)
    assert supervisor.state().children[0].status is Status.RUNNING
    nursery.cancel_scope.cancel()
  assert stage.events == ["+a", "a ready", "-a"] * 2


async def test_draining_lets_each_child_finish_before_those_it_leans_on(
  autojump_clock, stage
):
  a = stage.child("a", drain=stage.drainer("a", takes=1))
  b = stage.child("b", drain=stage.drainer("b", takes=2))
  supervisor = Supervisor(Group("root", [a, Group("inner", [b, stage.child("c")])]))
  async with trio.open_nursery() as nursery:
    await nursery.start(supervisor.run)
    stage.events.clear()
    supervisor.drain()
  assert stage.events == [
    *("-c", "drain b", "b drained", "-b", "drain a", "a drained", "-a")
  ]
  assert trio.current_time() == 3


async def test_a_drain_past_its_limit_is_cut_off_and_the_child_cancelled(
  autojump_clock, stage, logged
):
  slow = stage.child("slow", drain=stage.drainer("slow", takes=99), drain_timeout=4)
  supervisor = Supervisor(Group("root", [stage.child("a"), slow]))
  async with trio.open_nursery() as nursery:
    await nursery.start(supervisor.run)
    stage.events.clear()
    supervisor.drain()
  assert stage.events == ["drain slow", "-slow", "-a"]
  assert trio.current_time() == 4
  assert "child_drain_overdue" in [line["event"] for line in logged]


async def test_a_drain_that_fails_is_logged_and_the_stop_goes_on(
  autojump_clock, stage, logged
):
  bad = stage.child("bad", drain=stage.drainer("bad", crashes=True))
  supervisor = Supervisor(Group("root", [stage.child("a"), bad]))
  async with trio.open_nursery() as nursery:
    await nursery.start(supervisor.run)
    supervisor.drain()
  assert stage.events[-2:] == ["-bad", "-a"]
  failures = [line for line in logged if line["event"] == "child_drain_failed"]
  assert [line["child"] for line in failures] == ["bad"]


async def test_a_drain_that_fails_as_it_is_cut_off_fails_nothing_else(
  autojump_clock, stage, logged
):
  async def fail():
    try:
      await trio.sleep_forever()
    finally:
      raise ValueError("clean-up")

  async def drain():
    async with trio.open_nursery() as nursery:
      nursery.start_soon(fail)
      nursery.start_soon(trio.sleep_forever)

  with trio.CancelScope() as scope:
    async with stage.running(stage.child("a", drain=drain)) as supervisor:
      supervisor.drain()
      await wait_all_tasks_blocked()
      scope.cancel()
      await trio.sleep_forever()
  assert scope.cancelled_caught
  assert "child_drain_failed" in [line["event"] for line in logged]


async def test_a_child_that_ends_while_draining_is_neither_awaited_nor_restarted(
  autojump_clock, stage
):
  a = stage.child("a", drain=stage.drainer("a", takes=99))
  supervisor = Supervisor(Group("root", [a]))
  async with trio.open_nursery() as nursery:
    await nursery.start(supervisor.run)
    supervisor.drain()
    await wait_all_tasks_blocked()
    assert supervisor.state().children[0].status is Status.DRAINING
    stage.crash_now["a"].set()
  assert trio.current_time() == 0
  assert stage.times["a"] == [0.0]


async def test_cancelling_wins_over_draining(autojump_clock, stage):
  a = stage.child("a", drain=stage.drainer("a", takes=20))
  b = stage.child("b", drain=stage.drainer("b", takes=20))
  supervisor = Supervisor(Group("root", [a, b]))
  async with trio.open_nursery() as nursery:
    await nursery.start(supervisor.run)
    stage.events.clear()
    supervisor.drain()
    await trio.sleep(7)
    nursery.cancel_scope.cancel()
  assert stage.events == ["drain b", "-b", "-a"]
  assert trio.current_time() == 7


async def test_a_drain_during_the_start_spares_what_was_not_started(
  autojump_clock, stage
):
  inner = Group("inner", [stage.child("a", drain=stage.drainer("a"))])
  inner = Group("inner", [*inner.children, stage.child("b", starts_in=9)])
  supervisor = Supervisor(Group("root", [inner, stage.child("c")]))
  async with trio.open_nursery() as nursery:
    nursery.start_soon(supervisor.run)
    await trio.sleep(1)
    supervisor.drain()
  assert stage.events == ["+a", "a ready", "+b", "-b", "drain a", "a drained", "-a"]


async def test_a_drain_asked_for_before_the_run_starts_nothing(autojump_clock, stage):
  supervisor = Supervisor(Group("root", [stage.child("a")]))
  supervisor.drain()
  await supervisor.run()
  assert stage.events == []


async def test_aborting_cancels_all_at_once_and_drains_nobody(autojump_clock, stage):
  a = stage.child("a", stops_in=3, drain=stage.drainer("a", takes=50))
  inner = Group("inner", [stage.child("b", stops_in=2), stage.child("c", stops_in=3)])
  supervisor = Supervisor(Group("root", [a, inner]))
  async with trio.open_nursery() as nursery:
    await nursery.start(supervisor.run)
    stage.events.clear()
    supervisor.abort()
  assert stage.events[0] == "-b"
  assert sorted(stage.events) == ["-a", "-b", "-c"]
  assert trio.current_time() == 3


async def test_aborting_ends_a_drain_under_way(autojump_clock, stage):
  a = stage.child("a", drain=stage.drainer("a", takes=50))
  b = stage.child("b", drain=stage.drainer("b", takes=50))
  supervisor = Supervisor(Group("root", [a, Group("inner", [b])]))
  async with trio.open_nursery() as nursery:
    await nursery.start(supervisor.run)
    supervisor.drain()
    await trio.sleep(1)
    supervisor.abort()
  assert trio.current_time() == 1
  assert "drain a" not in stage.events


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_what_is_no_crash_passes_through_unwrapped(autojump_clock, stage, kind):
  async def interrupted(*, task_status):
    task_status.started()
    raise kind

  inner = Group("inner", [Child("b", interrupted)])
  with pytest.raises(kind):
    await Supervisor(Group("root", [stage.child("a"), inner])).run()
  assert stage.events[-1] == "-a"


async def test_the_state_shows_each_node_with_its_status_and_since(
  autojump_clock, stage
):
  times = iter(range(1000, 2000))
  waiting = stage.child("c", starts_in=10)
  inner = Group("inner", [stage.child("b")])
  group = Group("root", [stage.child("a"), inner, waiting, stage.child("d")])
  supervisor = Supervisor(group, now=lambda: float(next(times)))
  async with trio.open_nursery() as nursery:
    nursery.start_soon(supervisor.run)
    await trio.sleep(1)
    state = supervisor.state()
    nursery.cancel_scope.cancel()
  assert (state.name, state.kind, state.status) == ("root", "group", "starting")
  assert [(node.name, node.kind, node.status) for node in state.children] == [
    ("a", Kind.CHILD, Status.RUNNING),
    ("inner", Kind.GROUP, Status.RUNNING),
    ("c", Kind.CHILD, Status.STARTING),
    ("d", Kind.CHILD, Status.STOPPED),
  ]
  assert [node.name for node in state.children[1].children] == ["b"]
  a, _, c, _ = state.children
  assert 1000 <= a.since < c.since


async def test_the_state_goes_over_the_wire_as_plain_data(autojump_clock, stage):
  async with stage.running(stage.child("a"), now=lambda: 7.5) as supervisor:
    data = supervisor.state().to_dict()
  child = {
    "name": "a",
    "kind": "child",
    "status": "running",
    "restarts": 0,
    "since": 7.5,
    "last_error": None,
    "count": 0,
    "children": [],
  }
  root = child | {"name": "root", "kind": "group", "count": 1, "children": [child]}
  assert json.loads(json.dumps(data)) == root


async def test_a_supervisor_inside_a_child_is_shown_below_it(autojump_clock, stage):
  leader = Supervisor(Group("leader", [stage.child("reaper")]))

  async def elect(*, task_status):
    async with trio.open_nursery() as nursery:
      await nursery.start(leader.run)
      task_status.started()

  elector = Child("elector", elect, inner=[leader])
  async with stage.running(elector) as supervisor:
    (shown,) = supervisor.state().children
    assert shown.children[0].name == "leader"
    assert shown.children[0].children[0].status is Status.RUNNING
  assert stage.events[-1] == "-reaper"


async def test_a_child_finds_its_name_bound_to_its_log_lines(
  autojump_clock, stage, logged
):
  import structlog

  async def speak(*, task_status):
    structlog.get_logger().info("spoken")
    task_status.started()

  await Supervisor(Group("root", [Child("speaker", speak)])).run()
  assert {"event": "spoken", "log_level": "info", "child": "speaker"} in logged


async def test_starts_and_ends_are_logged_once_each(autojump_clock, stage, logged):
  async with stage.running(stage.child("a", restart=Restart.never())):
    pass
  assert [(line["event"], line["child"]) for line in logged] == [
    ("child_started", "a"),
    ("child_stopped", "a"),
  ]
