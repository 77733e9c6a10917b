"""Daemons and intervals that are counted from the end: kept going in the database."""

from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import trio
from support.members import SET_LEASE, claim_all, join, report
from support.plans import explain_generic, scans
from support.world import make_job, make_schedule, query, read_clock

from hetuflow.errors import Conflict
from hetuflow.protocol.model import (
  Schedule,
  ScheduleForUpdate,
  TaskConfig,
  TaskId,
)
from hetuflow.protocol.model.job import JobForUpdate
from hetuflow.protocol.states import ScheduleKind, TaskInstanceStatus
from hetuflow.server.session import Session
from hetuflow.server.sessions import Sessions
from hetuflow.storage import replicas
from hetuflow.storage.connect import Database, Record
from hetuflow.storage.jobs import set_job_enabled, update_job
from hetuflow.storage.replicas import keep_schedule, read_keepings
from hetuflow.storage.schedules import (
  delete_schedule,
  get_schedule,
  set_schedule_enabled,
  update_schedule,
)
from hetuflow.storage.transitions import request_cancel, revive_task
from hetuflow.storage.upkeep import judge

HORIZON = timedelta(seconds=60)
LIVE = query("""
  SELECT t.id, t.occurrence, t.status, t.reason, t.cause, t.cancel_requested_at,
    t.planned_at, t.due_at, t.max_retries, r.selector ->> 'agent' AS agent_id
  FROM sched_task AS t JOIN sched_route AS r ON r.id = t.route_id
  WHERE t.schedule_id = $id AND t.completed_at = 'infinity' ORDER BY t.occurrence
""")
ROWS = query("SELECT * FROM sched_replica WHERE schedule_id = $id ORDER BY replica")
PASS_TIME = query("""
  UPDATE sched_replica SET next_at = next_at - make_interval(secs => $seconds)
  WHERE schedule_id = $id
""")
GROW_OLD = query("""
  UPDATE sched_task_instance SET started_at = now() - interval '1 minute'
  WHERE completed_at = 'infinity'
""")
SET_STATUS = query("""
  UPDATE sched_agent SET status = $status::agent_status WHERE id = $id
""")


async def make_daemon(
  database: Database, count: int = 3, config: dict[str, Any] | None = None, **more: Any
) -> Schedule:
  """Make a daemon of a job."""
  settings = TaskConfig(cmd="/bin/sleep", args=["600"], **(config or {}))
  job = await make_job(database, config=settings)
  wish = {"kind": ScheduleKind.DAEMON, "cron_expression": None, "replicas": count}
  return await make_schedule(database, job, **(wish | more))


async def make_delay(database: Database, seconds: float, **more: Any) -> Schedule:
  """Make a schedule that counts its interval from the end."""
  wish = {
    "kind": ScheduleKind.TIME,
    "cron_expression": None,
    "interval_seconds": seconds,
    "fixed_delay": True,
  }
  return await make_schedule(database, await make_job(database), **(wish | more))


async def make_agents(database: Database, count: int) -> list[Session]:
  """Connect agents."""
  sessions = Sessions()
  return [await join(database, sessions, name=f"agent-{n}") for n in range(count)]


async def keep(database: Database, schedule: Schedule) -> None:
  """Do all there is to do for a schedule now."""
  for _ in range(10):
    if not await keep_schedule(database, schedule.id, horizon=HORIZON):
      return
  raise AssertionError("there is no end of it")


async def live(database: Database, schedule: Schedule) -> list[Record]:
  """Read the live tasks of a schedule."""
  return await database.fetch(LIVE, id=schedule.id)


async def start_all(database: Database, agents: list[Session]) -> list[Record]:
  """Let agents claim what is for them and start it."""
  claims = []
  for agent in agents:
    claims += await claim_all(database, agent)
  await report(
    database, claims, TaskInstanceStatus.RUNNING, started_at=await read_clock(database)
  )
  return claims


