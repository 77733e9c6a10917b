"""Every fault that a doctor looks for is made, found, and mended where it can be."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from support.members import SET_LEASE, claim_one, make_tasks
from support.world import make_job, make_schedule, query

from hetuflow.errors import SchemaMismatch
from hetuflow.ops.doctor import LEDGER, NO_SERVER, Finding, Report, diagnose, mend
from hetuflow.protocol.messages import TaskInstanceUpdate
from hetuflow.protocol.model import (
  NamespaceId,
  ServerForCreate,
  ServerId,
  Task,
  TaskId,
  new_id,
)
from hetuflow.protocol.states import TaskInstanceStatus, TaskStatus
from hetuflow.storage.connect import Database, StorageSettings, open_storage
from hetuflow.storage.doctor import CHECKS
from hetuflow.storage.servers import create_server
from hetuflow.storage.tasks import get_task
from hetuflow.storage.transitions import record_updates

DEFAULT = NamespaceId("default")
SERVE = query("""
  INSERT INTO sched_binding (namespace_id, server_id) VALUES ('default', $id)
""")
LEAD = query("""
  INSERT INTO distributed_lock (name, owner, term, expires_at)
  VALUES ('leader', $id, 1, now() + interval '1 hour')
""")
INSTANCE = query("""
  SELECT status, reason, completed_at < 'infinity' AS ended
  FROM sched_task_instance WHERE id = $id
