"""Old history goes: by the week, or row by row, and in nobody's way."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import trio
from support.members import claim_one, count_tasks, make_tasks
from support.plans import explain, scans
from support.world import make_job, make_namespace, query

from hetuflow.protocol.model import (
  NamespaceForUpdate,
  NamespaceId,
  TaskFilter,
  TaskInstanceFilter,
)
from hetuflow.server.scheduling import janitor as janitor_module
from hetuflow.server.scheduling.janitor import Janitor
from hetuflow.storage import retention
from hetuflow.storage.connect import Database
from hetuflow.storage.instances import query_instances
from hetuflow.storage.logs import read_log
from hetuflow.storage.namespaces import update_namespace
from hetuflow.storage.retention import Week, find_expired
from hetuflow.storage.tasks import query_tasks

SHORT = NamespaceId("short")
MAKE_WEEKS = query("""
  SELECT hetuflow_ensure_partitions(0, now() - make_interval(weeks => n))
  FROM generate_series(0, 8) AS n
""")
MAKE_HISTORY = query("""
  WITH tasks AS (
    INSERT INTO sched_task (
      id, namespace_id, job_id, job_version, route_id, status, planned_at,
      scheduled_at, due_at, rank_at, completed_at
    )
    SELECT hetuflow_uuid7(at), $namespace_id, j.id, 1, j.route_id, 'succeeded', at, at,
      at, at, $completed_at
    FROM sched_job AS j, generate_series(1, $count::integer),
      LATERAL (SELECT $at::timestamptz AS at) AS at
    WHERE j.id = $job_id
    RETURNING *
  ),
  instances AS (
    INSERT INTO sched_task_instance (
      id, namespace_id, task_id, job_id, job_version, agent_id, attempt, status,
      claim_token, scheduled_at, due_at, dispatched_at, completed_at
    )
    SELECT id, namespace_id, id, job_id, 1, id, 1, 'succeeded', id, scheduled_at,
      due_at, due_at, completed_at
    FROM tasks
    RETURNING id, namespace_id
  ),
  logs AS (
    INSERT INTO sched_task_log (namespace_id, instance_id, stream, start_offset, data)
    SELECT namespace_id, id, 'stdout', 0, 'hello' FROM instances
  )
  SELECT id FROM tasks
""")
COUNTS = query("""
  SELECT
    (SELECT count(*) FROM sched_task WHERE namespace_id = $namespace_id) AS tasks,
    (SELECT count(*) FROM sched_task_instance WHERE namespace_id = $namespace_id)
      AS instances,
    (SELECT count(*) FROM sched_task_log WHERE namespace_id = $namespace_id) AS logs
""")
WEEKS = query("""
  SELECT count(*) FROM pg_inherits
  WHERE inhrelid::regclass::text ~ '_[0-9]{4}w[0-9]{2}'
    AND inhparent = $parent::text::regclass
""")
GAP = query("""
  INSERT INTO sched_ledger_gap (
    id, namespace_id, schedule_id, from_at, to_at, count, outcome, reason
  )
  VALUES (gen_random_uuid(), $namespace_id, gen_random_uuid(), $at, $at, 1, 'missed', '')
""")
GAPS = query("SELECT namespace_id FROM sched_ledger_gap ORDER BY 1")
AGENTS = query("""
  INSERT INTO sched_agent (id, namespace_ids, name, lease_until, updated_at)
  SELECT gen_random_uuid(), '{default}', name, now() - make_interval(days => silent),
    now() - make_interval(days => changed)
  FROM (VALUES ('gone', 31, 31), ('lately', 29, 29), ('changed', 31, 1)) AS a
    (name, silent, changed)
  RETURNING id, name
