"""Weeks that have no partition, because the clock leapt past those that were made."""

import pytest
from support.members import make_tasks
from support.world import make_job, query

from hetuflow.errors import Unavailable
from hetuflow.protocol.states import TaskStatus
from hetuflow.storage.connect import Database
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
