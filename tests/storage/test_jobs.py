"""Jobs in a real database."""

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

from hetuflow.errors import Conflict, NotFound, ProtocolError
from hetuflow.protocol.model import (
  UNSET,
  JobFilter,
  JobForUpdate,
  ScheduleForCreate,
  TaskConfig,
  new_id,
)
from hetuflow.protocol.states import ExecutorKind, JobStatus, ScheduleKind
from hetuflow.storage.connect import Database
from hetuflow.storage.jobs import (
  delete_job,
  get_job,
  query_jobs,
  query_versions,
  set_job_enabled,
  update_job,
)
from hetuflow.storage.schedules import get_schedule

ROUTE_OF = query("""
  SELECT r.selector, j.priority, j.max_retries
  FROM sched_job AS j JOIN sched_route AS r ON r.id = j.route_id WHERE j.id = $id
""")


SPOIL_CONFIG = query("""
  UPDATE sched_job_version SET config = $config::jsonb
  WHERE job_id = $id RETURNING version
""")


@pytest.fixture
async def database(database: Database) -> Database:
  await make_namespace(database)
  return database


async def test_a_job_is_read_as_it_was_made(database: Database) -> None:
  config = TaskConfig(cmd="/bin/true", args=["a"], labels={"disk": "ssd"}, priority=3)
  made = await make_job(database, config=config, description="each night")
  assert await get_job(database, made.id) == made
  assert made.config == config
  assert (made.version, made.status, made.description) == (1, "enabled", "each night")


async def test_a_name_is_taken_once_and_the_error_says_where(
  database: Database,
) -> None:
  await make_job(database, "backup")
  with pytest.raises(Conflict, match=r"named 'backup' already exists in .* 'default'"):
    await make_job(database, "backup")
  await make_namespace(database, "other")
  await make_job(database, "backup", namespace_id="other")


async def test_of_two_who_take_a_name_at_once_one_succeeds(database: Database) -> None:
  outcomes = []

  async def make() -> None:
    try:
      await make_job(database, "backup")
      outcomes.append("made")
    except Conflict:
      outcomes.append("taken")

  async with trio.open_nursery() as nursery:
    for _ in range(5):
      nursery.start_soon(make)
  assert sorted(outcomes) == ["made", "taken", "taken", "taken", "taken"]


async def test_a_job_needs_its_namespace(database: Database) -> None:
  with pytest.raises(NotFound, match="no namespace 'nowhere'"):
    await make_job(database, namespace_id="nowhere")


async def test_an_executor_nobody_has_is_refused(database: Database) -> None:
  config = TaskConfig(cmd="alpine", executor=ExecutorKind.DOCKER)
  with pytest.raises(ProtocolError) as caught:
    await make_job(database, config=config)
  [(path, message)] = caught.value.issues
  assert path == "$.config.executor"
  assert message == "this server has no such executor yet: process, shell, python"


async def test_a_wrong_schedule_undoes_the_whole_job(database: Database) -> None:
  good = ScheduleForCreate(kind=ScheduleKind.CRON, cron_expression="@daily")
  bad = ScheduleForCreate(kind=ScheduleKind.CRON, cron_expression="61 * * * *")
  with pytest.raises(ProtocolError) as caught:
    await make_job(database, schedules=[good, bad])
  assert caught.value.issues[0][0] == "$.schedules[1].cron_expression"
  assert await query_jobs(database, JobFilter(), limit=10) == []


async def test_a_changed_configuration_is_a_new_version(database: Database) -> None:
  job = await make_job(database)
  labels = {"disk": "ssd"}
  config = TaskConfig(cmd="/bin/false", labels=labels, priority=5, max_retries=2)
  changed = await update_job(database, job.id, JobForUpdate(config=config))
  assert (changed.version, changed.config) == (2, config)
  row = await database.fetchrow(ROUTE_OF, id=job.id)
  assert row is not None
  assert row["selector"] == {"executor": "process", "labels": labels}
  assert (row["priority"], row["max_retries"]) == (5, 2)
  versions = await query_versions(database, job.id, limit=10)
  assert [(v.version, v.config.cmd) for v in versions] == [
    (2, "/bin/false"),
    (1, "/bin/true"),
  ]
  older = await query_versions(database, job.id, limit=10, cursor=2)
  assert [version.version for version in older] == [1]


async def test_the_same_configuration_is_no_new_version(database: Database) -> None:
  job = await make_job(database)
  changed = await update_job(
    database, job.id, JobForUpdate(config=job.config, description="new")
  )
  assert (changed.version, changed.description) == (1, "new")


async def test_a_change_of_what_has_changed_meanwhile_is_refused(
  database: Database,
) -> None:
  read = await make_job(database)
  outcomes, refusals = [], []

  async def change(cmd: str) -> None:
    """Change the configuration as it was read."""
    wish = JobForUpdate(config=TaskConfig(cmd=cmd), version=read.version)
    try:
      outcomes.append(await update_job(database, read.id, wish))
    except Conflict as error:
      refusals.append(str(error))

  async with trio.open_nursery() as nursery:
    for number in range(5):
      nursery.start_soon(change, f"/bin/{number}")
  [changed] = outcomes
  assert len(refusals) == 4
  assert all("is at version 2 by now, not 1" in refusal for refusal in refusals)
  assert (await get_job(database, read.id)).config == changed.config
  again = JobForUpdate(description="mine", version=2)
  assert (await update_job(database, read.id, again)).description == "mine"


async def test_a_job_cannot_be_given_a_name_that_is_taken(database: Database) -> None:
  await make_job(database, "one")
  two = await make_job(database, "two")
  with pytest.raises(Conflict, match="named 'one' already exists"):
    await update_job(database, two.id, JobForUpdate(name="one"))
  assert (await get_job(database, two.id)).name == "two"


