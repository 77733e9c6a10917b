"""Lists and planning read what they are asked for, however long the history is."""

from typing import Any

import pytest
from support.plans import explain, explain_generic, scans
from support.world import make_job, make_schedule, query

from hetuflow.protocol.model import TaskFilter, TaskInstanceFilter
from hetuflow.protocol.states import TaskInstanceStatus, TaskStatus
from hetuflow.storage import instances, planning, tasks
from hetuflow.storage.connect import Database
from hetuflow.storage.rows import criteria

HISTORY = query("""
  WITH ended AS (
    INSERT INTO sched_task (
      id, namespace_id, job_id, job_version, route_id, status, planned_at,
      scheduled_at, due_at, rank_at, completed_at
    )
    SELECT hetuflow_uuid7(now()), 'default', id, 1, route_id,
      CASE WHEN n % 10000 = 7 THEN 'failed' ELSE 'succeeded' END::task_status,
      now(), now(), now(), now(), now()
    FROM sched_job, generate_series(1, 20000) AS n WHERE id = $job_id
    RETURNING id, job_id, status
  )
  INSERT INTO sched_task_instance (
    id, namespace_id, task_id, job_id, job_version, agent_id, attempt, status,
    claim_token, scheduled_at, due_at, completed_at
  )
  SELECT hetuflow_uuid7(now()), 'default', id, job_id, 1, id, 1,
    status::text::task_instance_status, id, now(), now(), now()
  FROM ended
""")
WAITING = query("""
  INSERT INTO sched_task (
    id, namespace_id, job_id, job_version, route_id, planned_at, scheduled_at, due_at,
    rank_at
  )
  SELECT hetuflow_uuid7(now()), 'default', id, 1, route_id, now(), now(), now(), now()
  FROM sched_job, generate_series(1, 20000) WHERE id = $job_id
""")
LISTS: dict[str, tuple[Any, Any]] = {
  "tasks": (tasks._sql.query_tasks, TaskFilter(status=TaskStatus.FAILED)),
  "instances": (
    instances._sql.query_instances,
    TaskInstanceFilter(status=TaskInstanceStatus.FAILED),
  ),
}


@pytest.mark.parametrize("analysed", [False, True])
@pytest.mark.parametrize("what", LISTS)
async def test_what_failed_is_found_among_what_did_not(
  database: Database, what: str, analysed: bool
) -> None:
  job = await make_job(database)
  await database.fetch(HISTORY, job_id=job.id)
  await database.fetch(WAITING, job_id=job.id)
  if analysed:
    await database.fetch(query("ANALYZE sched_task, sched_task_instance"))
  statement, wanted = LISTS[what]
  values = criteria(wanted) | {"live": False, "limit": 50, "cursor": None}
  async with database.transaction() as connection:
    plan = await explain(connection, statement, "ANALYZE", values)
  assert plan[0]["Actual Rows"] == 2
  assert sum(node.get("Rows Removed by Filter", 0) for node in plan) < 100
  assert not any(table.endswith("_live") for table, _ in scans(plan))


async def test_planning_finds_schedules_and_jobs_by_their_indexes(
  database: Database,
) -> None:
  job = await make_job(database)
  await make_schedule(database, job)
  for statement in (planning._sql.list_due_schedules, planning._sql.plan_tasks):
    async with database.transaction() as connection:
      plan = await explain_generic(connection, statement)
    ways = {way for way in scans(plan) if way[0] in ("sched_schedule", "sched_job")}
    assert ways
    assert not any(way == "Seq Scan" for _, way in ways)
