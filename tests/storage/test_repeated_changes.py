"""Changes of schedules and jobs that come to nothing because of others, and are repeated."""

from datetime import timedelta
from typing import Any

import pytest
import trio
from support.world import (
  make_job,
  make_schedule,
  plan_task,
  planned_times,
  query,
  read_clock,
)

from hetuflow.protocol.model import ScheduleForUpdate
from hetuflow.storage.connect import Database
from hetuflow.storage.jobs import set_job_enabled
from hetuflow.storage.schedules import delete_schedule, update_schedule

BEGUN = query("SELECT pg_backend_pid()")
WAITERS = query(
  "SELECT count(*) FROM pg_stat_activity WHERE $pid::integer = ANY(pg_blocking_pids(pid))"
)
CANCEL = query("""
  UPDATE sched_task SET status = 'cancelled', completed_at = now()
  WHERE completed_at = 'infinity' AND schedule_id = $id
""")


@pytest.mark.parametrize("change", [delete_schedule, set_job_enabled, update_schedule])
async def test_a_change_that_meets_a_cancel_is_made_again(
  database: Database, change: Any
) -> None:
  job = await make_job(database)
  schedule = await make_schedule(database, job)
  at = await read_clock(database) + timedelta(hours=1)
  await plan_task(database, schedule, at)
  arguments: dict[Any, tuple[Any, ...]] = {
    delete_schedule: (schedule.id,),
    set_job_enabled: (job.id, False),
    update_schedule: (schedule.id, ScheduleForUpdate(max_runs=3)),
  }
  with trio.fail_after(10):
    async with trio.open_nursery() as nursery, database.transaction() as connection:
      pid = await connection.fetchval(BEGUN)
      await connection.fetch(CANCEL, id=schedule.id)
      nursery.start_soon(change, database, *arguments[change])
      while await database.fetchval(WAITERS, pid=pid) == 0:
        pass
  # The one that was cancelled stays, as what it is.
  assert await planned_times(database, schedule) == [at]