""")

Break = Callable[[Database], Awaitable[None]]


@pytest.fixture
async def served(database: Database) -> Database:
  """A database with a server that plans for its namespace, and leads."""
  server_id = ServerId(new_id())
  server = ServerForCreate(id=server_id, name="host-1", url="http://here", version="0")
  await create_server(database, server, ttl=3_600.0)
  await database.fetch(SERVE, id=server_id)
  await database.fetch(LEAD, id=server_id)
  await database.fetch(
    query("UPDATE sched_namespace SET created_at = now() - interval '1 day'")
  )
  return database


def finding(report: Report, name: str) -> Finding:
  """Return what one check has found."""
  [found] = [each for each in report.checks if each.name == name]
  return found


def wrong(report: Report) -> list[str]:
  """List the checks that found something."""
  return [each.name for each in report.checks if each.ok is False]


async def claimed(database: Database) -> tuple[TaskId, TaskId]:
  """Have a task that an agent has; return it and its attempt."""
  job = await make_job(database)
  await make_tasks(database, job)
  claim = await claim_one(database, job)
  return claim["task_id"], claim["instance_id"]


async def run(database: Database, text: str) -> None:
  """Break something by hand."""
  async with database.connection() as connection:
    await connection.execute_script(text)


# ── what is right ───────────────────────────────────────────────────────────────────


async def test_a_database_at_work_is_found_right(served: Database) -> None:
  await claimed(served)
  job = await make_job(served, "other")
  await make_tasks(served, job, 3)
  await make_schedule(served, job)
  report = await diagnose(served)
  assert wrong(report) == []
  assert report.ok
  assert all(each.ok for each in report.checks)
  assert [each.name for each in report.checks] == [
    "schema",
    *(check.name for check in CHECKS),
    "ledger",
  ]
  assert await mend(served, dry_run=False) == []


async def test_without_servers_nothing_is_said_of_what_they_ought_to_do(
  database: Database,
) -> None:
  report = await diagnose(database)
  assert report.ok
  idle = [each.name for each in report.checks if each.note == NO_SERVER]
  assert idle == [check.name for check in CHECKS if check.served]


async def test_a_schedule_whose_times_all_came_to_something_is_right(
  served: Database,
) -> None:
  await planned_schedule(served)
  assert (await diagnose(served)).ok


# ── the schema ──────────────────────────────────────────────────────────────────────


async def test_without_the_schema_nothing_else_is_judged(empty_dsn: str) -> None:
  async with open_storage(StorageSettings(dsn=empty_dsn)) as database:
    report = await diagnose(database)
    assert [each.name for each in report.checks] == ["schema"]
    assert "hetuflow migrate" in report.checks[0].examples[0].matter
    assert not report.ok
    with pytest.raises(SchemaMismatch):
      await mend(database, dry_run=False)


# ── each fault ──────────────────────────────────────────────────────────────────────


async def missing_partitions(database: Database) -> None:
  """Take the partitions of the week after next away."""
  in_two_weeks = (datetime.now(UTC) + timedelta(weeks=2)).strftime("%Gw%V")
  await run(
    database,
    f"DROP TABLE sched_task_{in_two_weeks}; DROP TABLE sched_task_log_{in_two_weeks}",
  )


async def orphaned_instance(database: Database) -> None:
  """Let a task vanish under its attempt."""
  await claimed(database)
  await run(database, "DELETE FROM sched_task")


async def foreign_claim(database: Database) -> None:
  """Let another claim stand in the task than its attempt has."""
  await claimed(database)
  await run(database, "UPDATE sched_task_instance SET claim_token = gen_random_uuid()")


async def doubled_attempt(database: Database) -> None:
  """Have a second attempt under way."""
  await claimed(database)
  await run(
    database,
    """
    DROP INDEX sched_task_instance_single;
    INSERT INTO sched_task_instance (
      id, namespace_id, task_id, job_id, job_version, agent_id, attempt, claim_token,
      scheduled_at, due_at
    )
    SELECT gen_random_uuid(), namespace_id, task_id, job_id, job_version, agent_id, 2,
      gen_random_uuid(), scheduled_at, due_at
    FROM sched_task_instance
    """,
  )


async def forgotten_loss(database: Database) -> None:
  """Have a lost attempt that nobody has closed."""
  await claimed(database)
  await run(
    database,
    """
    UPDATE sched_task_instance SET status = 'lost', lost_at = now() - interval '1 day';
    UPDATE sched_task SET status = 'waiting_retry', lane = NULL
    """,
  )


async def claim_without_attempt(database: Database) -> None:
  """Let the attempt of a claimed task vanish."""
  await claimed(database)
  await run(database, "DELETE FROM sched_task_instance")


async def job_that_is_gone(database: Database) -> None:
  """Let the job of a waiting task vanish."""
  [_] = await make_tasks(database, await make_job(database))
  await run(database, "UPDATE sched_task SET job_id = gen_random_uuid()")


async def route_that_is_gone(database: Database) -> None:
  """Let the route of a waiting task vanish."""
  [_] = await make_tasks(database, await make_job(database))
  await run(database, "UPDATE sched_task SET route_id = -1")


async def broadcast_of_nothing(database: Database) -> None:
  """Remember a broadcast that is none."""
  await run(
    database,
    """
    INSERT INTO sched_broadcast (task_id, namespace_id)
    VALUES (gen_random_uuid(), 'default')
    """,
  )


async def expired_keys(database: Database) -> None:
  """Have a key that nobody has forgotten."""
  await run(
    database,
    """
    INSERT INTO sched_idempotency (namespace_id, scope, key, answer, expires_at)
    VALUES ('default', 'POST /jobs', 'a', '{}', now() - interval '3 days')
    """,
  )


async def key_of_nothing(database: Database) -> None:
  """Have a key whose task has vanished."""
  job = await make_job(database)
  await make_tasks(database, job, idempotency_key="once")
  await run(database, "DELETE FROM sched_task")


async def overfull_lane(database: Database) -> None:
  """Have two holders of a single place."""
  job = await make_job(database)
  await make_tasks(database, job, 2)
  await run(
    database,
    """
    UPDATE sched_job SET max_concurrent = 1, updated_at = now() - interval '1 minute';
    UPDATE sched_task SET lane = 'job:' || job_id, updated_at = now()
    """,
  )


async def overfull_namespace(database: Database) -> None:
  """Have more tasks under way than a namespace allows."""
  job = await make_job(database)
  await make_tasks(database, job, 2)
  await run(
    database,
    """
    UPDATE sched_namespace SET max_running = 1, updated_at = now() - interval '1 minute';
    UPDATE sched_task SET lane = 'namespace', updated_at = now()
    """,
  )


async def unused_place(database: Database) -> None:
  """Have a task that waits for a place that is free."""
  await make_tasks(database, await make_job(database))
  await run(
    database,
    """
    UPDATE sched_task SET status = 'blocked', lane = 'job:' || job_id,
      due_at = now() - interval '5 minutes', rank_at = now() - interval '5 minutes'
    """,
  )


async def late_schedule(database: Database) -> None:
  """Have a schedule that nobody has planned for an hour."""
  await make_schedule(database, await make_job(database))
  await run(
    database,
    "UPDATE sched_schedule SET next_plan_at = now() - interval '1 hour'",
  )


async def dead_binding(database: Database) -> None:
  """Let a namespace be bound to a server that is not there."""
  await run(database, "UPDATE sched_binding SET server_id = gen_random_uuid()")


async def unbound_namespace(database: Database) -> None:
  """Let nobody plan for a namespace."""
  await run(database, "DELETE FROM sched_binding")


async def vacant_office(database: Database) -> None:
  """Let nobody lead for long."""
  await run(
    database, "UPDATE distributed_lock SET expires_at = now() - interval '1 hour'"
  )


async def claims_of_the_gone(database: Database) -> None:
  """Let an agent that has a task be gone for long."""
  await claimed(database)
  await run(
    database,
    """
    UPDATE sched_agent SET lease_until = now() - interval '1 hour';
    UPDATE sched_task_instance SET due_at = now() - interval '1 hour',
      dispatched_at = now() - interval '1 hour'
    """,
  )


async def skewed_clock(database: Database) -> None:
  """Have a server that started by a clock five minutes ahead."""
  await run(
    database,
    """
    INSERT INTO sched_server (id, name, url, version, alive_until)
    VALUES (hetuflow_uuid7(now() + interval '5 minutes'), 'fast', 'http://there', '0',
      now() + interval '1 hour')
    """,
  )


async def planned_schedule(database: Database) -> None:
  """Have a schedule that was planned for the last hour, each minute a task."""
  await make_schedule(database, await make_job(database))
  await run(
    database,
    """
    UPDATE sched_schedule SET
      planned_from = date_trunc('minute', now()) - interval '1 hour',
      cursor_at = date_trunc('minute', now()),
      next_plan_at = date_trunc('minute', now()) + interval '1 minute';
    INSERT INTO sched_task (
      id, namespace_id, job_id, job_version, schedule_id, occurrence, route_id,
      planned_at, scheduled_at, due_at, rank_at, status, completed_at
    )
    SELECT gen_random_uuid(), s.namespace_id, s.job_id, 1, s.id,
      extract(epoch FROM at)::text, j.route_id, at, at, at, at, 'succeeded', now()
    FROM sched_schedule AS s
    JOIN sched_job AS j ON j.id = s.job_id,
    generate_series(1, 60) AS n,
    LATERAL (
      SELECT date_trunc('minute', now()) - (60 - n) * interval '1 minute' AS at
    ) AS t
    """,
  )


async def time_that_came_to_nothing(database: Database) -> None:
  """Let one task of a schedule vanish."""
  await planned_schedule(database)
  await run(
    database,
    """
    DELETE FROM sched_task
    WHERE planned_at = (SELECT min(planned_at) + interval '9 minutes' FROM sched_task)
    """,
  )


async def gap_that_is_miscounted(database: Database) -> None:
  """Let a gap say that it stands for more times than it does."""
  await planned_schedule(database)
  await run(
    database,
    """
    WITH gone AS (
      DELETE FROM sched_task
      WHERE planned_at = (SELECT min(planned_at) + interval '9 minutes' FROM sched_task)
      RETURNING namespace_id, schedule_id, planned_at
    )
    INSERT INTO sched_ledger_gap (
      id, namespace_id, schedule_id, from_at, to_at, count, outcome, reason
    )
    SELECT gen_random_uuid(), namespace_id, schedule_id, planned_at, planned_at, 2,
      'skipped', 'a test'
    FROM gone
    """,
  )


MENDED: list[tuple[str, Break]] = [
  ("partitions", missing_partitions),
  ("instances", orphaned_instance),
  ("instances", foreign_claim),
  ("single attempts", doubled_attempt),
  ("lost attempts", forgotten_loss),
  ("claims", claim_without_attempt),
  ("references", job_that_is_gone),
  ("references", route_that_is_gone),
  ("broadcasts", broadcast_of_nothing),
  ("expired keys", expired_keys),
  ("keys", key_of_nothing),
]
FOUND: list[tuple[str, Break]] = [
  ("limits", overfull_lane),
  ("limits", overfull_namespace),
  ("places", unused_place),
  ("planning", late_schedule),
  ("bindings", dead_binding),
  ("bindings", unbound_namespace),
  ("leader", vacant_office),
  ("lost agents", claims_of_the_gone),
  ("clocks", skewed_clock),
  ("ledger", time_that_came_to_nothing),
  ("ledger", gap_that_is_miscounted),
]


def test_every_check_has_a_fault_that_it_finds() -> None:
  names = {check.name for check in CHECKS}
  mendable = {check.name for check in CHECKS if check.repair is not None}
  assert {name for name, _ in MENDED} == mendable
  assert {name for name, _ in FOUND} == names - mendable | {LEDGER}


@pytest.mark.parametrize(
  ("name", "break_it"), MENDED, ids=[each.__name__ for _, each in MENDED]
)
async def test_what_is_mechanical_is_found_and_mended(
  served: Database, name: str, break_it: Break
) -> None:
  await break_it(served)
  found = finding(await diagnose(served), name)
  assert not found.ok
  assert found.count == 1 or name == "partitions"
  assert found.examples
  assert found.repair is not None
  planned = await mend(served, dry_run=True)
  assert planned
  assert not finding(await diagnose(served), name).ok
  done = await mend(served, dry_run=False)
  assert planned[0] in done
  report = await diagnose(served)
  assert wrong(report) == []
  assert await mend(served, dry_run=False) == []


@pytest.mark.parametrize(
  ("name", "break_it"), FOUND, ids=[each.__name__ for _, each in FOUND]
)
async def test_what_only_a_person_or_a_server_can_mend_is_found(
  served: Database, name: str, break_it: Break
) -> None:
  await break_it(served)
  report = await diagnose(served)
  assert wrong(report) == [name]
  assert finding(report, name).count == 1
  assert await mend(served, dry_run=False) == []


# ── how it is mended ────────────────────────────────────────────────────────────────


async def test_an_attempt_without_its_task_counts_as_lost(database: Database) -> None:
  _, instance_id = await claimed(database)
  await run(database, "DELETE FROM sched_task")
  await mend(database, dry_run=False)
  row = await database.fetchrow(INSTANCE, id=instance_id)
  assert row is not None
  assert (row["status"], row["ended"]) == ("lost", True)


@pytest.mark.parametrize(
  ("before", "after"),
  [
    ("", TaskStatus.PENDING),
    ("status = 'running'", TaskStatus.WAITING_RETRY),
    ("cancel_requested_at = now()", TaskStatus.CANCELLED),
  ],
)
async def test_a_claim_without_an_attempt_goes_back_by_what_it_was(
  database: Database, before: str, after: TaskStatus
) -> None:
  task_id, _ = await claimed(database)
  await run(database, "DELETE FROM sched_task_instance")
  if before:
    await run(database, f"UPDATE sched_task SET {before}")
  await mend(database, dry_run=False)
  assert (await get_task(database, task_id)).status is after


async def test_of_two_attempts_the_one_that_the_task_knows_goes_on(
  database: Database,
) -> None:
  await doubled_attempt(database)
  [kept] = await database.fetch(
    query("""
      SELECT i.id FROM sched_task_instance AS i
      JOIN sched_task AS t ON t.id = i.task_id AND t.claim_token = i.claim_token
    """)
  )
  await mend(database, dry_run=False)
  rows = await database.fetch(
    query("SELECT id FROM sched_task_instance WHERE completed_at = 'infinity'")
  )
  assert [row["id"] for row in rows] == [kept["id"]]


async def test_what_is_mended_is_as_good_as_new(database: Database) -> None:
  job = await make_job(database)
  [task_id] = await make_tasks(database, job)
  await claim_one(database, job)
  await run(database, "DELETE FROM sched_task_instance")
  await mend(database, dry_run=False)
  claim = await claim_one(database, job)
  assert claim["task_id"] == task_id
  update = TaskInstanceUpdate(
    instance_id=claim["instance_id"],
    namespace_id=DEFAULT,
    claim_token=claim["claim_token"],
    status=TaskInstanceStatus.SUCCEEDED,
  )
  assert await record_updates(database, DEFAULT, [update]) == {}
  task: Task = await get_task(database, task_id)
  assert task.status is TaskStatus.SUCCEEDED


async def test_an_agent_that_is_gone_for_a_moment_keeps_its_tasks(
  served: Database,
) -> None:
  job = await make_job(served)
  await make_tasks(served, job)
  claim = await claim_one(served, job)
  await served.fetch(SET_LEASE, id=claim["agent_id"], seconds=-30.0)
  assert (await diagnose(served)).ok


async def test_many_faults_are_counted_and_a_few_are_shown(database: Database) -> None:
  await make_tasks(database, await make_job(database), 1_200)
  await run(database, "UPDATE sched_task SET route_id = -1")
  found = finding(await diagnose(database), "references")
  assert (found.count, len(found.examples)) == (1_200, 5)
  [done] = await mend(database, dry_run=False)
  assert done.count == 1_200