async def running(
  database: Database, count: int = 3, agents: int = 3, **more: Any
) -> tuple[Schedule, list[Session], list[Record]]:
  """Make a daemon that runs."""
  sessions = await make_agents(database, agents)
  schedule = await make_daemon(database, count, **more)
  await keep(database, schedule)
  return schedule, sessions, await start_all(database, sessions)


async def end(database: Database, claim: Record, status: TaskInstanceStatus) -> None:
  """Let an attempt end now."""
  now = await read_clock(database)
  await report(database, [claim], status, exit_code=1, completed_at=now)


async def test_replicas_are_spread_over_the_agents(database: Database) -> None:
  await make_agents(database, 2)
  schedule = await make_daemon(database, 5)
  await keep(database, schedule)
  tasks = await live(database, schedule)
  assert [task["occurrence"] for task in tasks] == [f"r{n}g1" for n in range(5)]
  assert {(task["cause"], task["max_retries"]) for task in tasks} == {("daemon", 0)}
  assert sorted(Counter(task["agent_id"] for task in tasks).values()) == [2, 3]
  assert (await get_schedule(database, schedule.id)).run_count == 5


async def test_the_agent_that_runs_least_is_chosen(database: Database) -> None:
  busy, idle = await make_agents(database, 2)
  other = await make_daemon(database, 1)
  await keep(database, other)
  [task] = await live(database, other)
  chosen, left = (
    (busy, idle) if task["agent_id"] == str(busy.agent_id) else (idle, busy)
  )
  await start_all(database, [chosen])
  job = await make_job(database, name="second")
  schedule = await make_schedule(
    database, job, kind=ScheduleKind.DAEMON, cron_expression=None, replicas=1
  )
  await keep(database, schedule)
  [task] = await live(database, schedule)
  assert task["agent_id"] == str(left.agent_id)


async def test_without_an_agent_the_task_waits_for_any(database: Database) -> None:
  schedule = await make_daemon(database, 1)
  await keep(database, schedule)
  [task] = await live(database, schedule)
  assert (task["status"], task["agent_id"]) == ("pending", None)
  [agent] = await make_agents(database, 1)
  assert len(await start_all(database, [agent])) == 1
  [keeping] = await read_keepings(database, id=schedule.id)
  assert keeping.replicas[0].agent_id == agent.agent_id


async def test_what_fails_soon_is_started_after_growing_pauses(
  database: Database,
) -> None:
  schedule, agents, [claim] = await running(database, 1, 1)
  pauses = []
  for _ in range(4):
    await end(database, claim, TaskInstanceStatus.FAILED)
    await keep(database, schedule)
    [row] = await database.fetch(ROWS, id=schedule.id)
    pauses.append(round((row["next_at"] - await read_clock(database)).total_seconds()))
    assert await live(database, schedule) == []
    await database.fetch(PASS_TIME, id=schedule.id, seconds=100.0)
    await keep(database, schedule)
    [claim] = await start_all(database, agents)
  assert pauses == [1, 2, 4, 8]


async def test_what_has_lived_for_a_while_is_started_at_once(
  database: Database,
) -> None:
  schedule, _, [claim] = await running(database, 1, 1)
  await database.fetch(GROW_OLD)
  await end(database, claim, TaskInstanceStatus.FAILED)
  await keep(database, schedule)
  [task] = await live(database, schedule)
  assert task["occurrence"] == "r0g2"
  [row] = await database.fetch(ROWS, id=schedule.id)
  assert row["failures"] == 0


async def test_a_cancelled_replica_is_started_again_at_once(database: Database) -> None:
  schedule, _, [claim] = await running(database, 1, 1)
  await request_cancel(database, TaskId(claim["task_id"]))
  await keep(database, schedule)
  assert [task["occurrence"] for task in await live(database, schedule)] == ["r0g1"]
  await end(database, claim, TaskInstanceStatus.CANCELLED)
  await keep(database, schedule)
  assert [task["occurrence"] for task in await live(database, schedule)] == ["r0g2"]


