"""The ledger reads the tasks of its schedule and of its span, not all of history."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.plans import explain, scans
from support.world import make_job, make_schedule, query

from hetuflow.protocol.model import new_id
from hetuflow.storage import backfill, ledger
from hetuflow.storage.connect import Database

NOW = datetime.now(UTC)
# Every hundredth of them is the schedule's own.
HISTORY = query("""
  INSERT INTO sched_task (
    id, namespace_id, job_id, job_version, schedule_id, route_id, status, planned_at,
    scheduled_at, due_at, rank_at, completed_at
  )
  SELECT hetuflow_uuid7(at), 'default', j.id, 1,
    CASE WHEN n % 100 = 0 THEN $id::uuid ELSE gen_random_uuid() END, j.route_id,
    'succeeded', at, at, at, at, now()
  FROM sched_job AS j, generate_series(1, 30000) AS n,
    LATERAL (SELECT now() - n * interval '1 second' AS at) AS times
""")
STATEMENTS: dict[str, tuple[Any, dict[str, Any]]] = {
  "page": (ledger._sql.list_ledger, {"limit": 50, "after_at": None, "after_id": None}),
  "next page": (
    ledger._sql.list_ledger,
    {"limit": 50, "after_at": NOW - timedelta(seconds=900), "after_id": new_id()},
  ),
  "totals": (ledger._sql.count_tasks, {}),
  "check": (ledger._sql.read_coverage, {"revision": 1, "limit": 9}),
  "backfill": (backfill._sql.list_planned, {}),
}


@pytest.mark.parametrize("what", STATEMENTS)
async def test_a_statement_reads_by_schedule_and_time(
  database: Database, what: str
) -> None:
  schedule = await make_schedule(database, await make_job(database))
  await database.fetch(HISTORY, id=schedule.id)
  await database.fetch(query("ANALYZE sched_task"))
  statement, more = STATEMENTS[what]
  span = {"from": NOW - timedelta(seconds=1_000), "to": NOW}
  span |= {"after": span["from"], "until": span["to"]}
  values = {"id": schedule.id, "namespace_id": "default", **span, **more}
  values = {name: values[name] for name in statement.parameters}
  async with database.transaction() as connection:
    plan = await explain(connection, statement, "ANALYZE", values)
  read = [node for node in plan if node.get("Alias", "").startswith("sched_task")]
  assert read
  assert not any(way == "Seq Scan" for table, way in scans(plan) if "task" in table)
  assert sum(node["Actual Rows"] * node["Actual Loops"] for node in read) <= 20
