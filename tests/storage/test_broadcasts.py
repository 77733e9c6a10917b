"""Broadcasts: parts for each matching agent, and the end of the whole."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from support.members import SET_LEASE, claim_all, join, report
from support.plans import explain_generic, scans
from support.world import make_job, query

from hetuflow.errors import Conflict
from hetuflow.protocol.model import (
  Task,
  TaskConfig,
  TaskFilter,
  TaskForCreate,
  TaskId,
)
from hetuflow.protocol.states import TaskCause, TaskInstanceStatus, TaskStatus
from hetuflow.server.session import Session
from hetuflow.server.sessions import Sessions
from hetuflow.storage import broadcasts
from hetuflow.storage.broadcasts import (
  abandon_parts,
  cancel_parts,
  end_broadcasts,
  spread_broadcasts,
  survey_broadcasts,
)
from hetuflow.storage.connect import Database
from hetuflow.storage.tasks import create_tasks, get_task, query_tasks
from hetuflow.storage.transitions import request_cancel, revive_task

NAMESPACES = ["default"]
AGE = query("""
  UPDATE sched_task SET due_at = due_at - make_interval(secs => $seconds)
  WHERE parent_id = $id
""")
COUNT_BROADCASTS = query("SELECT count(*) FROM sched_broadcast")


async def make_parent(database: Database, **config: Any) -> TaskId:
  """Make a task that is to be broadcast now."""
  job = await make_job(
    database, config=TaskConfig(cmd="/bin/true", broadcast=True, **config)
  )
  [task_id] = await create_tasks(database, [TaskForCreate(job_id=job.id)])
  return task_id


async def make_agents(database: Database, count: int = 3, **more: Any) -> list[Session]:
  """Connect agents."""
  sessions = Sessions()
  return [
    await join(database, sessions, name=f"agent-{number}", **more)
    for number in range(count)
  ]


async def parts_of(database: Database, parent: TaskId) -> list[Task]:
  """Read the parts of a broadcast, in the order in which they were made."""
  found = await query_tasks(database, TaskFilter(parent_id=parent), limit=100)
  return found[::-1]


async def run_part(
  database: Database, session: Session, status: TaskInstanceStatus
) -> int:
  """Let an agent claim what is for it and report how that ended; say how much it was."""
  claims = await claim_all(database, session)
  exit_code = int(status is TaskInstanceStatus.FAILED)
  await report(database, claims, status, exit_code=exit_code)
  return len(claims)


async def test_each_matching_agent_gets_a_part_of_its_own(database: Database) -> None:
  wanted = await make_agents(database, 3, labels={"disk": "ssd"})
  await make_agents(database, 2)
  parent = await make_parent(database, labels={"disk": "ssd"}, max_retries=2)
  assert await spread_broadcasts(database, NAMESPACES) == 1
  task = await get_task(database, parent)
  assert (task.status, task.reason) == (TaskStatus.RUNNING, "runs on 3 agents")
  parts = await parts_of(database, parent)
  assert [part.cause for part in parts] == [TaskCause.BROADCAST] * 3
  assert {part.due_at for part in parts} == {task.due_at}
  assert {part.max_retries for part in parts} == {2}
  for session in wanted:
    assert await run_part(database, session, TaskInstanceStatus.SUCCEEDED) == 1


async def test_it_succeeds_when_all_parts_have(database: Database) -> None:
  agents = await make_agents(database)
  parent = await make_parent(database)
  await spread_broadcasts(database, NAMESPACES)
  for session in agents:
    await end_broadcasts(database, NAMESPACES)
    assert (await get_task(database, parent)).status is TaskStatus.RUNNING
    await run_part(database, session, TaskInstanceStatus.SUCCEEDED)
  await end_broadcasts(database, NAMESPACES)
  task = await get_task(database, parent)
  assert (task.status, task.reason) == (TaskStatus.SUCCEEDED, None)
  assert await database.fetchval(COUNT_BROADCASTS) == 0


async def test_it_fails_when_one_part_has_and_says_how_many(database: Database) -> None:
  agents = await make_agents(database)
  parent = await make_parent(database)
  await spread_broadcasts(database, NAMESPACES)
  ends = [TaskInstanceStatus.FAILED] + [TaskInstanceStatus.SUCCEEDED] * 2
  for session, status in zip(agents, ends, strict=True):
    await run_part(database, session, status)
  await end_broadcasts(database, NAMESPACES)
  task = await get_task(database, parent)
  assert task.status is TaskStatus.FAILED
  assert task.reason == "1 of 3 parts did not succeed: 1 failed"


async def test_a_part_that_will_be_retried_keeps_it_open(database: Database) -> None:
  [agent] = await make_agents(database, 1)
  parent = await make_parent(database, max_retries=1, retry_interval=0)
  await spread_broadcasts(database, NAMESPACES)
  await run_part(database, agent, TaskInstanceStatus.FAILED)
  assert await end_broadcasts(database, NAMESPACES) == 0
  await run_part(database, agent, TaskInstanceStatus.SUCCEEDED)
  await end_broadcasts(database, NAMESPACES)
  assert (await get_task(database, parent)).status is TaskStatus.SUCCEEDED


async def test_without_a_matching_agent_it_fails_at_once(database: Database) -> None:
  await make_agents(database, 1)
  parent = await make_parent(database, labels={"disk": "ssd"})
  await spread_broadcasts(database, NAMESPACES)
  task = await get_task(database, parent)
  assert (task.status, task.reason) == (TaskStatus.FAILED, "no agent matched")


async def test_with_a_start_deadline_it_waits_for_an_agent(database: Database) -> None:
  parent = await make_parent(database, start_deadline=600)
  before = await get_task(database, parent)
  assert before.start_by is not None
  await spread_broadcasts(database, NAMESPACES)
  after = await get_task(database, parent)
  assert after.status is TaskStatus.PENDING
  assert after.reason == "no agent matches; waits for one until its start_deadline"
  # It stands behind others that are due.
  assert after.due_at > before.due_at
  await make_agents(database, 1)
  await database.fetch(
    query("UPDATE sched_task SET due_at = now() WHERE id = $id"), id=parent
  )
  await spread_broadcasts(database, NAMESPACES)
  assert (await get_task(database, parent)).status is TaskStatus.RUNNING


async def test_agents_that_are_away_or_drain_get_no_part(database: Database) -> None:
  away, draining, _ = await make_agents(database)
  await database.fetch(SET_LEASE, id=away.agent_id, seconds=-1.0)
  await database.fetch(
    query("UPDATE sched_agent SET status = 'draining' WHERE id = $id"),
    id=draining.agent_id,
  )
  parent = await make_parent(database)
  await spread_broadcasts(database, NAMESPACES)
  assert len(await parts_of(database, parent)) == 1


async def test_a_cancel_reaches_the_parts_and_ends_the_whole(
  database: Database,
) -> None:
  working, _, _ = await make_agents(database)
  parent = await make_parent(database)
  await spread_broadcasts(database, NAMESPACES)
  claims = await claim_all(database, working)
  assert (await request_cancel(database, parent)).status is TaskStatus.RUNNING
  assert await cancel_parts(database, NAMESPACES) == 3
  assert await cancel_parts(database, NAMESPACES) == 0
  statuses = [part.status for part in await parts_of(database, parent)]
  assert sorted(statuses) == ["cancelled", "cancelled", "dispatched"]
  assert await end_broadcasts(database, NAMESPACES) == 0
  await report(database, claims, TaskInstanceStatus.CANCELLED)
  await end_broadcasts(database, NAMESPACES)
  task = await get_task(database, parent)
  assert (task.status, task.reason) == (TaskStatus.CANCELLED, "cancelled by request")


@pytest.mark.parametrize("fate", ["away", "draining", "forgotten"])
async def test_a_part_whose_agent_is_gone_fails_after_the_grace(
  database: Database, fate: str
) -> None:
  gone, _ = await make_agents(database, 2)
  parent = await make_parent(database)
  await spread_broadcasts(database, NAMESPACES)
  if fate == "away":
    await database.fetch(SET_LEASE, id=gone.agent_id, seconds=-1.0)
  else:
    statement = {
      "draining": "UPDATE sched_agent SET status = 'draining' WHERE id = $id",
      "forgotten": "DELETE FROM sched_agent WHERE id = $id",
    }[fate]
    await database.fetch(query(statement), id=gone.agent_id)
  assert await abandon_parts(database, NAMESPACES, grace=100.0) == 0
  await database.fetch(AGE, id=parent, seconds=101.0)
  assert await abandon_parts(database, NAMESPACES, grace=100.0) == 1
  parts = await parts_of(database, parent)
  assert sorted(part.status for part in parts) == ["failed", "pending"]
  assert "its agent is gone" in {part.reason for part in parts}


async def test_a_revived_broadcast_counts_its_new_parts_only(
  database: Database,
) -> None:
  [agent] = await make_agents(database, 1)
  parent = await make_parent(database)
  for status in (TaskInstanceStatus.FAILED, TaskInstanceStatus.SUCCEEDED):
    await spread_broadcasts(database, NAMESPACES)
    await run_part(database, agent, status)
    await end_broadcasts(database, NAMESPACES)
    task = await get_task(database, parent)
    assert task.status == status.value
    if status is TaskInstanceStatus.FAILED:
      await revive_task(database, parent)
  assert len(await parts_of(database, parent)) == 2


async def test_a_part_is_revived_only_while_the_whole_has_its_place(
  database: Database,
) -> None:
  agents = await make_agents(database, 2)
  parent = await make_parent(database)
  await spread_broadcasts(database, NAMESPACES)
  await run_part(database, agents[0], TaskInstanceStatus.FAILED)
  [failed] = [each for each in await parts_of(database, parent) if each.completed_at]
  assert (await revive_task(database, failed.id)).status == "pending"
  for agent in agents:
    await run_part(database, agent, TaskInstanceStatus.SUCCEEDED)
  await end_broadcasts(database, NAMESPACES)
  assert (await get_task(database, parent)).status == "succeeded"
  with pytest.raises(Conflict, match="its broadcast has ended"):
    await revive_task(database, failed.id)


async def test_two_servers_make_each_part_once(database: Database) -> None:
  await make_agents(database)
  parents = [await make_parent(database)]
  job_id = (await get_task(database, parents[0])).job_id
  parents += await create_tasks(database, [TaskForCreate(job_id=job_id)] * 10)
  async with trio.open_nursery() as nursery:
    for _ in range(4):
      nursery.start_soon(spread_broadcasts, database, NAMESPACES)
  for parent in parents:
    assert len(await parts_of(database, parent)) == 3


async def test_what_is_interrupted_has_not_begun(database: Database) -> None:
  await make_agents(database)
  parent = await make_parent(database)
  with trio.move_on_after(60) as dying:
    async with database.transaction() as connection:
      held = await connection.fetch(
        broadcasts._sql.lock_due, namespaces=NAMESPACES, limit=10
      )
      # Others pass over what a server holds that does not go on.
      assert await spread_broadcasts(database, NAMESPACES) == 0
      dying.cancel()
      await trio.lowlevel.checkpoint()
  assert [row["id"] for row in held] == [parent]
  assert (await get_task(database, parent)).status is TaskStatus.PENDING
  assert await spread_broadcasts(database, NAMESPACES) == 1
  assert len(await parts_of(database, parent)) == 3


async def test_the_survey_tells_what_there_is_to_do(database: Database) -> None:
  nothing = await survey_broadcasts(database, NAMESPACES)
  assert (nothing.known, nothing.running, nothing.due_in) == (False, False, None)
  await make_agents(database, 1)
  await make_parent(database)
  due = await survey_broadcasts(database, NAMESPACES)
  assert due.known
  assert due.due_in is not None
  assert due.due_in <= 0
  await spread_broadcasts(database, NAMESPACES)
  spread = await survey_broadcasts(database, NAMESPACES)
  assert (spread.running, spread.due_in) == (True, None)


async def test_what_is_due_is_seen_behind_what_ranks_before_it_and_is_not(
  database: Database,
) -> None:
  later = datetime.now(UTC) + timedelta(minutes=5)
  for name, priority, scheduled_at in (("later", 10, later), ("now", 0, None)):
    config = TaskConfig(cmd="/bin/true", broadcast=True, priority=priority)
    job = await make_job(database, name, config=config)
    wish = TaskForCreate(job_id=job.id, scheduled_at=scheduled_at)
    await create_tasks(database, [wish])
  survey = await survey_broadcasts(database, NAMESPACES)
  assert survey.due_in is not None
  assert survey.due_in <= 0


@pytest.mark.parametrize("name", ["lock_due", "survey_broadcasts", "abandon_parts"])
async def test_looking_for_broadcasts_reads_no_history(
  database: Database, name: str
) -> None:
  async with database.transaction() as connection:
    plan = await explain_generic(connection, getattr(broadcasts._sql, name))
  ways = {way for way in scans(plan) if way[0].startswith("sched_task")}
  assert ways
  assert {table for table, _ in ways} == {"sched_task_live"}
