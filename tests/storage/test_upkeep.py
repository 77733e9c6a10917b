"""What is to be kept going, judged without a database."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetuflow.protocol.states import AgentStatus, TaskStatus
from hetuflow.storage.upkeep import Keeping, Replica, judge, pause_after

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
NONE = timedelta()
CONFIG = {"retry_interval": 1.0, "retry_backoff": 2.0}


def seconds(number: float) -> timedelta:
  """Return a span."""
  return timedelta(seconds=number)


def make_replica(number: int = 0, **more: Any) -> Replica:
  """Make a replica that has run for a minute on an agent that is well."""
  fields = {
    "task_id": uuid4(),
    "status": TaskStatus.RUNNING,
    "due_at": NOW - seconds(60),
    "started_at": NOW - seconds(60),
    "agent_id": uuid4(),
    "agent_status": AgentStatus.ONLINE,
    "connected": True,
    "leased": True,
  }
  return Replica(number=number, **(fields | more))


def make_keeping(*replicas: Replica, wanted: int | None = None, **more: Any) -> Keeping:
  """Make a daemon as it was read."""
  fields = {
    "schedule_id": UUID(int=1),
    "namespace_id": "default",
    "daemon": True,
    "wanted": len(replicas) if wanted is None else wanted,
    "interval": seconds(30),
    "read_at": NOW,
    "replicas": replicas,
  }
  return Keeping(**(fields | more))


def stopped(keeping: Keeping) -> list[int]:
  """Say which replicas are to be stopped."""
  ids = {task_id for task_id, _ in judge(keeping, horizon=NONE).stops}
  return [each.number for each in keeping.replicas if each.task_id in ids]


def test_what_runs_as_it_should_is_left_alone() -> None:
  assert not judge(make_keeping(make_replica(0), make_replica(1)), horizon=NONE)


def test_missing_replicas_are_made() -> None:
  keeping = make_keeping(make_replica(1), wanted=3)
  assert judge(keeping, horizon=NONE).missing == [0, 2]


@pytest.mark.parametrize(
  ("more", "moved"),
  [
    ({}, False),
    ({"connected": False, "due_at": NOW - seconds(1)}, False),
    ({"connected": False, "due_at": NOW - seconds(6)}, True),
    ({"connected": False, "leased": False, "due_at": NOW}, True),
    ({"agent_status": AgentStatus.DRAINING}, True),
    ({"agent_status": AgentStatus.BUSY, "due_at": NOW - seconds(9)}, False),
    ({"agent_status": AgentStatus.BUSY, "due_at": NOW - seconds(11)}, True),
    ({"agent_id": None, "agent_status": None, "connected": False}, False),
    ({"connected": False, "leased": False, "ending": True}, False),
  ],
)
def test_a_task_waits_only_so_long_for_its_agent(
  more: dict[str, Any], moved: bool
) -> None:
  for status in (TaskStatus.PENDING, TaskStatus.WAITING_RETRY):
    replica = make_replica(status=status, started_at=None, **more)
    assert stopped(make_keeping(replica)) == ([0] if moved else [])


def test_what_runs_is_not_stopped_because_its_agent_is_silent() -> None:
  replica = make_replica(connected=False, leased=False)
  assert not judge(make_keeping(replica), horizon=NONE)


def test_a_change_waits_until_everything_else_runs() -> None:
  stale = make_replica(0, stale=True)
  assert stopped(make_keeping(stale, make_replica(1))) == [0]
  fresh = make_replica(1, started_at=NOW - seconds(3))
  assert stopped(make_keeping(stale, fresh)) == []
  down = make_replica(1, task_id=None, status=None, next_at=NOW + seconds(9))
  assert stopped(make_keeping(stale, down)) == []
  ending = make_replica(1, stale=True, ending=True)
  assert stopped(make_keeping(stale, ending)) == []


def test_what_has_not_begun_is_replaced_first() -> None:
  waiting = make_replica(1, stale=True, status=TaskStatus.PENDING, started_at=None)
  assert stopped(make_keeping(make_replica(0, stale=True), waiting)) == [1]


@pytest.mark.parametrize(
  ("failures", "pause"), [(0, 1), (1, 2), (5, 32), (6, 60), (500, 60)]
)
def test_pauses_double_up_to_a_minute(failures: int, pause: float) -> None:
  replica = make_replica(failures=failures)
  end = {
    "status": "failed",
    "started_at": NOW - seconds(2),
    "completed_at": NOW,
    "config": CONFIG,
  }
  assert pause_after(make_keeping(replica), replica, end) == (
    failures + 1,
    NOW + seconds(pause),
  )


def test_an_end_without_a_start_is_a_failure() -> None:
  replica = make_replica(failures=0)
  end = {"status": "missed", "started_at": None, "completed_at": NOW, "config": CONFIG}
  assert pause_after(make_keeping(replica), replica, end) == (1, NOW + seconds(1))


@pytest.mark.parametrize(
  "config",
  [
    {},
    {"retry_interval": 1.0, "retry_backoff": "x"},
    {"retry_interval": None, "retry_backoff": 2.0},
    {"retry_interval": 1.0, "retry_backoff": 1e300},
  ],
)
def test_a_configuration_that_cannot_be_read_makes_the_longest_pause(
  config: dict[str, Any],
) -> None:
  replica = make_replica(failures=5)
  end = {"status": "failed", "started_at": None, "completed_at": NOW, "config": config}
  assert pause_after(make_keeping(replica), replica, end) == (6, NOW + seconds(60))


def test_a_delay_does_not_ask_how_the_last_one_ended() -> None:
  for status in ("succeeded", "failed", "cancelled", "skipped"):
    replica = make_replica()
    keeping = make_keeping(replica, daemon=False)
    end = {"status": status, "started_at": None, "completed_at": NOW, "config": CONFIG}
    assert pause_after(keeping, replica, end) == (0, NOW + seconds(30))


statuses = st.sampled_from([None, *(status for status in TaskStatus)][:7])
replicas = st.builds(
  make_replica,
  status=statuses,
  ending=st.booleans(),
  stale=st.booleans(),
  connected=st.booleans(),
  leased=st.booleans(),
  agent_status=st.sampled_from([None, *AgentStatus]),
  started_at=st.sampled_from([None, NOW - seconds(3), NOW - seconds(30)]),
)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(
  found=st.lists(replicas, max_size=6), wanted=st.integers(0, 7), daemon=st.booleans()
)
def test_nothing_is_started_while_it_lives_nor_stopped_twice(
  found: list[Replica], wanted: int, daemon: bool
) -> None:
  numbered = [attrs.evolve(each, number=number) for number, each in enumerate(found)]
  keeping = make_keeping(*numbered, wanted=wanted, daemon=daemon)
  upkeep = judge(keeping, horizon=NONE)
  assert not any(each.live for each in (*upkeep.due, *upkeep.ended))
  stops = {task_id for task_id, _ in upkeep.stops}
  assert len(stops) == len(upkeep.stops)
  assert all(
    each.live and not each.ending for each in numbered if each.task_id in stops
  )
  assert daemon or not stops
  # Of what could go on as it is, a change stops one at a time.
  rolled = [why for _, why in upkeep.stops if why.startswith("its job")]
  assert len(rolled) <= 1
