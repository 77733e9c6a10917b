"""Why tasks are as they are, told from a real database."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from support.members import SET_LEASE, claim_one, join, make_tasks
from support.world import make_job, make_schedule, plan_task, query, read_clock

from hetuflow.errors import NotFound
from hetuflow.protocol.messages import TaskInstanceUpdate
from hetuflow.protocol.model import (
  AgentMetrics,
  Explanation,
  Reason,
  ReasonCode,
  TaskConfig,
  TaskId,
  new_id,
)
from hetuflow.protocol.states import ExecutorKind, TaskInstanceStatus
from hetuflow.server.explaining import explain_task
from hetuflow.server.explaining.outlook import expect_start, spread_ends
from hetuflow.server.explaining.words import duration
from hetuflow.server.sessions import Sessions
from hetuflow.storage.connect import Database, Record
from hetuflow.storage.transitions import pause_task, record_updates, request_cancel

BLOCK = query("""
  UPDATE sched_task SET lane = $lane, status = 'blocked', due_at = now(),
    rank_at = now() - make_interval(secs => $rank)
  WHERE id = $id
""")
HOLD = query("UPDATE sched_task SET lane = $lane WHERE id = $id")
LIMIT = query("""
  UPDATE sched_job SET max_concurrent = $max::integer, concurrency_key = $key,
    rate_count = $rate_count, rate_seconds = $rate_seconds::double precision
  WHERE id = $id
""")
BIND = query("""
  WITH server AS (
    INSERT INTO sched_server (id, name, url, version, alive_until)
    VALUES (gen_random_uuid(), 'host-1', 'http://127.0.0.1:1', '0',
      now() + make_interval(secs => $alive))
    RETURNING id
  )
  INSERT INTO sched_binding (namespace_id, server_id) SELECT 'default', id FROM server
""")
SET_RATE = query("""
  INSERT INTO sched_rate (job_id, namespace_id, arrival_at)
  VALUES ($job_id, 'default', now() + interval '40 seconds')
""")
FILL = query("""
  UPDATE sched_agent SET metrics = $metrics WHERE id = $id
""")
SLOW = query("""
  INSERT INTO sched_task_instance (
    id, namespace_id, task_id, job_id, job_version, agent_id, attempt, status,
    claim_token, scheduled_at, due_at, started_at, completed_at
  )
  SELECT hetuflow_uuid7(now()), 'default', gen_random_uuid(), $job_id, 1,
    gen_random_uuid(), 1, 'succeeded', gen_random_uuid(), now(), now(),
    now() - interval '60 seconds', now()
""")
SPREAD = query("""
  WITH parent AS (
    UPDATE sched_task SET status = 'running', claim_token = gen_random_uuid()
    WHERE id = $id
    RETURNING *
  ),
  route AS (
    INSERT INTO sched_route (namespace_id, selector)
    SELECT 'default', jsonb_build_object('agent', $agent_id::uuid)
    RETURNING id
  )
  INSERT INTO sched_task (
    id, namespace_id, job_id, job_version, status, route_id, planned_at, scheduled_at,
    due_at, rank_at, parent_id, cause, completed_at
  )
  SELECT gen_random_uuid(), 'default', job_id, 1, child.status::task_status, route.id,
    now(), now(), now(), now(), parent.id, 'broadcast', child.completed_at
  FROM parent, route, (
    VALUES ('pending', 'infinity'::timestamptz), ('succeeded', now())
  ) AS child (status, completed_at)
