"""Limits are decided by indexes alone, however many tasks wait, with a lane or without."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import pytest
from support.plans import explain, explain_generic, scans
from support.world import make_job, query

from hetuflow.protocol.model import TaskConfig
from hetuflow.storage import limits, relaning
from hetuflow.storage.connect import Connection, Database
from hetuflow.storage.sql import Query

CROWD_SIZE = 100_000
CROWD = query("""
  INSERT INTO sched_task (
    id, namespace_id, job_id, job_version, route_id, status, lane, planned_at,
    scheduled_at, due_at, rank_at
  )
  SELECT gen_random_uuid(), 'default', j.id, 1, j.route_id, kind.status::task_status,
    kind.lane, at.at, at.at, at.at, at.at
  FROM sched_job AS j
  CROSS JOIN generate_series($first::integer, $first + 9999) AS n
  CROSS JOIN (VALUES ('pending', NULL), ('blocked', 'key:x')) AS kind (status, lane)
  CROSS JOIN LATERAL (SELECT now() - make_interval(secs => n / 100.0) AS at) AS at
  WHERE j.id = $job_id
""")
FEW = query("""
  INSERT INTO sched_task (
    id, namespace_id, job_id, job_version, route_id, status, lane, claim_token,
    planned_at, scheduled_at, due_at, rank_at, start_by, end_by
  )
  SELECT gen_random_uuid(), 'default', j.id, 1, j.route_id, kind.status::task_status,
    kind.lane, CASE WHEN kind.status = 'running' THEN gen_random_uuid() END, now(),
    now(), now(), now(), now() + kind.late, now() + kind.late
  FROM sched_job AS j
  CROSS JOIN (VALUES
    ('running', 'key:x', NULL), ('blocked', 'key:y', interval '1 hour'),
    ('blocked', 'key:z', interval '-1 second')) AS kind (status, lane, late)
  WHERE j.id = $job_id
""")
HISTORY = query("""
  INSERT INTO sched_task (
    id, namespace_id, job_id, job_version, route_id, status, lane, planned_at,
    scheduled_at, due_at, rank_at, start_by, end_by, completed_at
  )
  SELECT gen_random_uuid(), 'default', id, 1, route_id, 'succeeded', 'key:x', now(),
    now(), now(), now(), now(), now(), now()
  FROM sched_job, generate_series(1, 20000) WHERE id = $job_id
""")
HOLDER = query("""
  SELECT id FROM sched_task WHERE status = 'running' AND lane = 'key:x'
""")
WAITING = query("""
  SELECT id FROM sched_task WHERE completed_at = 'infinity' AND lane = 'key:x'
    AND status = 'blocked' ORDER BY rank_at LIMIT 1
""")
LOOKS: dict[str, set[str]] = {
  "look_at_limits": {
    "sched_task_blocked_due",
    "sched_task_claim",
    "sched_task_end_by",
    "sched_task_start_by",
  },
  "list_candidates": {
    "sched_task_blocked",
    "sched_task_blocked_due",
    "sched_task_holder",
    "sched_task_live_pkey",
  },
  "list_holders": {"sched_task_holder"},
  "settle_tasks": {"sched_task_live_pkey", "Tid Scan"},
  "replace_tasks": {"sched_task_live_pkey", "Tid Scan"},
  "adopt_waiting": {"sched_task_claim", "Tid Scan"},
  "adopt_running": {"sched_task_live_pkey", "Tid Scan"},
  "miss_late": {"sched_task_start_by", "Tid Scan"},
  "expire_overdue": {"sched_task_end_by", "Tid Scan"},
  "list_lanes": {"sched_task_live_job_id_id_idx"},
  "change_lanes": {"sched_task_live_pkey", "Tid Scan"},
}
"""By which ways each statement may find tasks."""


class Undo(Exception):
  """Ends a transaction of which nothing is to stay."""


@asynccontextmanager
async def undone(database: Database) -> AsyncIterator[Connection]:
  """Lend a transaction of which nothing is to stay."""
  with suppress(Undo):
    async with database.transaction() as connection:
      yield connection
      raise Undo


def values_of(job_id: UUID, waiting: UUID, holder: UUID) -> dict[str, dict[str, Any]]:
  """Say with what each statement is called."""
  lane = {"namespace_id": "default", "lane": "namespace"}
  return {
    "look_at_limits": {"namespace_ids": ["default"]},
    "list_candidates": {
      "namespace_id": "default",
      "after": "",
      "lanes": limits.LANES_PER_PASS,
      "share": limits.SHARE,
      "batch": limits.BATCH,
      "free_lane": "namespace",
    },
    "list_holders": {"namespace_id": "default", "lanes": ["key:x"], "limit": 500},
    "settle_tasks": {
      "namespace_id": "default",
      "ids": [waiting],
      "lanes": ["key:x"],
      "statuses": ["pending"],
      "reasons": [None],
      "rate_jobs": [],
      "arrivals": [],
    },
    "replace_tasks": {"namespace_id": "default", "ids": [holder], "reasons": ["x"]},
    "adopt_waiting": {**lane, "reason": "x", "limit": 100},
    "adopt_running": lane,
    "miss_late": {"namespace_id": "default", "limit": 100},
    "expire_overdue": {"namespace_id": "default", "limit": 100},
    "list_lanes": {
      "job_id": job_id,
      "namespace_id": "default",
      "after": UUID(int=0),
      "limit": 100,
    },
    "change_lanes": {
      "namespace_id": "default",
      "ids": [waiting],
      "lanes": ["key:y"],
      "reasons": ["x"],
    },
  }


def check(name: str, plan: list[dict[str, Any]]) -> None:
  """Check by which ways a statement finds tasks."""
  ways = {way for table, way in scans(plan) if table.startswith("sched_task_live")}
  assert ways
  assert ways <= LOOKS[name], (name, ways)
  tables = {table for table, _ in scans(plan)}
  assert not [table for table in tables if table.startswith("sched_task2")], tables


@pytest.mark.parametrize("analysed", [False, True])
async def test_a_crowd_of_tasks_that_wait_costs_nothing(
  database: Database, analysed: bool
) -> None:
  job = await make_job(
    database,
    config=TaskConfig(cmd="/bin/true", concurrency_key="x", max_concurrent=2),
  )
  for first in range(1, CROWD_SIZE, 10_000):
    await database.fetch(CROWD, job_id=job.id, first=first)
  for statement in (HISTORY, FEW):
    await database.fetch(statement, job_id=job.id)
  await database.fetch(query("UPDATE sched_namespace SET max_running = 5"))
  if analysed:
    await database.fetch(query("ANALYZE sched_task, sched_job, sched_namespace"))
  values = values_of(
    job.id, await database.fetchval(WAITING), await database.fetchval(HOLDER)
  )
  queries: dict[str, Query] = {
    each.name: each for each in (*limits._sql, *relaning._sql)
  }
  assert set(queries) == {*LOOKS, "lock_limits", "get_max_running", "hint_limits"}
  for name, given in values.items():
    async with undone(database) as connection:
      check(name, await explain_generic(connection, queries[name]))
    async with undone(database) as connection:
      plan = await explain(connection, queries[name], "ANALYZE", given)
      check(name, plan)
      read = sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
        * node["Actual Loops"]
        for node in plan
        if str(node.get("Relation Name")).startswith("sched_task_live")
      )
      assert read < 1_000, (name, read)
