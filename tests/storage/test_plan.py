"""Planning as a pure function: what becomes of planned times, late ones above all."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetuflow.errors import ProtocolError
from hetuflow.protocol import wire
from hetuflow.protocol.model import Misfire, new_id
from hetuflow.protocol.states import LedgerOutcome, MisfirePolicy, TaskCause
from hetuflow.schedule import Timing, fire_times
from hetuflow.storage.plan import Plan, cut_plan, plan_schedule

START = datetime(2026, 3, 28, 12, tzinfo=UTC)
HORIZON = timedelta(seconds=60)
LIMIT = 1_000
EACH_SECOND = Timing(kind="cron", cron_expression="* * * * * *")
EACH_MINUTE = Timing(kind="cron", cron_expression="* * * * *")

timings = st.one_of(
  st.builds(
    Timing,
    kind=st.just("cron"),
    cron_expression=st.sampled_from(
      ["* * * * *", "*/7 * * * *", "30 2 * * *", "* * * * * *", "0 0 1 * *"]
    ),
    timezone=st.sampled_from(["UTC", "Europe/Berlin"]),
    jitter_seconds=st.sampled_from([0.0, 5.0]),
    end_at=st.sampled_from([None, START + timedelta(hours=5)]),
  ),
  st.builds(
    Timing,
    kind=st.just("time"),
    interval_seconds=st.sampled_from([1.0, 1.5, 61.0, 86_400.0]),
    created_at=st.just(START),
    start_at=st.sampled_from([None, START + timedelta(minutes=3)]),
  ),
  st.builds(
    Timing, kind=st.just("time"), run_at=st.just(START + timedelta(minutes=10))
  ),
)
downtimes = st.lists(
  st.one_of(
    st.floats(0.1, 30.0), st.floats(30.0, 3_600.0), st.floats(3_600.0, 86_400.0)
  ),
  min_size=1,
  max_size=5,
)
misfires = st.builds(
  Misfire,
  policy=st.sampled_from(MisfirePolicy),
  grace=st.sampled_from([0.0, 1.0, 60.0, 600.0]),
  window=st.sampled_from([None, 0.0, 30.0, 7_200.0]),
  limit=st.sampled_from([1, 7, 3_000]),
  interval=st.sampled_from([0.0, 2.5]),
)
seconds = st.frozensets(st.integers(1, 5_000), max_size=12)


def make_row(misfire: Misfire | None = None, **more: Any) -> dict[str, Any]:
  """Make what is read of a schedule that was planned up to the start."""
  fresh = {
    "id": new_id(),
    "namespace_id": "default",
    "job_id": new_id(),
    "job_version": 1,
    "revision": 1,
    "cursor_at": START,
    "next_plan_at": START,
    "read_at": START,
    "until_at": START + HORIZON,
    "max_runs": None,
    "run_count": 0,
    "taken": [],
    "parameters": {},
    "misfire": wire.dump(misfire or Misfire()),
    "overlap": "allow",
    "max_concurrent": None,
    "concurrency_key": None,
    "rate_count": None,
    "max_running": None,
  }
  return fresh | more


def after(seconds: float, misfire: Misfire | None = None, **more: Any) -> Any:
  """Make what is read of a schedule after some seconds without a server."""
  now = START + timedelta(seconds=seconds)
  return make_row(misfire, read_at=now, until_at=now + HORIZON, **more)


def carry_out(row: dict[str, Any], plan: Plan) -> None:
  """Move the cursor of a row as the statement does."""
  assert plan.expected == row["cursor_at"]
  assert plan.cursor_at >= row["cursor_at"]
  row["cursor_at"] = plan.cursor_at
  row["next_plan_at"] = plan.next_plan_at
  row["run_count"] += len(plan.tasks)
  row["taken"] = [at for at in row["taken"] if at > plan.cursor_at]


def times_of(plan: Plan) -> list[datetime]:
  """List for when a plan makes tasks."""
  return [task.planned_at for task in plan.tasks]


@settings(max_examples=150, deadline=None)
@given(
  timing=timings,
  waits=downtimes,
  max_runs=st.sampled_from([None, 1, 5, 1_500]),
  misfire=misfires,
  taken=seconds,
)
def test_every_planned_time_is_covered_exactly_once(
  timing: Timing,
  waits: list[float],
  max_runs: int | None,
  misfire: Misfire,
  taken: frozenset[int],
) -> None:
  has_task = sorted(START + timedelta(seconds=number) for number in taken)
  row = make_row(misfire, max_runs=max_runs, taken=has_task)
  now, ended = START, False
  covered: list[datetime] = []
  ran: list[datetime] = []
  for wait in waits:
    now += timedelta(seconds=wait)
    row |= {"read_at": now, "until_at": now + HORIZON}
    while not ended:
      plan = plan_schedule(row, timing, limit=LIMIT)
      before = row["cursor_at"]
      carry_out(row, plan)
      grace = now - timedelta(seconds=misfire.grace)
      for gap in plan.gaps:
        times = listed(timing, before, gap.to_at)
        times = [at for at in times if at >= gap.from_at]
        assert (times[0], times[-1], len(times)) == (
          *(gap.from_at, gap.to_at),
          gap.count,
        )
        assert gap.to_at < grace
        covered += times
      for task in plan.tasks:
        late = task.planned_at < grace
        assert task.cause is (TaskCause.CATCH_UP if late else TaskCause.SCHEDULE)
        more = task.scheduled_at - task.planned_at
        assert timedelta(0) <= more < timedelta(seconds=5.001)
      caught_up = [at for at in times_of(plan) if at < grace]
      check_policy(misfire, caught_up, now)
      covered += times_of(plan)
      ran += times_of(plan)
      ended = plan.next_plan_at is None
      if plan.next_plan_at is not None:
        assert plan.next_plan_at > plan.cursor_at
      if ended or plan.cursor_at >= row["until_at"]:
        break
  assert len(covered) == len(set(covered))
  assert covered == sorted(covered)
  expected = [
    at for at in listed(timing, START, row["cursor_at"]) if at not in set(has_task)
  ]
  if max_runs is None:
    assert covered == expected
  else:
    assert len(ran) <= max_runs
    assert covered == expected[: len(covered)]
    assert len(covered) == len(expected) or len(ran) == max_runs


def listed(timing: Timing, since: datetime, until: datetime) -> list[datetime]:
  """List every planned time of a span."""
  return fire_times(timing, after=since, until=until, limit=10_000_000)


def check_policy(misfire: Misfire, caught_up: list[datetime], now: datetime) -> None:
  """Demand that no more late times run than the policy lets."""
  allowed = {
    MisfirePolicy.RUN_ONCE: 1,
    MisfirePolicy.SKIP: 0,
    MisfirePolicy.RUN_ALL: misfire.limit,
  }
  assert len(caught_up) <= allowed[misfire.policy]
  if misfire.policy is MisfirePolicy.RUN_ALL and misfire.window is not None:
    assert all(now - at <= timedelta(seconds=misfire.window) for at in caught_up)


# ── the policies ────────────────────────────────────────────────────────────────────


def test_run_once_runs_the_last_late_time_now_and_merges_the_others() -> None:
  row = after(3_605)
  plan = plan_schedule(row, EACH_MINUTE, limit=LIMIT)
  late, on_time, ahead = plan.tasks
  assert late.planned_at == START + timedelta(minutes=59)
  assert (late.cause, late.due_at) == (TaskCause.CATCH_UP, row["read_at"])
  # The hour itself is five seconds late: nobody calls that late.
  assert (on_time.cause, on_time.due_at) == (TaskCause.SCHEDULE, on_time.planned_at)
  assert ahead.planned_at == START + timedelta(minutes=61)
  [gap] = plan.gaps
  assert (gap.outcome, gap.count) == (LedgerOutcome.MERGED, 58)


def test_skip_runs_nothing_that_is_late_and_says_which_policy_it_was() -> None:
  misfire = Misfire(policy=MisfirePolicy.SKIP, grace=30.0)
  plan = plan_schedule(after(3_605, misfire), EACH_MINUTE, limit=LIMIT)
  assert [at - START for at in times_of(plan)] == [
    timedelta(minutes=60),
    timedelta(minutes=61),
  ]
  [gap] = plan.gaps
  assert (gap.outcome, gap.count) == (LedgerOutcome.MISSED, 59)
  assert "skip" in gap.reason


def test_run_all_runs_the_newest_in_order_one_every_interval() -> None:
  misfire = Misfire(policy=MisfirePolicy.RUN_ALL, limit=10, interval=3.0)
  row = after(3_605, misfire)
  plan = plan_schedule(row, EACH_MINUTE, limit=LIMIT)
  late = [task for task in plan.tasks if task.cause is TaskCause.CATCH_UP]
  assert times_of(attrs.evolve(plan, tasks=late)) == [
    START + timedelta(minutes=number) for number in range(50, 60)
  ]
  for number, task in enumerate(late):
    wait = task.due_at - row["read_at"]
    assert timedelta(seconds=3 * number) <= wait < timedelta(seconds=3 * number + 0.1)
    assert task.scheduled_at == task.planned_at
  assert [task.due_at for task in late] == sorted({task.due_at for task in late})
  [gap] = plan.gaps
  assert (gap.outcome, gap.count) == (LedgerOutcome.MISSED, 49)
  assert "run_all" in gap.reason


def test_run_all_leaves_out_what_is_older_than_its_window() -> None:
  misfire = Misfire(policy=MisfirePolicy.RUN_ALL, window=300.0)
  plan = plan_schedule(after(3_600, misfire), EACH_MINUTE, limit=LIMIT)
  assert times_of(plan)[0] == START + timedelta(minutes=55)
  assert [gap.to_at for gap in plan.gaps] == [START + timedelta(minutes=54)]


def test_a_window_shorter_than_the_grace_lets_nothing_late_run() -> None:
  misfire = Misfire(policy=MisfirePolicy.RUN_ALL, window=10.0)
  plan = plan_schedule(after(3_600, misfire), EACH_MINUTE, limit=LIMIT)
  assert times_of(plan)[0] == START + timedelta(minutes=59)
  assert all(task.cause is TaskCause.SCHEDULE for task in plan.tasks)


def test_late_times_that_have_a_task_stay_out_of_the_gaps_around_them() -> None:
  taken = [START + timedelta(minutes=n) for n in (10, 20, 59)]
  stray = START + timedelta(minutes=30, seconds=7)
  plan = plan_schedule(
    after(3_605, taken=sorted([*taken, stray])), EACH_MINUTE, limit=LIMIT
  )
  assert [gap.count for gap in plan.gaps] == [9, 9, 37]
  assert times_of(plan)[0] == START + timedelta(minutes=58)


def test_a_policy_that_cannot_be_read_is_told() -> None:
  row = after(3_605) | {"misfire": {"policy": "whenever"}}
  with pytest.raises(ProtocolError, match="policy"):
    plan_schedule(row, EACH_MINUTE, limit=LIMIT)


@pytest.mark.parametrize("policy", MisfirePolicy)
def test_four_hundred_days_of_seconds_are_planned_at_once(
  policy: MisfirePolicy,
) -> None:
  timing = Timing(kind="cron", cron_expression="* * * * * *", timezone="Europe/Berlin")
  row = after(400 * 86_400, Misfire(policy=policy, limit=100))
  began = time.process_time()
  plan = plan_schedule(row, timing, limit=LIMIT)
  # Some milliseconds, on a machine that is not busy.
  assert time.process_time() - began < 0.25
  [gap] = plan.gaps
  late = [task for task in plan.tasks if task.cause is TaskCause.CATCH_UP]
  assert gap.count + len(late) == 400 * 86_400 - 61
  assert plan.cursor_at == row["until_at"]


# ── the rest ────────────────────────────────────────────────────────────────────────


def test_more_runs_than_one_pass_plans_are_all_planned() -> None:
  row = make_row(max_runs=2_500, until_at=START + timedelta(hours=1))
  runs = 0
  for _ in range(3):
    plan = plan_schedule(row, EACH_SECOND, limit=LIMIT)
    carry_out(row, plan)
    runs += len(plan.tasks)
  assert runs == 2_500
  assert plan.next_plan_at is None


def test_a_horizon_behind_the_cursor_plans_nothing_and_moves_nothing() -> None:
  cursor = START + timedelta(hours=1)
  row = make_row(cursor_at=cursor, next_plan_at=cursor + timedelta(minutes=1))
  plan = plan_schedule(row, EACH_MINUTE, limit=LIMIT)
  assert (plan.tasks, plan.gaps, plan.cursor_at) == ([], [], cursor)
  assert plan.next_plan_at == cursor + timedelta(minutes=1)


def test_a_late_time_within_the_grace_runs_beside_the_next() -> None:
  row = make_row(
    read_at=START + timedelta(seconds=110), until_at=START + timedelta(seconds=170)
  )
  plan = plan_schedule(row, EACH_MINUTE, limit=LIMIT)
  assert [at - START for at in times_of(plan)] == [
    timedelta(minutes=1),
    timedelta(minutes=2),
  ]
  assert plan.gaps == []


def test_the_lane_follows_from_the_job_and_the_parameters() -> None:
  key = {"concurrency_key": "{{ parameters.city }}", "parameters": {"city": "Ulm"}}
  assert plan_schedule(make_row(**key), EACH_SECOND, limit=9).lane == "key:Ulm"
  assert plan_schedule(make_row(max_running=3), EACH_SECOND, limit=9).lane is not None
  assert plan_schedule(make_row(), EACH_SECOND, limit=9).lane is None


@given(size=st.integers(1, 400))
def test_a_plan_that_is_cut_is_the_same_plan_in_steps(size: int) -> None:
  misfire = Misfire(policy=MisfirePolicy.RUN_ALL, limit=200)
  row = after(600, misfire)
  whole = plan_schedule(row, EACH_SECOND, limit=LIMIT)
  pieces = list(cut_plan(whole, size))
  assert [task for piece in pieces for task in piece.tasks] == whole.tasks
  assert [gap for piece in pieces for gap in piece.gaps] == whole.gaps
  assert all(0 < len(piece.tasks) <= size for piece in pieces)
  row["taken"] = []
  for piece in pieces:
    carry_out(row, piece)
  assert row["cursor_at"] == whole.cursor_at
  assert row["next_plan_at"] == whole.next_plan_at