async def test_what_waits_for_a_lost_agent_moves(database: Database) -> None:
  schedule, agents, [claim] = await running(database, 1, 2)
  lost = next(agent for agent in agents if agent.agent_id == claim["agent_id"])
  await database.fetch(SET_LEASE, id=lost.agent_id, seconds=-1.0)
  await keep(database, schedule)
  # It may still run there, until the reaper says otherwise.
  [task] = await live(database, schedule)
  assert task["status"] == "running"
  await report(database, [claim], TaskInstanceStatus.LOST)
  await keep(database, schedule)
  [task] = await live(database, schedule)
  assert task["occurrence"] == "r0g2"
  assert task["agent_id"] not in (None, str(lost.agent_id))


async def test_what_runs_on_a_draining_agent_moves_if_it_can(
  database: Database,
) -> None:
  schedule, [agent], [claim] = await running(database, 1, 1)
  await database.fetch(SET_STATUS, id=agent.agent_id, status="draining")
  await keep_schedule(database, schedule.id, horizon=HORIZON)
  [task] = await live(database, schedule)
  assert task["cancel_requested_at"] is None
  [other] = await make_agents(database, 1)
  await keep(database, schedule)
  [task] = await live(database, schedule)
  assert task["cancel_requested_at"] is not None
  await end(database, claim, TaskInstanceStatus.CANCELLED)
  await keep(database, schedule)
  [task] = await live(database, schedule)
  assert task["agent_id"] == str(other.agent_id)


async def test_fewer_replicas_cancel_the_last_ones(database: Database) -> None:
  schedule, _, claims = await running(database)
  await update_schedule(database, schedule.id, ScheduleForUpdate(replicas=1))
  await keep(database, schedule)
  asked = [
    task["occurrence"]
    for task in await live(database, schedule)
    if task["cancel_requested_at"] is not None
  ]
  assert asked == ["r1g1", "r2g1"]
  for claim in claims:
    if claim["task_id"] in await ids_asked(database, schedule):
      await end(database, claim, TaskInstanceStatus.CANCELLED)
  await keep(database, schedule)
  assert [task["occurrence"] for task in await live(database, schedule)] == ["r0g1"]
  await update_schedule(database, schedule.id, ScheduleForUpdate(replicas=2))
  await keep(database, schedule)
  # Its generations go on where they were.
  occurrences = [task["occurrence"] for task in await live(database, schedule)]
  assert occurrences == ["r0g1", "r1g2"]


async def ids_asked(database: Database, schedule: Schedule) -> set[UUID]:
  """Find the tasks that are to be cancelled."""
  tasks = await live(database, schedule)
  return {task["id"] for task in tasks if task["cancel_requested_at"] is not None}


@pytest.mark.parametrize("what", ["schedule", "job", "window"])
async def test_what_is_off_runs_nothing(database: Database, what: str) -> None:
  schedule, _, claims = await running(database, 2)
  if what == "schedule":
    await set_schedule_enabled(database, schedule.id, False)
  elif what == "job":
    await set_job_enabled(database, schedule.job_id, False)
  else:
    now = await read_clock(database)
    await update_schedule(database, schedule.id, ScheduleForUpdate(end_at=now))
  await keep(database, schedule)
  assert len(await ids_asked(database, schedule)) == 2
  for claim in claims:
    await end(database, claim, TaskInstanceStatus.CANCELLED)
  await keep(database, schedule)
  assert await live(database, schedule) == []


async def test_a_deleted_daemon_runs_nothing(database: Database) -> None:
  schedule, _, _ = await running(database, 2)
  await delete_schedule(database, schedule.id)
  tasks = await live(database, schedule)
  assert {task["reason"] for task in tasks} == {"its schedule is deleted"}
  assert all(task["cancel_requested_at"] is not None for task in tasks)
  assert await keep_schedule(database, schedule.id, horizon=HORIZON) is None


