"""The plans of the hot statements, with a crowd of rows that do not concern them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from support.members import join, make_tasks
from support.plans import explain, explain_generic, scans
from support.world import make_job, query

from hetuflow.protocol.model import TaskConfig, new_id
from hetuflow.server.session import Session
from hetuflow.server.sessions import Sessions
from hetuflow.storage import transitions
from hetuflow.storage.connect import Connection, Database
from hetuflow.storage.sql import Query

CLAIM: Query = transitions._sql.claim_tasks
RECORD: Query = transitions._sql.record_updates
BOTTOM = datetime(1970, 1, 1, tzinfo=UTC)

CROWD = query("""
  INSERT INTO sched_task (
    id, namespace_id, job_id, job_version, route_id, planned_at, scheduled_at, due_at,
    rank_at, created_at
  )
  SELECT gen_random_uuid(), 'default', j.id, 1, j.route_id, at.at, at.at, at.at, at.at,
    now() - interval '1 hour'
  FROM sched_job AS j, generate_series(1, 100000) AS n,
    LATERAL (SELECT now() + make_interval(secs => $seconds + n / 1000.0) AS at) AS at
  WHERE j.id = $job_id
""")
HISTORY = query("""
  INSERT INTO sched_task (
    id, namespace_id, job_id, job_version, route_id, status, planned_at, scheduled_at,
    due_at, rank_at, completed_at
  )
  SELECT gen_random_uuid(), 'default', id, 1, route_id, 'succeeded', now(), now(), now(),
    now(), now()
  FROM sched_job, generate_series(1, 20000) WHERE id = $job_id
""")
ROUTE = query("SELECT route_id FROM sched_job WHERE id = $job_id")


class Undo(Exception):
  """Ends a transaction of which nothing is to stay."""


def check_claim(plan: list[dict[str, Any]]) -> None:
  """Check by which way a claim finds its tasks."""
  tasks = {index for table, index in scans(plan) if table.startswith("sched_task")}
  assert tasks == {"sched_task_claim", "sched_task_ahead", "Tid Scan"}
  for node in plan:
    if node.get("Index Name") == "sched_task_claim":
      assert "route_id = " in node["Index Cond"]
      assert "rank_at >= " in node["Index Cond"]
      assert "rank_at <= " in node["Index Cond"]
    if node.get("Index Name") == "sched_task_ahead":
      assert "route_id = " in node["Index Cond"]
      assert "due_at <= " in node["Index Cond"]
  only_live(plan)


def check_record(plan: list[dict[str, Any]]) -> None:
  """Check by which way a record finds its instances and tasks."""
  ways = [
    (node["Relation Name"], node.get("Index Name", node["Node Type"]))
    for node in plan
    if str(node.get("Relation Name")).startswith("sched_task")
    and "Scan" in node["Node Type"]
  ]
  # Once by id to be locked, by place to be seen, and by place to be changed.
  for table in ("sched_task", "sched_task_instance"):
    own = [way for name, way in ways if name == f"{table}_live"]
    assert own.count("Tid Scan") == 2
    assert len(own) == 3
    assert set(own) - {"Tid Scan"} <= {
      f"{table}_live_pkey",
      # Of a table that is believed to be empty this one looks as good.
      f"{table}_live_job_id_id_idx",
    }
  assert all("id = " in node.get("Index Cond", "id = ") for node in plan)
  only_live(plan)


def only_live(plan: list[dict[str, Any]]) -> None:
  """Check that no history is read."""
  tables = {table for table, _ in scans(plan) if table.startswith("sched_task")}
  assert tables <= {"sched_task_live", "sched_task_instance_live"}


def offer(session: Session, route_id: int, places: int) -> dict[str, Any]:
  """Make the values of a claim."""
  return {
    "namespace_id": "default",
    "agents": [session.agent_id],
    "sessions": [session.id],
    "routes": [route_id],
    "floors": [BOTTOM],
    "run_agents": [session.agent_id] * places,
    "hold_agents": [session.agent_id] * places,
  }


def report(rows: list[Any]) -> dict[str, Any]:
  """Make the values of a record of finished instances."""
  count = len(rows)
  return {
    "namespace_id": "default",
    "ids": [row["instance_id"] for row in rows],
    "claim_tokens": [row["claim_token"] for row in rows],
    "statuses": ["succeeded"] * count,
    "reasons": [None] * count,
    "started": [datetime.now(UTC)] * count,
    "completed": [datetime.now(UTC)] * count,
    "exit_codes": [0] * count,
    "error_messages": [None] * count,
    "outputs": [""] * count,
    "metrics": [{}] * count,
  }


def strangers(count: int) -> dict[str, Any]:
  """Make the values of a record of instances that nobody knows."""
  ids: list[UUID] = [new_id() for _ in range(count)]
  return report([{"instance_id": id, "claim_token": id} for id in ids])


async def test_hot_statements_look_at_what_concerns_them_and_nothing_else(
  database: Database,
) -> None:
  sessions = Sessions()
  ours = await make_job(database, "ours")
  other = TaskConfig(cmd="/bin/true", labels={"disk": "ssd"})
  theirs = await make_job(database, "theirs", config=other)
  agent = await join(database, sessions, run=1)
  route_id = await database.fetchval(ROUTE, job_id=ours.id)
  offered = offer(agent, route_id, 100)

  async def check_plans() -> None:
    async with database.transaction() as connection:
      check_claim(await explain(connection, CLAIM, "VERBOSE", offered))
      check_claim(await explain_generic(connection, CLAIM))
      check_record(await explain(connection, RECORD, "VERBOSE", strangers(500)))
      check_record(await explain_generic(connection, RECORD))

  # Of an empty table that nobody looked at, of one that is known to be empty, of a full
  # one with the statistics of an empty one, and of a full one that is known.
  await check_plans()
  await database.fetch(query("ANALYZE sched_task, sched_task_instance"))
  await check_plans()
  await database.fetch(CROWD, job_id=theirs.id, seconds=-200.0)
  await database.fetch(CROWD, job_id=ours.id, seconds=86_400.0)
  await database.fetch(HISTORY, job_id=ours.id)
  await make_tasks(database, ours, 150)
  await check_plans()
  await database.fetch(query("ANALYZE sched_task, sched_task_instance"))
  await check_plans()
  await check_work(database, offered)


@asynccontextmanager
async def undone(database: Database) -> AsyncIterator[Connection]:
  """Hold a transaction of which nothing stays."""
  with suppress(Undo):
    async with database.transaction() as connection:
      yield connection
      raise Undo


async def check_work(database: Database, offered: dict[str, Any]) -> None:
  """Claim and record, and count what was read for it."""
  async with undone(database) as connection:
    plan = await explain(connection, CLAIM, "ANALYZE, BUFFERS", offered)
    assert discarded(plan) == 0
    assert plan[0]["Actual Rows"] == 100
  async with undone(database) as connection:
    rows = await connection.fetch(CLAIM, **offered)
    assert len(rows) == 100
    plan = await explain(connection, RECORD, "ANALYZE, BUFFERS", report(rows))
    assert discarded(plan) == 0
    assert plan[0]["Actual Rows"] == 100


def discarded(plan: list[dict[str, Any]]) -> float:
  """Count rows of the hot tables that were read in vain."""
  return sum(
    node.get("Rows Removed by Filter", 0) * node["Actual Loops"]
    for node in plan
    if str(node.get("Relation Name")).startswith("sched_task")
  )
