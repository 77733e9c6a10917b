"""Dynamic children: admitted, isolated, counted, cancelled with their owner."""

import pytest
import structlog
import trio
from trio.testing import wait_all_tasks_blocked

from hetuflow.nursery import Child, Crowd, Kind, Restart, Status


async def crash():
  """Crash at once."""
  raise ValueError("boom")


async def test_a_member_is_removed_at_its_end(autojump_clock, stage):
  crowd = Crowd("session")
  async with crowd.open():
    crowd.start_soon("s1", trio.sleep, 5)
    assert "s1" in crowd
    await trio.sleep(6)
    assert len(crowd) == 0


async def test_a_crash_is_logged_once_and_hurts_nobody_else(
  autojump_clock, stage, logged
):
  crowd = Crowd("session", now=lambda: 3.0)
  async with crowd.open():
    crowd.start_soon("good", trio.sleep_forever)
    crowd.start_soon("bad", crash)
    await wait_all_tasks_blocked()
    assert ("good" in crowd, "bad" in crowd) == (True, False)
    assert crowd.state().last_error == "ValueError: boom"
  (line,) = logged
  assert (line["event"], line["crowd"], line["member"]) == (
    *("member_crashed", "session", "bad"),
  )
  assert isinstance(line["exc_info"], ValueError)


async def test_leaving_the_block_cancels_and_awaits_all_members(autojump_clock, stage):
  crowd = Crowd("session")
  ended = []

  async def member(name):
    try:
      await trio.sleep_forever()
    finally:
      ended.append(name)

  async with crowd.open():
    crowd.start_soon("s1", member, "s1")
    crowd.start_soon("s2", member, "s2")
    await wait_all_tasks_blocked()
  assert sorted(ended) == ["s1", "s2"]
  assert len(crowd) == 0


async def test_members_end_with_the_incarnation_of_their_owner(autojump_clock, stage):
  crowd = Crowd("session")
  sizes = []

  async def own(*, task_status):
    async with crowd.open():
      sizes.append(len(crowd))
      crowd.start_soon("s1", trio.sleep_forever)
      task_status.started()
      await trio.sleep(1)
      raise ValueError("owner down")

  owner = Child("gateway", own, restart=Restart(max_restarts=3), inner=[crowd])
  async with stage.running(owner):
    await trio.sleep(2.5)
  assert sizes[:2] == [0, 0]
  assert len(crowd) == 0


async def test_starting_waits_until_the_member_is_ready_and_tells_its_value(
  autojump_clock, stage
):
  crowd = Crowd("session")

  async def member(number, *, task_status):
    await trio.sleep(2)
    task_status.started(number + 1)
    await trio.sleep_forever()

  async with crowd.open():
    assert await crowd.start("s1", member, 41) == 42
    assert trio.current_time() == 2
    assert crowd.state().children[0].status is Status.RUNNING


async def test_a_crash_before_readiness_is_the_starters_and_not_logged(
  autojump_clock, stage, logged
):
  crowd = Crowd("session")

  async def member(*, task_status):
    raise ValueError("too early")

  async with crowd.open():
    with pytest.raises(ValueError, match="too early"):
      await crowd.start("s1", member)
    assert "s1" not in crowd
  assert logged == []


async def test_a_live_name_is_refused_and_a_past_one_is_free(autojump_clock, stage):
  crowd = Crowd("session")
  async with crowd.open():
    crowd.start_soon("s1", trio.sleep, 1)
    with pytest.raises(ValueError, match="s1"):
      crowd.start_soon("s1", trio.sleep, 1)
    await trio.sleep(2)
    crowd.start_soon("s1", trio.sleep, 1)


async def test_a_closed_crowd_admits_nobody(autojump_clock, stage):
  crowd = Crowd("session")
  with pytest.raises(RuntimeError, match="session is not open"):
    crowd.start_soon("s1", trio.sleep, 1)
  async with crowd.open():
    with pytest.raises(trio.BusyResourceError):
      async with crowd.open():
        pass
  with pytest.raises(RuntimeError, match="session is not open"):
    await crowd.start("s1", trio.sleep, 1)


