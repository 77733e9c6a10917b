"""Schedules in a real database."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from support.world import (
  make_job,
  make_namespace,
  make_schedule,
  plan_task,
  planned_times,
  query,
  read_clock,
  read_cursor,
)

from hetuflow.errors import Conflict, NotFound, ProtocolError, ScheduleError
from hetuflow.protocol.model import (
  Job,
  ScheduleFilter,
  ScheduleForCreate,
  ScheduleForUpdate,
  new_id,
)
from hetuflow.protocol.states import ScheduleKind
from hetuflow.storage.connect import Database
from hetuflow.storage.jobs import set_job_enabled
from hetuflow.storage.schedules import (
  create_schedule,
  delete_schedule,
  get_schedule,
  query_schedules,
  set_schedule_enabled,
  update_schedule,
)

NOTE_RUN = query("UPDATE sched_schedule SET last_run_at = $at WHERE id = $id")
NEVER_SOON = "0 0 1 1 *"
LOSE_ZONE = query("UPDATE sched_schedule SET timezone = 'Old/Town' WHERE id = $id")
COUNT_RUNS = query("UPDATE sched_schedule SET run_count = $count WHERE id = $id")


@pytest.fixture
async def job(database: Database) -> Job:
  await make_namespace(database)
  return await make_job(database)


async def test_a_schedule_is_read_as_it_was_made(database: Database, job: Job) -> None:
  made = await make_schedule(
    database,
    job,
    name="nightly",
    cron_expression="30 2 * * *",
    timezone="Europe/Berlin",
    parameters={"day": [1, None]},
    jitter_seconds=5.0,
  )
  assert await get_schedule(database, made.id) == made
  assert made.parameters == {"day": [1, None]}
  assert made.next_run_at is not None
  assert made.next_run_at.minute == 30
  assert (await read_cursor(database, made))["next_plan_at"] == made.next_run_at


async def test_a_schedule_without_a_name_gets_one(database: Database, job: Job) -> None:
  one, two = [await make_schedule(database, job) for _ in range(2)]
  assert one.name.startswith("cron-")
  assert one.name != two.name


async def test_a_name_is_taken_once_among_those_of_a_job(
  database: Database, job: Job
) -> None:
  await make_schedule(database, job, name="nightly")
  with pytest.raises(Conflict, match="'nightly' already exists for job 'backup'"):
    await make_schedule(database, job, name="nightly")
  other = await make_schedule(database, job, name="weekly")
  with pytest.raises(Conflict, match="'nightly' already exists for job 'backup'"):
    await update_schedule(database, other.id, ScheduleForUpdate(name="nightly"))


@pytest.mark.parametrize(
  ("wish", "field"),
  [
    ({"cron_expression": "61 * * * *"}, "cron_expression"),
    ({"timezone": "Mars/Olympus"}, "timezone"),
  ],
)
async def test_what_cannot_be_scheduled_names_its_field(
  database: Database, job: Job, wish: dict[str, Any], field: str
) -> None:
  with pytest.raises(ScheduleError) as caught:
    await make_schedule(database, job, **wish)
  assert caught.value.field == field
  good = await make_schedule(database, job)
  with pytest.raises(ScheduleError) as caught:
    await update_schedule(database, good.id, ScheduleForUpdate(**wish))
  assert caught.value.field == field
  assert await get_schedule(database, good.id) == good


async def test_an_end_before_the_start_is_refused_on_edit(
  database: Database, job: Job
) -> None:
  start = datetime(2030, 1, 1, tzinfo=UTC)
  schedule = await make_schedule(database, job, start_at=start)
  with pytest.raises(ScheduleError) as caught:
    await update_schedule(database, schedule.id, ScheduleForUpdate(end_at=start))
  assert caught.value.field == "end_at"


async def test_a_schedule_needs_its_job(database: Database, job: Job) -> None:
  wish = ScheduleForCreate(kind=ScheduleKind.CRON, cron_expression="@daily")
  with pytest.raises(ProtocolError, match=r"required @ \$.job_id"):
    await create_schedule(database, wish)
  with pytest.raises(NotFound, match="no job"):
    await make_schedule(database, job, job_id=new_id())


async def test_an_edit_takes_back_and_plans_anew(database: Database, job: Job) -> None:
  schedule = await make_schedule(database, job, max_runs=10)
  await database.fetch(COUNT_RUNS, id=schedule.id, count=3)
  now = (await read_clock(database)).replace(microsecond=0)
  taken, waiting, running = [now + timedelta(hours=hours) for hours in (1, 2, -1)]
  await plan_task(database, schedule, running, status="running", attempts=1)
  await plan_task(database, schedule, taken, status="dispatched", attempts=1)
  await plan_task(database, schedule, waiting)
  before = await read_cursor(database, schedule)

  change = ScheduleForUpdate(cron_expression=NEVER_SOON, end_at=None)
  changed = await update_schedule(database, schedule.id, change)

  assert changed.cron_expression == NEVER_SOON
  assert await planned_times(database, schedule) == [running, taken]
  cursor = await read_cursor(database, schedule)
  assert cursor["cursor_at"] >= now
  assert cursor["taken"] == [taken]
  assert (cursor["next_plan_at"].month, cursor["next_plan_at"].day) == (1, 1)
  assert cursor["revision"] > before["revision"]
  assert cursor["run_count"] == 2
  # The run that is planned already is the next one.
  assert changed.next_run_at == taken


async def test_the_last_run_is_none_of_those_that_are_still_to_come(
  database: Database, job: Job
) -> None:
  schedule = await make_schedule(database, job, cron_expression=NEVER_SOON)
  now = await read_clock(database)
  ahead, gone = now + timedelta(seconds=30), now - timedelta(seconds=30)
  await plan_task(database, schedule, ahead)
  await database.fetch(NOTE_RUN, id=schedule.id, at=ahead)
  assert (await get_schedule(database, schedule.id)).last_run_at is None
  await plan_task(database, schedule, gone)
  page = await query_schedules(database, ScheduleFilter(job_id=job.id), limit=9)
  assert [each.last_run_at for each in page] == [gone]
  await database.fetch(NOTE_RUN, id=schedule.id, at=gone)
  assert (await get_schedule(database, schedule.id)).last_run_at == gone


async def test_switching_on_begins_now(database: Database, job: Job) -> None:
  schedule = await make_schedule(database, job, enabled=False)
  assert schedule.next_run_at is None
  now = await read_clock(database)
  enabled = await set_schedule_enabled(database, schedule.id, True)
  assert enabled.enabled
  assert enabled.next_run_at is not None
  cursor = await read_cursor(database, schedule)
  assert cursor["cursor_at"] >= now
  again = await set_schedule_enabled(database, schedule.id, True)
  assert (await read_cursor(database, again))["revision"] == cursor["revision"]


async def test_switching_off_takes_back(database: Database, job: Job) -> None:
  schedule = await make_schedule(database, job, cron_expression="0 0 1 1 *")
  await plan_task(database, schedule, await read_clock(database) + timedelta(hours=1))
  disabled = await set_schedule_enabled(database, schedule.id, False)
  assert not disabled.enabled
  assert disabled.next_run_at is None
  assert await planned_times(database, schedule) == []
  assert (await read_cursor(database, schedule))["next_plan_at"] is None


async def test_deleting_leaves_what_agents_have(database: Database, job: Job) -> None:
  schedule = await make_schedule(database, job)
  at = await read_clock(database) + timedelta(hours=1)
  later = at + timedelta(hours=1)
  await plan_task(database, schedule, at, status="dispatched", attempts=1)
  await plan_task(database, schedule, later)
  await delete_schedule(database, schedule.id)
  assert await planned_times(database, schedule) == [at]
  with pytest.raises(NotFound, match="no schedule"):
    await get_schedule(database, schedule.id)
  with pytest.raises(NotFound, match="no schedule"):
    await delete_schedule(database, schedule.id)


async def test_a_schedule_that_has_had_its_runs_has_no_next(
  database: Database, job: Job
) -> None:
  schedule = await make_schedule(database, job, max_runs=2)
  await database.fetch(COUNT_RUNS, id=schedule.id, count=2)
  assert (await get_schedule(database, schedule.id)).next_run_at is None


async def test_a_time_just_passed_still_fires_and_an_old_one_is_refused(
  database: Database, job: Job
) -> None:
  now = await read_clock(database)
  once: dict[str, Any] = {"kind": ScheduleKind.TIME, "cron_expression": None}
  just = now - timedelta(seconds=5)
  schedule = await make_schedule(database, job, **once, run_at=just)
  assert (await read_cursor(database, schedule))["next_plan_at"] == just
  old = now - timedelta(hours=1)
  with pytest.raises(ScheduleError, match="lies in the past") as caught:
    await make_schedule(database, job, **once, run_at=old)
  assert caught.value.field == "run_at"
  with pytest.raises(ScheduleError, match="lies in the past"):
    await update_schedule(database, schedule.id, ScheduleForUpdate(run_at=old))


async def test_one_time_may_replace_another_but_not_the_kind(
  database: Database, job: Job
) -> None:
  at = await read_clock(database) + timedelta(hours=1)
  schedule = await make_schedule(
    database, job, kind=ScheduleKind.TIME, cron_expression=None, run_at=at
  )
  changed = await update_schedule(
    database, schedule.id, ScheduleForUpdate(interval_seconds=60.0)
  )
  assert (changed.run_at, changed.interval_seconds) == (None, 60.0)
  with pytest.raises(ProtocolError, match="does not belong"):
    await update_schedule(
      database, schedule.id, ScheduleForUpdate(cron_expression="@daily")
    )
  both = ScheduleForUpdate(run_at=at, interval_seconds=60.0)
  with pytest.raises(ProtocolError, match="only one of"):
    await update_schedule(database, schedule.id, both)
  with pytest.raises(ProtocolError, match="expected a name"):
    await update_schedule(database, schedule.id, ScheduleForUpdate(name=""))


async def test_a_schedule_whose_zone_is_gone_is_still_read_and_removed(
  database: Database, job: Job
) -> None:
  schedule = await make_schedule(database, job)
  await database.fetch(LOSE_ZONE, id=schedule.id)
  assert (await get_schedule(database, schedule.id)).next_run_at is None
  disabled = await set_schedule_enabled(database, schedule.id, False)
  assert not disabled.enabled
  with pytest.raises(ScheduleError):
    await set_schedule_enabled(database, schedule.id, True)
  await delete_schedule(database, schedule.id)


async def test_schedules_are_found_by_what_they_are(
  database: Database, job: Job
) -> None:
  other = await make_job(database, "other")
  made = [await make_schedule(database, job) for _ in range(3)]
  off = await make_schedule(database, other, enabled=False)

  async def ids(limit: int = 10, cursor: Any = None, **filter: Any) -> list[Any]:
    wanted = ScheduleFilter(**filter)
    page = await query_schedules(database, wanted, limit=limit, cursor=cursor)
    return [schedule.id for schedule in page]

  newest_first = [schedule.id for schedule in reversed(made)]
  assert await ids(job_id=job.id) == newest_first
  assert await ids(job_id=job.id, limit=2) == newest_first[:2]
  assert await ids(job_id=job.id, cursor=newest_first[1]) == newest_first[2:]
  assert await ids(enabled=False) == [off.id]
  assert await ids(kind=ScheduleKind.TIME) == []
  assert await ids(namespace_id="other") == []


async def test_editors_of_a_schedule_and_its_job_do_not_block_each_other(
  database: Database, job: Job
) -> None:
  schedule = await make_schedule(database, job)

  async def edit() -> None:
    for count in range(1, 11):
      await update_schedule(database, schedule.id, ScheduleForUpdate(max_runs=count))

  async def switch() -> None:
    for turn in range(10):
      await set_job_enabled(database, job.id, turn % 2 == 1)

  async with trio.open_nursery() as nursery:
    nursery.start_soon(edit)
    nursery.start_soon(switch)
  assert (await get_schedule(database, schedule.id)).max_runs == 10


async def test_whoever_waits_for_schedules_is_told(
  database: Database, job: Job
) -> None:
  with trio.fail_after(10):
    async with (
      database.connection() as connection,
      connection.listen("hetuflow") as notes,
    ):
      schedule = await make_schedule(database, job)
      assert await anext(notes) == "schedules"
      await update_schedule(database, schedule.id, ScheduleForUpdate(max_runs=3))
      assert await anext(notes) == "schedules"


@pytest.mark.parametrize(
  ("change", "value"),
  [
    ("parameters = $value::jsonb", [1]),
    ("dst = $value::jsonb", {"gap": "fall in", "fold": "first"}),
    ("dst = $value::jsonb", {"gap": "skip"}),
    ("dst = $value::jsonb", [1]),
    ("start_at = $value::timestamptz", datetime(1, 1, 2, tzinfo=UTC)),
    ("end_at = $value::timestamptz", datetime(9999, 1, 1, tzinfo=UTC)),
  ],
)
async def test_a_schedule_that_could_not_be_read_cannot_be_written(
  database: Database, change: str, value: object
) -> None:
  schedule = await make_schedule(database, await make_job(database))
  write = query(f"UPDATE sched_schedule SET {change} WHERE id = $id")
  with pytest.raises(Conflict, match="sched_schedule_readable"):
    await database.fetch(write, id=schedule.id, value=value)
  assert await query_schedules(database, ScheduleFilter(), limit=10) == [schedule]


@pytest.mark.parametrize(
  ("change", "mend"),
  [
    ("cron_expression = 'rubbish'", {"cron_expression": "* * * * *"}),
    ("timezone = 'Mars/Base'", {"timezone": "UTC"}),
    ("jitter_seconds = 1e9", {"jitter_seconds": 0.0}),
    ("name = repeat('x', 300)", {"name": "short"}),
  ],
)
async def test_a_schedule_that_is_refused_by_now_is_listed_and_can_be_mended(
  database: Database, change: str, mend: dict[str, Any]
) -> None:
  job = await make_job(database)
  whole, spoilt = [await make_schedule(database, job) for _ in range(2)]
  await database.fetch(
    query(f"UPDATE sched_schedule SET {change} WHERE id = $id"), id=spoilt.id
  )
  shown, other = await query_schedules(database, ScheduleFilter(), limit=10)
  assert (shown.id, other) == (spoilt.id, whole)
  mended = await update_schedule(database, spoilt.id, ScheduleForUpdate(**mend))
  assert mended.next_run_at == whole.next_run_at
  await database.fetch(
    query(f"UPDATE sched_schedule SET {change} WHERE id = $id"), id=spoilt.id
  )
  await delete_schedule(database, spoilt.id)
  assert await query_schedules(database, ScheduleFilter(), limit=10) == [whole]
