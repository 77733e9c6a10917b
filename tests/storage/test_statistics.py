"""How jobs fared lately, read no further back than promised."""

import pytest
from support.plans import explain, explain_generic, scans
from support.world import make_job, query

from hetuflow.protocol.model import Job, Spread
from hetuflow.protocol.states import TaskStatus
from hetuflow.storage import statistics
from hetuflow.storage.connect import Database
from hetuflow.storage.sql import Query
from hetuflow.storage.statistics import read_job_statistics, recent_durations

HISTORY = query("""
  WITH ended AS (
    INSERT INTO sched_task (
      id, namespace_id, job_id, job_version, route_id, status, planned_at,
      scheduled_at, due_at, rank_at, completed_at
    )
    SELECT hetuflow_uuid7(now() + n * interval '1 millisecond'), 'default', id, 1,
      route_id, (CASE WHEN n % $fails::integer = 0 THEN 'failed' ELSE 'succeeded' END)
        ::task_status,
      now(), now(), now(), now(), now()
    FROM sched_job, generate_series(1, $count::integer) AS n WHERE id = $job_id
    RETURNING id, job_id, status
  )
  INSERT INTO sched_task_instance (
    id, namespace_id, task_id, job_id, job_version, agent_id, attempt, status,
    claim_token, scheduled_at, due_at, started_at, start_error_ms, completed_at
  )
  SELECT id, 'default', id, job_id, 1, id, 1,
    status::text::task_instance_status, id, now(), now(),
    now() - make_interval(secs => row_number() OVER (ORDER BY id)),
    row_number() OVER (ORDER BY id), now()
  FROM ended
""")


async def had(database: Database, job: Job, count: int, *, fails: int) -> None:
  """Give a job history: the nth attempt took n seconds, every so-manieth failed."""
  await database.fetch(HISTORY, job_id=job.id, count=count, fails=fails)


async def test_a_job_that_never_ran_has_empty_statistics(database: Database) -> None:
  job = await make_job(database)
  found = await read_job_statistics(database, job.id)
  nothing = Spread(count=0, p50=None, p95=None, max=None)
  assert (found.tasks, found.statuses, found.success_rate) == (0, {}, None)
  assert (found.since, found.duration, found.start_error_ms) == (None, nothing, nothing)
  assert await recent_durations(database, [job.id]) == {}


async def test_statistics_count_ends_and_spread_durations_and_start_errors(
  database: Database,
) -> None:
  job, other = await make_job(database), await make_job(database, "other")
  await had(database, job, 20, fails=4)
  await had(database, other, 3, fails=1)
  found = await read_job_statistics(database, job.id)
  assert found.statuses == {TaskStatus.SUCCEEDED: 15, TaskStatus.FAILED: 5}
  assert (found.tasks, found.success_rate) == (20, 0.75)
  assert found.duration == Spread(count=20, p50=10.5, p95=19.05, max=20.0)
  assert found.start_error_ms == Spread(count=20, p50=10.5, p95=19.05, max=20.0)


async def test_durations_are_of_the_last_attempts_that_succeeded(
  database: Database,
) -> None:
  job, other = await make_job(database), await make_job(database, "other")
  await had(database, job, 8, fails=3)
  await had(database, other, 2, fails=9)
  found = await recent_durations(database, [job.id, other.id, job.id], limit=4)
  assert found == {job.id: [8.0, 7.0, 5.0], other.id: [2.0, 1.0]}


async def test_only_the_last_tasks_are_looked_at(database: Database) -> None:
  job = await make_job(database)
  await had(database, job, statistics.RECENT + 500, fails=2000)
  found = await read_job_statistics(database, job.id)
  assert found.tasks == statistics.RECENT
  assert found.duration.count == statistics.RECENT


@pytest.mark.parametrize("name", ["recent_durations", "job_statuses", "job_attempts"])
async def test_statistics_read_history_by_the_index_of_jobs_alone(
  database: Database, name: str
) -> None:
  job, other = await make_job(database), await make_job(database, "other")
  await had(database, job, 3000, fails=7)
  await had(database, other, 3000, fails=7)
  statement: Query = getattr(statistics._sql, name)
  values = {"job_ids": [job.id]} if name == "recent_durations" else {"job_id": job.id}
  async with database.transaction() as connection:
    await connection.fetch(statistics._sql.read_in_order)
    plan = await explain(connection, statement, "ANALYZE", values | {"limit": 50})
    kept = await explain_generic(connection, statement)
  read = [node for node in plan if "Relation Name" in node]
  assert sum(node["Actual Rows"] * node["Actual Loops"] for node in read) <= 60
  assert all("job_id_id" in way for _, way in scans(plan) | scans(kept))
