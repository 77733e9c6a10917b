"""Weeks that have no partition, because the clock leapt past those that were made."""

from datetime import UTC, datetime, timedelta

import attrs
import pytest
from support.clock import OWN_CLOCK, SET_CLOCK
from support.members import make_tasks
from support.postgres import Postgres
from support.world import make_job, query, start_attempt

from hetuflow.errors import Unavailable
from hetuflow.protocol.states import LogStream, TaskStatus
from hetuflow.storage.connect import Database, StorageSettings, open_storage
from hetuflow.storage.logs import read_log
from hetuflow.storage.tasks import get_task
from hetuflow.storage.transitions import request_cancel

DROP_WEEKS = query("""
  SELECT format('DROP TABLE %s', inhrelid::regclass) FROM pg_inherits
  WHERE inhparent IN ('sched_task'::regclass, 'sched_task_instance'::regclass,
    'sched_task_log'::regclass) AND inhrelid::regclass::text NOT LIKE '%live'
""")


async def lose_weeks(database: Database) -> None:
  """Leave no partition of a week, as after a leap of the clock."""
  async with database.connection() as connection:
    for row in await connection.fetch(DROP_WEEKS):
      await connection.execute_script(row[0])


async def test_a_week_that_nobody_made_is_made_when_it_is_needed(
  database: Database,
) -> None:
  [task_id] = await make_tasks(database, await make_job(database))
  await lose_weeks(database)
  task = await request_cancel(database, task_id)
  assert task.status is TaskStatus.CANCELLED


async def test_a_missing_week_inside_a_transaction_is_no_fault_of_the_data(
  database: Database,
) -> None:
  [task_id] = await make_tasks(database, await make_job(database))
  await lose_weeks(database)
  end = query(
    "UPDATE sched_task SET status = 'failed', completed_at = now()"
    " WHERE id = $id AND completed_at = 'infinity'"
  )
  with pytest.raises(Unavailable):
    async with database.transaction() as connection:
      await connection.fetch(end, id=task_id)
  assert (await get_task(database, task_id)).status is TaskStatus.PENDING


WHERE = query("""
  SELECT tableoid::regclass::text AS name, completed_at FROM sched_task WHERE id = $id
  UNION ALL
  SELECT tableoid::regclass::text, completed_at FROM sched_task_instance
  WHERE task_id = $id
""")
CLAIM_IN_FUTURE = query("""
  UPDATE sched_task_instance SET id = hetuflow_uuid7(now() + interval '400 days')
  RETURNING id
""")
MONDAY = datetime(2027, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
  ("ends_at", "week"),
  [
    (MONDAY, "2027w09"),
    (MONDAY - timedelta(microseconds=1), "2027w08"),
    # A clock that is off: what the agent says cannot be, and so it ended now.
    (MONDAY + timedelta(days=400), "2027w09"),
    (MONDAY - timedelta(days=400), "2027w08"),
  ],
)
async def test_an_attempt_ends_in_the_week_of_its_end(
  postgres: Postgres, template: str, ends_at: datetime, week: str
) -> None:
  with postgres.database(template) as name:
    postgres.sql(OWN_CLOCK, database=name)
    async with open_storage(StorageSettings(dsn=postgres.dsn(name))) as database:
      await database.fetch(SET_CLOCK, at=MONDAY - timedelta(hours=1))
      [task_id] = await make_tasks(database, await make_job(database))
      attempt = await start_attempt(database, task_id)
      await database.fetch(SET_CLOCK, at=MONDAY)
      await attempt.end(at=ends_at)
      rows = await database.fetch(WHERE, id=task_id)
  assert [row["name"] for row in rows] == [
    f"sched_task_{week}",
    f"sched_task_instance_{week}",
  ]


async def test_output_of_an_attempt_from_a_week_that_the_clock_has_left_is_kept(
  database: Database,
) -> None:
  [task_id] = await make_tasks(database, await make_job(database))
  attempt = await start_attempt(database, task_id)
  attempt = attrs.evolve(attempt, id=await database.fetchval(CLAIM_IN_FUTURE))
  await attempt.print(LogStream.STDOUT, 0, b"kept")
  page = await read_log(database, attempt.id, stream=None, offset=0)
  assert [piece.data for piece in page.chunks] == [b"kept"]