async def test_cancelling_one_member_leaves_the_others(autojump_clock, stage):
  crowd = Crowd("session")
  async with crowd.open():
    crowd.start_soon("s1", trio.sleep_forever)
    crowd.start_soon("s2", trio.sleep_forever)
    assert crowd.cancel("s1")
    await wait_all_tasks_blocked()
    assert ("s1" in crowd, "s2" in crowd) == (False, True)
    assert not crowd.cancel("s1")


async def test_waiting_for_the_crowd_to_be_empty_ends_with_the_last_member(
  autojump_clock, stage
):
  crowd = Crowd("instance")
  async with crowd.open():
    await crowd.wait_empty()
    crowd.start_soon("i1", trio.sleep, 3)
    crowd.start_soon("i2", trio.sleep, 4)
    await crowd.wait_empty()
    assert trio.current_time() == 4


async def test_an_error_in_the_block_comes_out_bare_with_its_cause(
  autojump_clock, stage
):
  crowd = Crowd("session")
  with pytest.raises(ValueError, match="owner") as caught:
    async with crowd.open():
      raise ValueError("owner") from KeyError("why")
  assert isinstance(caught.value.__cause__, KeyError)


async def test_the_state_counts_all_members_and_lists_the_oldest(autojump_clock, stage):
  crowd = Crowd("session", now=lambda: 9.0)
  assert crowd.state().status is Status.STOPPED
  async with crowd.open():
    for number in range(120):
      crowd.start_soon(f"s{number}", trio.sleep_forever)
    state = crowd.state()
  assert (state.kind, state.status, state.count) == (Kind.CROWD, Status.RUNNING, 120)
  assert [member.name for member in state.children][:2] == ["s0", "s1"]
  assert len(state.children) == 50
  assert state.children[0].kind is Kind.MEMBER


async def test_a_crowd_is_shown_below_its_owner(autojump_clock, stage):
  crowd = Crowd("session")

  async def own(*, task_status):
    async with crowd.open():
      task_status.started()
      await trio.sleep_forever()

  async with stage.running(Child("gateway", own, inner=[crowd])) as supervisor:
    crowd.start_soon("s1", trio.sleep_forever)
    (gateway,) = supervisor.state().children
  assert gateway.children[0].name == "session"
  assert gateway.children[0].count == 1


async def test_a_member_finds_its_name_bound_to_its_log_lines(
  autojump_clock, stage, logged
):
  crowd = Crowd("instance")

  async def speak():
    structlog.get_logger().info("spoken")

  async with crowd.open():
    crowd.start_soon("i7", speak)
    await crowd.wait_empty()
  assert logged == [{"event": "spoken", "log_level": "info", "instance": "i7"}]


async def fail_when_cancelled():
  """Wait with a nursery, and raise beside the cancellation that ends it."""

  async def fail():
    try:
      await trio.sleep_forever()
    finally:
      raise ValueError("clean-up")

  async with trio.open_nursery() as nursery:
    nursery.start_soon(fail)
    nursery.start_soon(trio.sleep_forever)


async def test_a_member_that_crashes_while_it_is_stopped_spares_its_owner(
  autojump_clock, stage, logged
):
  crowd = Crowd("instance")
  async with crowd.open():
    crowd.start_soon("i1", fail_when_cancelled)
    await wait_all_tasks_blocked()
  assert crowd.state().last_error is not None
  assert [line["event"] for line in logged] == ["member_crashed"]


async def test_a_member_refused_while_the_crowd_closes_is_not_counted(
  autojump_clock, stage
):
  refusals = set()
  # Trio shuffles who goes first: the owner, which notices the end, or the newcomer.
  while len(refusals) < 2:
    crowd, ended = Crowd("instance"), trio.Event()

    async def stay(ended=ended):
      try:
        await trio.sleep_forever()
      finally:
        ended.set()

    async def come_late(crowd=crowd, ended=ended):
      await ended.wait()
      with pytest.raises(RuntimeError) as refusal:
        crowd.start_soon("late", trio.sleep_forever)
      refusals.add(str(refusal.value))

    async with trio.open_nursery() as nursery:
      nursery.start_soon(come_late)
      async with crowd.open():
        crowd.start_soon("i1", stay)
        await wait_all_tasks_blocked()
    assert len(crowd) == 0
    await crowd.wait_empty()
