"""Hot statements read what is live, by index, however much is waiting or has ended.

At effort 250 there are 10 million rows of history and 1 million that wait.
"""

from typing import Any

import pytest
from support.effort import scaled
from support.plans import explain_generic, scans
from support.world import make_job, make_schedule, query

from hetuflow.storage import planning, transitions
from hetuflow.storage.connect import Database
from hetuflow.storage.sql import Query

HISTORY, FULL_HISTORY = 40_000, 10_000_000
WAITING, FULL_WAITING = 4_000, 1_000_000
BATCH = 200_000

MAKE_HISTORY = query("""
  WITH ended AS (
    INSERT INTO sched_task (
      id, namespace_id, job_id, job_version, route_id, status, planned_at,
      scheduled_at, due_at, rank_at, completed_at
    )
    SELECT hetuflow_uuid7(now()), 'default', id, 1, route_id, 'succeeded',
      now(), now(), now(), now(), now()
    FROM sched_job, generate_series(1, $count::integer) WHERE id = $job_id
    RETURNING id, job_id
  )
  INSERT INTO sched_task_instance (
    id, namespace_id, task_id, job_id, job_version, agent_id, attempt, status,
    claim_token, scheduled_at, due_at, completed_at
  )
  SELECT id, 'default', id, job_id, 1, id, 1, 'succeeded', id, now(), now(), now()
  FROM ended
""")
MAKE_WAITING = query("""
  INSERT INTO sched_task (
    id, namespace_id, job_id, job_version, route_id, planned_at, scheduled_at, due_at,
    rank_at
  )
  SELECT hetuflow_uuid7(now()), 'default', id, 1, route_id, now(), now(), now(), now()
  FROM sched_job, generate_series(1, $count::integer) WHERE id = $job_id
""")
ANALYSE = query("ANALYZE sched_task, sched_task_instance")

HOT: dict[str, Query] = {
  query.name: query
  for query in (
    transitions._sql.claim_tasks,
    transitions._sql.record_updates,
    transitions._sql.fail_claims,
    planning._sql.plan_tasks,
    planning._sql.list_due_schedules,
  )
}


@pytest.mark.parametrize("analysed", [False, True])
async def test_hot_statements_read_only_live_rows_and_by_index(
  database: Database, analysed: bool
) -> None:
  job = await make_job(database)
  await make_schedule(database, job)
  await _fill(database, MAKE_HISTORY, scaled(HISTORY, full=FULL_HISTORY), job.id)
  await _fill(database, MAKE_WAITING, scaled(WAITING, full=FULL_WAITING), job.id)
  if analysed:
    await database.fetch(ANALYSE)
  for name, statement in HOT.items():
    async with database.transaction() as connection:
      plan = await explain_generic(connection, statement)
    found = {way for way in scans(plan) if way[0].startswith(("sched_task", "sched_s"))}
    read = {table for table, _ in found if table.startswith("sched_task")}
    assert read <= {"sched_task_live", "sched_task_instance_live"}, (name, read)
    whole = [way for way in found if way[1] == "Seq Scan"]
    assert whole == [], (name, whole)


async def _fill(database: Database, statement: Query, count: int, job_id: Any) -> None:
  """Insert many rows, some at a time."""
  for start in range(0, count, BATCH):
    batch = min(BATCH, count - start)
    await database.fetch(statement, count=batch, job_id=job_id)