""")
NAMES = query("SELECT name FROM sched_agent ORDER BY name")
HOLD = query("SELECT count(*) FROM sched_task")


def weeks_ago(weeks: float) -> datetime:
  """Say when that was."""
  return datetime.now(UTC) - timedelta(weeks=weeks)


async def make_history(
  database: Database,
  *,
  job_id: UUID,
  at: datetime,
  completed_at: datetime | None = None,
  namespace_id: str = "default",
  count: int = 10,
) -> list[UUID]:
  """Make tasks with an attempt and output each, of some time ago; return their ids."""
  rows = await database.fetch(
    MAKE_HISTORY,
    namespace_id=namespace_id,
    job_id=job_id,
    at=at,
    completed_at=completed_at or at,
    count=count,
  )
  return [row["id"] for row in rows]


async def counts(database: Database, namespace_id: str = "default") -> list[int]:
  """Count the tasks, attempts and pieces of output of a namespace."""
  row = await database.fetchrow(COUNTS, namespace_id=namespace_id)
  assert row is not None
  return list(row)


async def keep(database: Database, days: int, namespace_id: str = "default") -> None:
  """Let a namespace keep its history for so long."""
  change = NamespaceForUpdate(retention_days=days)
  await update_namespace(database, NamespaceId(namespace_id), change)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
  """Prune page by page, without pauses."""
  monkeypatch.setattr(janitor_module, "PRUNE_PAGES", 1)
  monkeypatch.setattr(janitor_module, "PRUNE_PAUSE", 0.0)


async def test_weeks_that_nobody_keeps_are_dropped_and_the_others_stay(
  database: Database,
) -> None:
  await database.fetch(MAKE_WEEKS)
  job = await make_job(database)
  old = await make_history(database, job_id=job.id, at=weeks_ago(6))
  young = await make_history(database, job_id=job.id, at=weeks_ago(2))
  before = await database.fetchval(WEEKS, parent="sched_task")
  await keep(database, 30)
  assert await Janitor(database).retain_once()
  assert await counts(database) == [10, 10, 10]
  for parent in ("sched_task", "sched_task_instance", "sched_task_log"):
    # Four or five of the ten weeks before this one are over for 30 days.
    assert before - 6 <= await database.fetchval(WEEKS, parent=parent) <= before - 4
  tasks = await query_tasks(database, TaskFilter(job_id=job.id), limit=100)
  assert {task.id for task in tasks} == set(young)
  attempts = await query_instances(database, TaskInstanceFilter(job_id=job.id), limit=9)
  assert len(attempts) == 9
  page = await read_log(database, attempts[0].id, stream=None, offset=0)
  assert [piece.data for piece in page.chunks] == [b"hello"]
  gone = await read_log(database, old[0], stream=None, offset=0)  # type: ignore[arg-type]  # as an instance
  assert gone.chunks == []
  assert await Janitor(database).retain_once()


async def test_a_namespace_that_keeps_less_is_deleted_row_by_row(
  database: Database,
) -> None:
  await database.fetch(MAKE_WEEKS)
  await make_namespace(database, "short")
  job = await make_job(database)
  for namespace_id in ("default", "short"):
    for weeks in (1, 3, 5):
      await make_history(
        database,
        job_id=job.id,
        at=weeks_ago(weeks),
        namespace_id=namespace_id,
        count=300,
      )
  await keep(database, 300)
  await keep(database, 10, "short")
  janitor = Janitor(database)
  weeks = await database.fetchval(WEEKS, parent="sched_task")
  assert await janitor.retain_once()
  assert await counts(database) == [900, 900, 900]
  assert await counts(database, "short") == [300, 300, 300]
  assert await database.fetchval(WEEKS, parent="sched_task") == weeks


async def test_a_week_is_pruned_once_for_each_namespace(
  database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
  await database.fetch(MAKE_WEEKS)
  await make_namespace(database, "short")
  job = await make_job(database)
  await make_history(database, job_id=job.id, at=weeks_ago(5), namespace_id="short")
  await keep(database, 300)
  await keep(database, 10, "short")
  pruned: list[tuple[str, frozenset[NamespaceId]]] = []
  prune = retention.prune_pages

  async def note(database: Database, expired: Any, *pages: int) -> int:
    """Note what is pruned."""
    pruned.append((expired.week.name, expired.namespaces))
    return await prune(database, expired, *pages)

  monkeypatch.setattr(janitor_module, "prune_pages", note)
  janitor = Janitor(database)
  await janitor.retain_once()
  assert {names for _, names in pruned} == {frozenset({SHORT})}
  assert len({name for name, _ in pruned}) == 3
  pruned.clear()
  await janitor.retain_once()
  assert pruned == []


async def test_output_of_an_attempt_that_is_kept_is_kept_however_old_it_is(
  database: Database,
) -> None:
  await database.fetch(MAKE_WEEKS)
  job = await make_job(database)
  # It began long ago, and ended lately.
  long = await make_history(
    database, job_id=job.id, at=weeks_ago(6), completed_at=weeks_ago(0), count=1
  )
  await make_history(database, job_id=job.id, at=weeks_ago(6))
  await keep(database, 20)
  assert await Janitor(database).retain_once()
  assert await counts(database) == [1, 1, 1]
  page = await read_log(database, long[0], stream=None, offset=0)  # type: ignore[arg-type]  # as an instance
  assert [piece.data for piece in page.chunks] == [b"hello"]


async def test_a_table_in_use_is_left_for_later_and_nobody_has_to_wait(
  database: Database,
) -> None:
  await database.fetch(MAKE_WEEKS)
  job = await make_job(database)
  await make_history(database, job_id=job.id, at=weeks_ago(6))
  await keep(database, 20)
  claims = 0
  with trio.fail_after(60):
    async with database.transaction() as reader:
      await reader.fetchval(HOLD)  # it holds its lock to the end
      async with trio.open_nursery() as nursery:
        done = trio.Event()

        async def retain() -> None:
          """Try to drop what is over."""
          assert not await Janitor(database).retain_once()
          done.set()

        nursery.start_soon(retain)
        while not done.is_set():
          await make_tasks(database, job)
          with trio.fail_after(2):
            assert await claim_one(database, job)
          claims += 1
    assert claims > 0
    assert await count_tasks(database, "dispatched") == claims
    assert (await counts(database))[0] == 10 + claims
    assert await Janitor(database).retain_once()
    assert (await counts(database))[0] == claims


async def test_pruning_reads_no_more_than_its_pages(database: Database) -> None:
  await database.fetch(MAKE_WEEKS)
  job = await make_job(database)
  await make_history(database, job_id=job.id, at=weeks_ago(5), count=2_000)
  await database.fetch(query("ANALYZE"))  # as autovacuum does, long before that
  rows = await database.fetch(retention._sql.list_weeks)
  weeks = [week for row in rows if (week := Week(**row)).pages > 20]
  assert {week.parent for week in weeks} == set(retention._PRUNES)
  for week in weeks:
    log = week.parent == retention.LOG
    bounds: dict[str, Any] = {"begins_at": week.begins_at, "ends_at": week.ends_at}
    if log:
      bounds = {"low": week.low, "high": week.high}
    values = bounds | {"from_page": 5, "to_page": 10, "namespaces": ["default"]}
    async with database.transaction() as connection:
      statement = retention._PRUNES[week.parent]
      plan = await explain(connection, statement, "COSTS OFF", values)
    assert (week.name, "Tid Range Scan") in scans(plan)
    assert {table for table, _ in scans(plan) if table.startswith(week.parent)} == (
      {week.name}
    )


async def test_old_entries_of_the_ledger_go_when_their_namespace_says_so(
  database: Database,
) -> None:
  await make_namespace(database, "short")
  await keep(database, 30)
  await keep(database, 10, "short")
  for namespace_id, days in (
    ("default", 29),
    ("default", 31),
    ("short", 9),
    ("short", 11),
  ):
    at = datetime.now(UTC) - timedelta(days=days)
    await database.fetch(GAP, namespace_id=namespace_id, at=at)
  await Janitor(database).tidy_once()
  rows = await database.fetch(GAPS)
  assert [row["namespace_id"] for row in rows] == ["default", "short"]


async def test_agents_that_are_long_gone_are_forgotten_unless_they_have_work(
  database: Database,
) -> None:
  job = await make_job(database)
  await make_tasks(database, job)
  claim = await claim_one(database, job)
  old = query("""
    UPDATE sched_agent SET name = 'busy', lease_until = now() - interval '40 days',
      updated_at = now() - interval '40 days' WHERE id = $id
  """)
  await database.fetch(old, id=claim["agent_id"])
  await database.fetch(AGENTS)
  await Janitor(database).tidy_once()
  rows = await database.fetch(NAMES)
  assert [row["name"] for row in rows] == ["busy", "changed", "lately"]


def test_a_week_is_over_for_those_who_keep_nothing_of_it() -> None:
  def week(number: int) -> Week:
    """Make the week that begins on the 1st, 8th, … of a month."""
    begins_at = datetime(2026, 6, 1 + 7 * number, tzinfo=UTC)
    return Week(
      parent="sched_task",
      name=f"w{number}",
      begins_at=begins_at,
      ends_at=begins_at + timedelta(days=7),
      low=UUID(int=0),
      high=UUID(int=1),
      pages=1,
    )

  keeps_from = {
    NamespaceId("a"): datetime(2026, 6, 8, tzinfo=UTC),
    NamespaceId("b"): datetime(2026, 6, 21, 23, tzinfo=UTC),
  }
  found = find_expired([week(0), week(1), week(2)], keeps_from)
  said = [(each.week.name, set(each.namespaces), each.all) for each in found]
  assert said == [("w0", {"a", "b"}, True), ("w1", {"b"}, False)]
  assert find_expired([week(0)], {}) == []