async def test_a_new_version_replaces_one_replica_at_a_time(database: Database) -> None:
  schedule, agents, claims = await running(database, 2)
  config = TaskConfig(cmd="/bin/sleep", args=["700"])
  await update_job(database, schedule.job_id, JobForUpdate(config=config))
  await keep(database, schedule)
  [first] = await ids_asked(database, schedule)
  [claim] = [claim for claim in claims if claim["task_id"] == first]
  await end(database, claim, TaskInstanceStatus.CANCELLED)
  await keep(database, schedule)
  await start_all(database, agents)
  await keep(database, schedule)
  # The new one has not proved itself yet.
  assert await ids_asked(database, schedule) == set()
  await database.fetch(GROW_OLD)
  await keep(database, schedule)
  [second] = await ids_asked(database, schedule)
  assert second != first


async def test_two_servers_start_each_replica_once(database: Database) -> None:
  await make_agents(database, 2)
  schedule = await make_daemon(database, 10)
  async with trio.open_nursery() as nursery:
    for _ in range(4):
      nursery.start_soon(keep, database, schedule)
  await keep(database, schedule)
  occurrences = [task["occurrence"] for task in await live(database, schedule)]
  assert sorted(occurrences) == sorted(f"r{n}g1" for n in range(10))


async def test_what_is_interrupted_has_not_begun(database: Database) -> None:
  await make_agents(database, 1)
  schedule = await make_daemon(database, 2)
  await keep_schedule(database, schedule.id, horizon=HORIZON)
  with trio.move_on_after(60) as dying:
    async with database.transaction() as connection:
      held = await connection.fetchrow(replicas._sql.hold_schedule, id=schedule.id)
      assert held is not None
      [keeping] = await read_keepings(connection, id=schedule.id)
      upkeep = judge(keeping, horizon=HORIZON)
      await replicas._start(connection, keeping, upkeep.due, held, keeping.read_at)
      # Others pass over what a server holds that does not go on.
      assert await keep_schedule(database, schedule.id, horizon=HORIZON) is None
      dying.cancel()
      await trio.lowlevel.checkpoint()
  assert await live(database, schedule) == []
  await keep(database, schedule)
  assert len(await live(database, schedule)) == 2


async def test_a_replica_never_has_two_live_tasks(database: Database) -> None:
  schedule, _, [claim] = await running(database, 1, 1)
  await end(database, claim, TaskInstanceStatus.FAILED)
  await revive_task(database, TaskId(claim["task_id"]))
  assert [task["occurrence"] for task in await live(database, schedule)] == ["r0g1"]
  await keep(database, schedule)
  tasks = await live(database, schedule)
  assert [task["occurrence"] for task in tasks] == ["r0g1"]
  await request_cancel(database, TaskId(claim["task_id"]))
  await keep(database, schedule)
  assert [task["occurrence"] for task in await live(database, schedule)] == ["r0g2"]
  with pytest.raises(Conflict):
    await revive_task(database, TaskId(claim["task_id"]))


# ── intervals from the end ──────────────────────────────────────────────────────────


async def test_no_task_is_made_while_somebody_changes_the_limits_of_the_job(
  database: Database,
) -> None:
  schedule = await make_delay(database, 30)
  await keep_schedule(database, schedule.id, horizon=HORIZON)
  limited = JobForUpdate(config=TaskConfig(cmd="/bin/true", max_concurrent=1))
  async with database.transaction() as connection:
    await update_job(connection, schedule.job_id, limited)
    assert await keep_schedule(database, schedule.id, horizon=HORIZON) is None
  await keep(database, schedule)
  [task] = await live(database, schedule)
  assert (task["status"], task["cause"]) == ("blocked", "schedule")


async def test_the_interval_is_counted_from_the_end(database: Database) -> None:
  schedule = await make_delay(database, 30)
  [agent] = await make_agents(database, 1)
  await keep(database, schedule)
  for number in (1, 2):
    [task] = await live(database, schedule)
    assert (task["occurrence"], task["cause"]) == (f"r0g{number}", "schedule")
    await database.fetch(
      query("UPDATE sched_task SET due_at = now(), rank_at = now() WHERE id = $id"),
      id=task["id"],
    )
    [claim] = await claim_all(database, agent)
    ended = await read_clock(database)
    await end(database, claim, TaskInstanceStatus.SUCCEEDED)
    await keep(database, schedule)
    [following] = await live(database, schedule)
    late = following["due_at"] - ended - timedelta(seconds=30)
    assert timedelta() <= late < timedelta(seconds=2)
    shown = await get_schedule(database, schedule.id)
    assert shown.next_run_at == following["due_at"]
  assert (await get_schedule(database, schedule.id)).run_count == 3


