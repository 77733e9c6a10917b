"""What becomes of tasks that wait when their schedule or job changes."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import attrs
import pytest
from support.world import (
  bind_all,
  make_job,
  make_schedule,
  plan_task,
  query,
  read_clock,
)

from hetuflow.nursery import Wakeup
from hetuflow.protocol.model import (
  Job,
  JobForUpdate,
  Misfire,
  Schedule,
  ScheduleForUpdate,
  TaskConfig,
)
from hetuflow.protocol.states import MisfirePolicy, OverlapPolicy
from hetuflow.server.scheduling.generator import Generator
from hetuflow.storage.connect import Database
from hetuflow.storage.jobs import delete_job, set_job_enabled, update_job
from hetuflow.storage.schedules import (
  delete_schedule,
  set_schedule_enabled,
  update_schedule,
)

LATER = timedelta(hours=1)
LIMITED = TaskConfig(cmd="/bin/true", overlap=OverlapPolicy.QUEUE)
STATUSES = ("blocked", "paused", "pending", "dispatched", "running")
TASKS = query("""
  SELECT status, planned_at, job_version, cause, lane FROM sched_task
  WHERE job_id = $id ORDER BY planned_at, id
""")
REWIND = query("""
  UPDATE sched_schedule SET cursor_at = now() - interval '10 minutes',
    next_plan_at = now() - interval '10 minutes' WHERE id = $id
""")

Change = Callable[[Database, Job, Schedule], Awaitable[Any]]


async def edit(database: Database, job: Job, schedule: Schedule) -> None:
  change = ScheduleForUpdate(cron_expression="0 0 1 1 *")
  await update_schedule(database, schedule.id, change)


async def disable(database: Database, job: Job, schedule: Schedule) -> None:
  await set_schedule_enabled(database, schedule.id, False)


async def delete(database: Database, job: Job, schedule: Schedule) -> None:
  await delete_schedule(database, schedule.id)


async def disable_job(database: Database, job: Job, schedule: Schedule) -> None:
  await set_job_enabled(database, job.id, False)


async def remove_job(database: Database, job: Job, schedule: Schedule) -> None:
  await delete_job(database, job.id)


async def edit_job(database: Database, job: Job, schedule: Schedule) -> None:
  config = attrs.evolve(LIMITED, cmd="/bin/false")
  await update_job(database, job.id, JobForUpdate(config=config))


async def put_tasks(database: Database, schedule: Schedule) -> None:
  """Put a task of each status into the database, for now and for later."""
  now = await read_clock(database)
  for number, status in enumerate(STATUSES):
    for at in (now - LATER, now + LATER):
      await plan_task(
        database,
        schedule,
        at + timedelta(seconds=number),
        status=status,
        attempts=int(status in ("dispatched", "running")),
      )


async def left(database: Database, job: Job) -> tuple[list[str], list[str]]:
  """Read the statuses of the tasks that are due, and of those for later."""
  rows = await database.fetch(TASKS, id=job.id)
  now = await read_clock(database)
  assert all(row["job_version"] == 1 for row in rows)
  return (
    sorted(row["status"] for row in rows if row["planned_at"] <= now),
    sorted(row["status"] for row in rows if row["planned_at"] > now),
  )


@pytest.mark.parametrize("change", [edit, disable, delete, disable_job, remove_job])
async def test_what_is_for_later_is_taken_back_and_what_is_due_or_taken_stays(
  database: Database, change: Change
) -> None:
  job = await make_job(database, config=LIMITED)
  schedule = await make_schedule(database, job, cron_expression="0 0 1 1 *")
  await put_tasks(database, schedule)
  await change(database, job, schedule)
  due, later = await left(database, job)
  assert due == sorted(STATUSES)
  assert later == ["dispatched", "running"]


async def test_tasks_keep_the_version_of_their_job_that_they_were_planned_with(
  database: Database,
) -> None:
  job = await make_job(database, config=LIMITED)
  schedule = await make_schedule(database, job, cron_expression="0 0 1 1 *")
  await put_tasks(database, schedule)
  await edit_job(database, job, schedule)
  due, later = await left(database, job)
  assert due == later == sorted(STATUSES)


async def test_late_times_that_wait_for_their_turn_stay_too(database: Database) -> None:
  misfire = Misfire(policy=MisfirePolicy.RUN_ALL, interval=600.0)
  job = await make_job(database, config=attrs.evolve(LIMITED, misfire=misfire))
  schedule = await make_schedule(database, job)
  await database.fetch(REWIND, id=schedule.id)
  server = Generator(
    database, await bind_all(database), horizon=60.0, interval=1.0, wakeup=Wakeup()
  )
  await server.plan_once()
  await disable(database, job, schedule)
  rows = await database.fetch(TASKS, id=job.id)
  late = [row for row in rows if row["cause"] == "catch_up"]
  assert len(late) in (8, 9)
  assert {row["status"] for row in rows} == {"blocked"}
  assert {row["lane"] for row in rows} == {f"job:{job.id}"}