async def test_jobs_come_in_pages_newest_first(database: Database) -> None:
  made = [await make_job(database, f"job-{n}") for n in range(5)]
  first = await query_jobs(database, JobFilter(), limit=3)
  rest = await query_jobs(database, JobFilter(), limit=3, cursor=first[-1].id)
  assert [job.id for job in first + rest] == [job.id for job in reversed(made)]
  assert await query_jobs(database, JobFilter(name="job-2"), limit=3) == [made[2]]


async def test_disabling_takes_back_what_nobody_has_taken(database: Database) -> None:
  job = await make_job(database)
  schedule = await make_schedule(database, job)
  now = (await read_clock(database)).replace(microsecond=0)
  soon = [now.replace(year=now.year + 1, second=second) for second in range(4)]
  await plan_task(database, schedule, now.replace(year=now.year - 1))
  await plan_task(database, schedule, soon[0], status="dispatched", attempts=1)
  await plan_task(database, schedule, soon[1])
  await plan_task(database, schedule, soon[2], status="paused")
  before = await read_cursor(database, schedule)

  disabled = await set_job_enabled(database, job.id, False)

  assert disabled.status == JobStatus.DISABLED
  assert (await planned_times(database, schedule))[1:] == [soon[0]]
  cursor = await read_cursor(database, schedule)
  assert now <= cursor["cursor_at"] < soon[0]
  assert cursor["taken"] == [soon[0]]
  assert cursor["next_plan_at"] is None
  assert cursor["enabled"]
  assert cursor["revision"] > before["revision"]
  assert (await get_schedule(database, schedule.id)).next_run_at is None


async def test_enabling_begins_now(database: Database) -> None:
  job = await make_job(database, status=JobStatus.DISABLED)
  schedule = await make_schedule(database, job)
  assert (await read_cursor(database, schedule))["next_plan_at"] is None
  now = await read_clock(database)
  await set_job_enabled(database, job.id, True)
  cursor = await read_cursor(database, schedule)
  assert cursor["cursor_at"] >= now
  assert cursor["next_plan_at"] > now
  assert (await get_schedule(database, schedule.id)).next_run_at is not None


async def test_a_deleted_job_frees_its_name_and_ends_its_schedules(
  database: Database,
) -> None:
  job = await make_job(database)
  schedule = await make_schedule(database, job)
  await delete_job(database, job.id)
  await delete_job(database, job.id)
  assert (await get_job(database, job.id)).status == JobStatus.DELETED
  assert not (await get_schedule(database, schedule.id)).enabled
  assert await query_jobs(database, JobFilter(), limit=10) == []
  deleted = await query_jobs(database, JobFilter(status=JobStatus.DELETED), limit=10)
  assert [gone.id for gone in deleted] == [job.id]
  with pytest.raises(Conflict, match="is deleted"):
    await set_job_enabled(database, job.id, True)
  await make_job(database, job.name)


async def test_what_is_not_there_is_not_found(database: Database) -> None:
  nobody = new_id()
  with pytest.raises(NotFound, match=f"no job '{nobody}'"):
    await get_job(database, nobody)
  with pytest.raises(NotFound):
    await update_job(database, nobody, JobForUpdate(name="x"))
  with pytest.raises(NotFound):
    await delete_job(database, nobody)
  with pytest.raises(NotFound):
    await query_versions(database, nobody, limit=1)


@pytest.mark.parametrize(
  ("config", "problem"),
  [
    ({"cmd": ""}, "expected a length between 1 and 131072 @ $.cmd"),
    ({"cmd": "a", "executor": "fax"}, " @ $.executor"),
    ({}, "required @ $.cmd"),
    ([1], "expected an object @ $"),
  ],
)
async def test_a_job_whose_configuration_is_refused_by_now_hides_no_other(
  database: Database, config: object, problem: str
) -> None:
  whole, spoilt = await make_job(database), await make_job(database, "spoilt")
  await database.fetchval(SPOIL_CONFIG, id=spoilt.id, config=config)
  shown, other = await query_jobs(database, JobFilter(), limit=10)
  assert other == whole
  assert (shown.id, shown.name, shown.config) == (spoilt.id, "spoilt", None)
  assert shown.unusable is not None
  assert shown.unusable.stored == config
  assert shown.unusable.problem.endswith(problem)
  assert await get_job(database, spoilt.id) == shown


async def test_a_job_whose_configuration_is_refused_can_be_mended(
  database: Database,
) -> None:
  job = await make_job(database)
  await database.fetchval(SPOIL_CONFIG, id=job.id, config={"cmd": ""})
  renamed = await update_job(database, job.id, JobForUpdate(name="renamed"))
  assert (renamed.name, renamed.config) == ("renamed", None)
  mended = await update_job(
    database, job.id, JobForUpdate(config=job.config or UNSET, version=1)
  )
  assert (mended.config, mended.unusable, mended.version) == (job.config, None, 2)
  versions = await query_versions(database, job.id, limit=10)
  assert [version.config for version in versions] == [job.config, None]
  assert versions[1].unusable == renamed.unusable


async def test_a_job_whose_configuration_is_refused_can_be_switched_and_deleted(
  database: Database,
) -> None:
  job = await make_job(database)
  schedule = await make_schedule(database, job)
  await database.fetchval(SPOIL_CONFIG, id=job.id, config={"cmd": ""})
  assert (await set_job_enabled(database, job.id, False)).status == "disabled"
  assert (await set_job_enabled(database, job.id, True)).status == "enabled"
  await delete_job(database, job.id)
  assert (await get_job(database, job.id)).status is JobStatus.DELETED
  assert not (await get_schedule(database, schedule.id)).enabled