async def test_a_long_interval_is_not_planned_before_the_horizon(
  database: Database,
) -> None:
  schedule = await make_delay(database, 3_600)
  [agent] = await make_agents(database, 1)
  await keep(database, schedule)
  [claim] = await claim_all(database, agent)
  await end(database, claim, TaskInstanceStatus.FAILED)
  await keep(database, schedule)
  assert await live(database, schedule) == []
  next_run_at = (await get_schedule(database, schedule.id)).next_run_at
  assert next_run_at is not None
  before = await read_clock(database)
  assert timedelta(minutes=59) < next_run_at - before <= timedelta(hours=1)
  # An edit begins anew.
  await update_schedule(database, schedule.id, ScheduleForUpdate(interval_seconds=600))
  next_run_at = (await get_schedule(database, schedule.id)).next_run_at
  assert next_run_at is not None
  assert timedelta(minutes=9) < next_run_at - before < timedelta(minutes=11)


async def test_an_interval_runs_only_within_its_bounds(database: Database) -> None:
  now = await read_clock(database)
  start_at, end_at = now + timedelta(seconds=20), now + timedelta(seconds=25)
  schedule = await make_delay(
    database, 10, start_at=start_at, end_at=end_at, max_runs=5
  )
  [agent] = await make_agents(database, 1)
  await keep(database, schedule)
  [task] = await live(database, schedule)
  assert task["planned_at"] == start_at
  await database.fetch(
    query("UPDATE sched_task SET due_at = now(), rank_at = now() WHERE id = $id"),
    id=task["id"],
  )
  [claim] = await claim_all(database, agent)
  await database.fetch(
    query("UPDATE sched_schedule SET interval_seconds = 60 WHERE id = $id"),
    id=schedule.id,
  )
  await end(database, claim, TaskInstanceStatus.SUCCEEDED)
  await keep(database, schedule)
  assert await live(database, schedule) == []
  assert (await get_schedule(database, schedule.id)).next_run_at is None


async def test_an_interval_ends_with_its_last_run(database: Database) -> None:
  schedule = await make_delay(database, 10, max_runs=1)
  [agent] = await make_agents(database, 1)
  await keep(database, schedule)
  [claim] = await claim_all(database, agent)
  await end(database, claim, TaskInstanceStatus.SUCCEEDED)
  await keep(database, schedule)
  assert await live(database, schedule) == []
  assert (await get_schedule(database, schedule.id)).next_run_at is None


async def test_an_interval_that_is_off_lets_its_task_end(database: Database) -> None:
  schedule = await make_delay(database, 10)
  [agent] = await make_agents(database, 1)
  await keep(database, schedule)
  [claim] = await claim_all(database, agent)
  await set_schedule_enabled(database, schedule.id, False)
  await keep(database, schedule)
  assert await ids_asked(database, schedule) == set()
  await end(database, claim, TaskInstanceStatus.SUCCEEDED)
  await keep(database, schedule)
  assert await live(database, schedule) == []
  await set_schedule_enabled(database, schedule.id, True)
  await keep(database, schedule)
  assert [task["occurrence"] for task in await live(database, schedule)] == ["r0g2"]


async def test_looking_for_what_is_kept_reads_no_history(database: Database) -> None:
  async with database.transaction() as connection:
    plan = await explain_generic(connection, replicas._sql.read_replicas)
  tables = {table for table, _ in scans(plan) if table.startswith("sched_task")}
  assert tables == {"sched_task_live", "sched_task_instance_live"}
  assert "sched_schedule_kept" in {node.get("Index Name") for node in plan}