""")
SET_STATUS = query("UPDATE sched_job SET status = 'disabled' WHERE id = $id")


async def explain(database: Database, task_id: TaskId) -> Explanation:
  """Explain a task for nobody in particular."""
  return await explain_task(database, task_id, free={})


def find(found: Explanation, code: ReasonCode) -> Reason:
  """Return the one reason of a code."""
  [reason] = [each for each in found.reasons if each.code is code]
  return reason


def codes(found: Explanation) -> list[str]:
  """List the codes of the reasons in order."""
  return [each.code.value for each in found.reasons]


async def report(
  database: Database, claim: Record, status: TaskInstanceStatus, **more: Any
) -> None:
  """Report something of a claim, as its agent."""
  update = TaskInstanceUpdate(
    instance_id=claim["instance_id"],
    namespace_id="default",  # type: ignore[arg-type]  # as it comes
    claim_token=claim["claim_token"],
    status=status,
    **more,
  )
  assert await record_updates(database, update.namespace_id, [update]) == {}


async def test_a_task_that_is_not_there_has_no_explanation(database: Database) -> None:
  with pytest.raises(NotFound):
    await explain(database, TaskId(new_id()))


async def test_a_task_before_its_time_says_when_it_is_due(database: Database) -> None:
  await join(database, Sessions())
  job = await make_job(database)
  at = await read_clock(database) + timedelta(hours=2)
  [task_id] = await make_tasks(database, job, scheduled_at=at)
  found = await explain(database, task_id)
  assert codes(found) == ["not_due"]
  assert found.verdict == (
    "It is due in 1 h 59 min, and handed to an agent 5 s before."
  )
  assert found.expected_start_at == at
  assert 7_100 < find(found, ReasonCode.NOT_DUE).details["due_in"] <= 7_200


async def test_a_task_that_no_agent_can_take_says_what_the_nearest_ones_lack(
  database: Database,
) -> None:
  sessions = Sessions()
  near = await join(database, sessions, name="near", labels={"disk": "ssd"})
  await join(database, sessions, name="far")
  gone = await join(
    database, sessions, name="gone", labels={"disk": "ssd", "zone": "a"}
  )
  await database.fetch(SET_LEASE, id=gone.agent_id, seconds=-1.0)
  labels = {"disk": "ssd", "zone": "a"}
  job = await make_job(database, config=TaskConfig(cmd="/bin/true", labels=labels))
  [task_id] = await make_tasks(database, job)
  found = await explain(database, task_id)
  assert codes(found) == ["no_agent"]
  agents = find(found, ReasonCode.NO_AGENT).details["agents"]
  assert [each["agent"] for each in agents] == ["gone", "near", "far"]
  assert agents[0]["lacks"][0].startswith("is offline since")
  assert agents[1]["lacks"] == ["lacks the labels zone=a"]
  assert agents[2]["lacks"] == ["lacks the labels disk=ssd and zone=a"]
  assert agents[1]["agent_id"] == str(near.agent_id)


async def test_an_agent_without_the_function_lacks_it(database: Database) -> None:
  await join(database, Sessions())
  config = TaskConfig(executor=ExecutorKind.PYTHON, cmd="mail.send")
  job = await make_job(database, config=config)
  [task_id] = await make_tasks(database, job)
  reason = find(await explain(database, task_id), ReasonCode.NO_AGENT)
  assert reason.details["agents"][0]["lacks"] == [
    "lacks the executor python",
    "lacks the function mail.send",
  ]


async def test_without_any_agent_that_is_said(database: Database) -> None:
  [task_id] = await make_tasks(database, await make_job(database))
  found = await explain(database, task_id)
  assert found.verdict == "The namespace default has no agent."


async def test_a_due_task_with_a_free_slot_says_who_can_take_it(
  database: Database,
) -> None:
  await join(database, Sessions(), name="web-1")
  [task_id] = await make_tasks(database, await make_job(database))
  found = await explain(database, task_id)
  assert codes(found) == ["claimable"]
  assert "web-1" in found.verdict


async def test_a_task_without_a_free_slot_says_its_place_and_when_it_may_start(
  database: Database,
) -> None:
  agent = await join(database, Sessions())
  await database.fetch(FILL, id=agent.agent_id, metrics=AgentMetrics(running=1))
  job = await make_job(database)
  await database.fetch(SLOW, job_id=job.id)
  await make_tasks(database, job)
  [task_id] = await make_tasks(database, job)
  now = await read_clock(database)
  found = await explain(database, task_id)
  reason = find(found, ReasonCode.NO_FREE_SLOT)
  assert reason.details["position"] == 2
  assert reason.details["agents"][0]["running"] == 1
  assert found.estimated
  assert found.expected_start_at is not None
  assert 119 < (found.expected_start_at - now).total_seconds() < 125


async def test_slots_of_agents_connected_here_count_as_their_sessions_have_them(
  database: Database,
) -> None:
  agent = await join(database, Sessions())
  [task_id] = await make_tasks(database, await make_job(database))
  found = await explain_task(database, task_id, free={agent.agent_id: 0})
  assert codes(found) == ["no_free_slot"]


async def blocked(database: Database, lane: str, **limits: Any) -> tuple[Any, TaskId]:
  """Make a job with a limit, one holder that an agent has, and three that wait.

  Returns:
    The claim of the holder, and the one of those that wait that comes last.
  """
  job = await make_job(database)
  await make_tasks(database, job)
  claim = await claim_one(database, job)
  await database.fetch(HOLD, id=claim["task_id"], lane=lane)
  waiting = await make_tasks(database, job, 3)
  values = {"max": None, "key": None, "rate_count": None, "rate_seconds": None}
  await database.fetch(LIMIT, id=job.id, **(values | limits))
  for number, task_id in enumerate(waiting):
    await database.fetch(BLOCK, id=task_id, lane=lane, rank=float(9 - number))
  return claim, waiting[-1]


async def test_a_task_blocked_by_a_limit_names_it_its_holders_and_its_place(
  database: Database,
) -> None:
  await database.fetch(BIND, alive=60.0)
  claim, task_id = await blocked(database, "key:tape", key="tape")
  found = await explain(database, task_id)
  assert codes(found) == ["blocked_by_limit"]
  reason = find(found, ReasonCode.BLOCKED_BY_LIMIT)
  assert reason.details["limit"] == "the one place of concurrency_key 'tape'"
  assert (reason.details["max"], reason.details["position"]) == (1, 3)
  [holder] = reason.details["holders"]
  assert UUID(holder["task_id"]) == claim["task_id"]
  assert UUID(holder["instance_id"]) == claim["instance_id"]
  assert holder["agent_name"] == "agent"
  assert "2 tasks before it" in found.verdict


async def test_where_the_namespace_is_full_that_limit_is_named(
  database: Database,
) -> None:
  await database.fetch(BIND, alive=60.0)
  _, task_id = await blocked(database, "namespace", max=5)
  await database.fetch(query("UPDATE sched_namespace SET max_running = 1"))
  found = await explain(database, task_id)
  reason = find(found, ReasonCode.BLOCKED_BY_LIMIT)
  assert reason.details["limit"] == "max_running 1 of the namespace default"
  assert len(reason.details["holders"]) == 1


async def test_a_rate_says_when_its_next_start_is_free(database: Database) -> None:
  await database.fetch(BIND, alive=60.0)
  job = await make_job(database)
  await database.fetch(
    LIMIT, id=job.id, max=None, key=None, rate_count=6, rate_seconds=60.0
  )
  await database.fetch(SET_RATE, job_id=job.id)
  [task_id] = await make_tasks(database, job)
  await database.fetch(BLOCK, id=task_id, lane=f"job:{job.id}", rank=0.0)
  await join(database, Sessions())
  found = await explain(database, task_id)
  assert codes(found) == ["rate_limited"]
  assert "6 times in 60 s" in found.verdict
  assert found.expected_start_at is not None
  assert not found.estimated


@pytest.mark.parametrize(
  ("alive", "code"), [(None, "namespace_unbound"), (-5.0, "server_away")]
)
async def test_where_nobody_gives_places_that_is_said(
  database: Database, alive: float | None, code: str
) -> None:
  if alive is not None:
    await database.fetch(BIND, alive=alive)
  _, task_id = await blocked(database, "key:tape", key="tape")
  assert codes(await explain(database, task_id)) == ["blocked_by_limit", code]


async def test_a_paused_task_says_so(database: Database) -> None:
  [task_id] = await make_tasks(database, await make_job(database))
  await pause_task(database, task_id)
  found = await explain(database, task_id)
  assert codes(found) == ["paused"]
  assert found.verdict.endswith("and waits to be resumed.")


async def test_a_task_that_waits_for_a_retry_says_how_the_last_attempt_failed(
  database: Database,
) -> None:
  config = TaskConfig(cmd="/bin/false", max_retries=2, retry_interval=60.0)
  job = await make_job(database, config=config)
  [task_id] = await make_tasks(database, job)
  claim = await claim_one(database, job)
  await report(database, claim, TaskInstanceStatus.FAILED, exit_code=3)
  found = await explain(database, task_id)
  assert codes(found) == ["waiting_retry"]
  assert found.verdict.startswith(
    "Attempt 1 of at most 3 did not succeed: failed on agent agent with exit code 3"
  )
  assert found.reasons[0].details["last"]["exit_code"] == 3
  assert found.expected_start_at is not None


async def test_a_task_that_was_given_back_says_by_whom_and_why(
  database: Database,
) -> None:
  job = await make_job(database)
  [task_id] = await make_tasks(database, job)
  claim = await claim_one(database, job)
  await report(database, claim, TaskInstanceStatus.RELEASED, reason="lease expired")
  found = await explain(database, task_id)
  assert codes(found) == ["claimable", "given_back"]
  assert found.reasons[1].message.endswith("lease expired")


async def test_a_task_of_a_disabled_job_says_that_it_is_run_all_the_same(
  database: Database,
) -> None:
  job = await make_job(database)
  [task_id] = await make_tasks(database, job)
  await database.fetch(SET_STATUS, id=job.id)
  assert codes(await explain(database, task_id)) == ["no_agent", "job_disabled"]


async def test_a_task_that_an_agent_has_not_started_says_how_late_it_is(
  database: Database,
) -> None:
  job = await make_job(database)
  at = datetime(2020, 1, 1, tzinfo=UTC)
  [task_id] = await make_tasks(database, job, scheduled_at=at)
  claim = await claim_one(database, job)
  await database.fetch(SET_LEASE, id=claim["agent_id"], seconds=-1.0)
  found = await explain(database, task_id)
  assert codes(found) == ["dispatched_not_started"]
  assert "should have started it" in found.verdict
  assert "its lease ended" in found.verdict


@pytest.mark.parametrize("connected", [True, False])
async def test_a_requested_cancel_says_whether_the_agent_can_be_told(
  database: Database, connected: bool
) -> None:
  job = await make_job(database)
  [task_id] = await make_tasks(database, job)
  claim = await claim_one(database, job)
  await report(database, claim, TaskInstanceStatus.RUNNING)
  await request_cancel(database, task_id)
  if not connected:
    await database.fetch(SET_LEASE, id=claim["agent_id"], seconds=-1.0)
  found = await explain(database, task_id)
  assert codes(found)[:2] == ["cancel_requested", "running"]
  told = "is told until it answers" if connected else "cannot be told"
  assert told in found.verdict
  assert found.reasons[0].details["connected"] is connected


async def test_a_broadcast_names_the_agents_it_waits_for(database: Database) -> None:
  agent = await join(database, Sessions(), name="web-1")
  [task_id] = await make_tasks(database, await make_job(database))
  await database.fetch(SPREAD, id=task_id, agent_id=agent.agent_id)
  found = await explain(database, task_id)
  reason = find(found, ReasonCode.WAITING_FOR_CHILDREN)
  assert found.verdict == ("1 of 2 agents are done with it; it waits for agent web-1.")
  assert [each["agent"] for each in reason.details["waiting_for"]] == ["web-1"]


async def test_a_task_that_ended_says_why_it_ran_when_and_where(
  database: Database,
) -> None:
  job = await make_job(database)
  schedule = await make_schedule(database, job, name="each minute")
  at = await read_clock(database) - timedelta(seconds=90)
  await plan_task(database, schedule, at)
  await database.fetch(query("UPDATE sched_task SET cause = 'catch_up'"))
  claim = await claim_one(database, job)
  now = await read_clock(database)
  await report(
    database,
    claim,
    TaskInstanceStatus.SUCCEEDED,
    started_at=now,
    completed_at=now,
    exit_code=0,
  )
  found = await explain(database, TaskId(claim["task_id"]))
  assert codes(found) == ["ended", "cause", "waited", "started"]
  assert found.verdict == "It succeeded."
  assert "the schedule each minute caught it up" in found.reasons[1].message
  assert "for a free slot" in found.reasons[2].message
  assert found.reasons[3].details["agent_id"] == str(claim["agent_id"])
  assert found.reasons[3].details["start_error_ms"] > 80_000


async def test_a_task_that_failed_says_how_its_last_attempt_did(
  database: Database,
) -> None:
  job = await make_job(database)
  [task_id] = await make_tasks(database, job)
  claim = await claim_one(database, job)
  await report(database, claim, TaskInstanceStatus.FAILED, exit_code=7)
  found = await explain(database, task_id)
  assert found.verdict == (
    "It failed after one attempt: the last one failed on agent agent with exit code 7."
  )


async def test_a_task_that_was_cancelled_says_who_wanted_it(database: Database) -> None:
  [task_id] = await make_tasks(database, await make_job(database))
  await request_cancel(database, task_id)
  found = await explain(database, task_id)
  assert found.verdict == "It was cancelled: cancelled by request."


async def test_deadlines_of_a_waiting_task_are_told(database: Database) -> None:
  [task_id] = await make_tasks(database, await make_job(database))
  await database.fetch(
    query("""
      UPDATE sched_task SET start_by = now() + interval '90 seconds',
        end_by = now() + interval '1 day'
      WHERE id = $id
    """),
    id=task_id,
  )
  found = await explain(database, task_id)
  assert codes(found) == ["no_agent", "missed_after", "fails_after"]


@pytest.mark.parametrize(
  ("seconds", "words"),
  [
    (0.0123, "0.0123 s"),
    (59.4, "59 s"),
    (60, "1 min"),
    (3_725, "1 h 2 min"),
    (-90_000, "1 d 1 h"),
  ],
)
def test_lengths_of_time_are_written_in_their_greatest_units(
  seconds: float, words: str
) -> None:
  assert duration(seconds) == words


def test_a_start_is_expected_when_those_before_have_had_their_turn() -> None:
  now = datetime(2026, 1, 1, tzinfo=UTC)
  ends = spread_ends(now, 2, 60.0)
  assert ends == [now + timedelta(seconds=30), now + timedelta(seconds=60)]
  starts = [expect_start(ends, ahead, [60.0]) for ahead in range(3)]
  assert starts == [now + timedelta(seconds=each) for each in (30, 60, 90)]
  assert expect_start([], 1, [60.0]) is None
  assert expect_start(ends, 1, []) is None
  assert expect_start(ends, 10_000, [3e9]) is None
