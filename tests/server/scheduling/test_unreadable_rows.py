"""Rows that nobody can read: they stop nobody else, and do not bind who made them."""

import pytest
from support.world import bind_all, make_job, make_schedule, planned_times, query

from hetuflow.nursery import Wakeup
from hetuflow.protocol.model import JobForUpdate, Schedule, TaskConfig
from hetuflow.server.scheduling.generator import Generator
from hetuflow.storage.connect import Database
from hetuflow.storage.jobs import delete_job, set_job_enabled, update_job
from hetuflow.storage.schedules import set_schedule_enabled

SPOIL_CALENDARS = query("UPDATE sched_schedule SET calendars = $calendars")
SPOIL_MISFIRE = query("UPDATE sched_job SET misfire = $misfire WHERE id = $id")
REWIND = query("""
  UPDATE sched_schedule
  SET cursor_at = now() - interval '1 hour', next_plan_at = now() - interval '1 hour'
  WHERE id = $id
""")
WAITING = query("SELECT count(*) FROM sched_schedule WHERE next_plan_at IS NOT NULL")


async def plan_once(database: Database) -> None:
  """Let a server that has all namespaces plan once."""
  bindings = await bind_all(database)
  server = Generator(database, bindings, horizon=60.0, interval=1.0, wakeup=Wakeup())
  await server.plan_once()


@pytest.fixture
async def sound(database: Database) -> Schedule:
  job = await make_job(database, "sound")
  return await make_schedule(database, job, cron_expression="* * * * * *")


@pytest.mark.parametrize(
  "use", [{"name": "holidays", "mode": "sometimes"}, {"mode": "exclude"}, 1]
)
async def test_calendars_that_cannot_be_read_stop_only_their_schedule(
  database: Database, use: object
) -> None:
  job = await make_job(database)
  await make_schedule(database, job, name="broken")
  await database.fetch(SPOIL_CALENDARS, calendars=[use])
  sound = await make_schedule(
    database, job, name="sound", cron_expression="* * * * * *"
  )
  await plan_once(database)
  assert await planned_times(database, sound)


async def test_the_job_of_a_schedule_that_cannot_be_read_can_be_switched_off_and_deleted(
  database: Database, sound: Schedule
) -> None:
  await database.fetch(SPOIL_CALENDARS, calendars=[{"mode": "sometimes"}])
  await set_job_enabled(database, sound.job_id, False)
  assert await database.fetchval(WAITING) == 0
  await delete_job(database, sound.job_id)


@pytest.mark.parametrize(
  "misfire",
  [{"grace": "x"}, {"grace": None}, {"grace": 1e12}, {"grace": 1e300}, {"policy": "x"}],
)
async def test_a_policy_that_cannot_be_read_stops_others_not_and_its_own_until_mended(
  database: Database, sound: Schedule, misfire: object
) -> None:
  job = await make_job(database)
  broken = await make_schedule(database, job)
  await database.fetch(SPOIL_MISFIRE, id=job.id, misfire=misfire)
  await database.fetch(REWIND, id=broken.id)
  await plan_once(database)
  assert await planned_times(database, sound)
  assert await planned_times(database, broken) == []
  mended = JobForUpdate(config=TaskConfig(cmd="/bin/false"))
  await update_job(database, job.id, mended)
  await plan_once(database)
  assert await planned_times(database, broken)


async def test_a_plan_that_the_database_refuses_undoes_no_other_and_waits_to_be_mended(
  database: Database, sound: Schedule
) -> None:
  job = await make_job(database)
  broken = await make_schedule(database, job, cron_expression="* * * * * *")
  # No moment lies so far ahead.
  await database.fetch(
    query("UPDATE sched_job SET start_deadline = 1e18 WHERE id = $id"), id=job.id
  )
  await plan_once(database)
  assert await planned_times(database, sound)
  assert await planned_times(database, broken) == []
  mended = JobForUpdate(config=TaskConfig(cmd="/bin/false"))
  await update_job(database, job.id, mended)
  await plan_once(database)
  assert await planned_times(database, broken)


async def test_a_new_policy_wakes_no_schedule_that_is_off(
  database: Database, sound: Schedule
) -> None:
  await set_schedule_enabled(database, sound.id, False)
  await database.fetch(SPOIL_MISFIRE, id=sound.job_id, misfire={"policy": "x"})
  mended = JobForUpdate(config=TaskConfig(cmd="/bin/false"))
  await update_job(database, sound.job_id, mended)
  assert await database.fetchval(WAITING) == 0
