"""What explanations are made of is found along indexes, however much there is."""

from typing import Any

import pytest
from support.plans import explain, explain_generic, scans
from support.world import make_job, query

from hetuflow.protocol.model import NamespaceId, new_id
from hetuflow.storage import explain as facts
from hetuflow.storage.connect import Database

CROWD = query("""
  INSERT INTO sched_task (
    id, namespace_id, job_id, job_version, route_id, status, lane, planned_at,
    scheduled_at, due_at, rank_at, parent_id, completed_at
  )
  SELECT hetuflow_uuid7(now()), 'default', sched_job.id, 1, route_id,
    kind.status::task_status, kind.lane, now(), now(), now(),
    now() + n * interval '1 millisecond',
    CASE WHEN n % 5 = 0 THEN gen_random_uuid() END,
    CASE WHEN kind.status = 'succeeded' THEN now() ELSE 'infinity' END
  FROM sched_job, generate_series(1, 4000) AS n,
    (VALUES ('pending', NULL), ('blocked', 'key:a'), ('pending', 'key:a'),
      ('blocked', 'key:b'), ('succeeded', 'key:a')) AS kind (status, lane)
  WHERE sched_job.id = $job_id
""")
READS: dict[str, dict[str, Any]] = {
  "count_ahead": {"limit": 100},
  "list_holders": {"limit": 20},
  "list_attempts": {"limit": 20},
  "list_children": {"limit": 100, "shown": 20},
  "find_circumstances": {},
}


@pytest.mark.parametrize("name", READS)
async def test_a_crowd_is_looked_at_no_further_than_a_limit(
  database: Database, name: str
) -> None:
  job = await make_job(database)
  await database.fetch(CROWD, job_id=job.id)
  await database.fetch(query("ANALYZE sched_task, sched_task_instance"))
  statement = getattr(facts._sql, name)
  route = await database.fetchval(query("SELECT max(id) FROM sched_route"))
  known: dict[str, Any] = {
    "id": new_id(),
    "task_id": new_id(),
    "namespace_id": NamespaceId("default"),
    "lane": "key:a",
    "route_id": route,
    "rank_at": await database.fetchval(query("SELECT now() + interval '1 hour'")),
  }
  values = {key: (known | READS[name])[key] for key in statement.parameters}
  async with database.transaction() as connection:
    plan = await explain(connection, statement, "ANALYZE", values)
    kept = await explain_generic(connection, statement)
  tasks = [n for n in plan if n.get("Relation Name", "").startswith("sched_task")]
  assert tasks
  assert sum(n["Actual Rows"] * n["Actual Loops"] for n in tasks) <= 500
  assert sum(n.get("Rows Removed by Filter", 0) for n in tasks) <= 500
  ways = {way for table, way in scans(plan) | scans(kept) if "sched_task" in table}
  assert "Seq Scan" not in ways


async def test_places_are_counted_no_further_than_the_limit(database: Database) -> None:
  job = await make_job(database)
  await database.fetch(CROWD, job_id=job.id)
  route = await database.fetchval(query("SELECT max(id) FROM sched_route"))
  row = await database.fetchrow(
    facts._sql.count_ahead,
    namespace_id="default",
    lane="key:a",
    route_id=route,
    rank_at=await database.fetchval(query("SELECT now() + interval '1 hour'")),
    limit=50,
  )
  assert row is not None
  assert tuple(row) == (50, 50, 50, 50)
