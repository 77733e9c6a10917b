"""Jobs: create, get, query, update, delete, enable, disable, and their versions."""

from typing import Any, TypeVar
from uuid import UUID

from hetuflow.errors import Conflict, ProtocolError, ScheduleError
from hetuflow.protocol import wire
from hetuflow.protocol.model import (
  UNSET,
  Job,
  JobFilter,
  JobForCreate,
  JobForUpdate,
  JobVersion,
  TaskConfig,
  UnsetType,
  UnusableConfig,
  new_id,
)
from hetuflow.protocol.states import ExecutorKind, JobStatus
from hetuflow.storage.connect import Connection, Record
from hetuflow.storage.namespaces import share_namespace
from hetuflow.storage.relaning import LIMITS, relane_tasks
from hetuflow.storage.routes import intern_route, selector_of
from hetuflow.storage.rows import Executor, changes, criteria, found, from_row, repeated
from hetuflow.storage.schedules import (
  add_schedule,
  replanned_job,
  switch_schedules_off,
  wake_schedules,
)
from hetuflow.storage.sql import load_queries

__all__ = [
  "create_job",
  "delete_job",
  "get_job",
  "query_jobs",
  "query_versions",
  "set_job_enabled",
  "update_job",
]

_sql = load_queries("jobs")

T = TypeVar("T", Job, JobVersion)

_FOLLOWING = (
  "route_id",
  "priority",
  "max_retries",
  "overlap",
  "max_concurrent",
  "concurrency_key",
  "rate_count",
  "rate_seconds",
  "misfire",
  "start_deadline",
  "total_timeout",
  "broadcast",
)
"""The columns of a job that repeat what its configuration says."""

EXECUTORS = (ExecutorKind.PROCESS, ExecutorKind.SHELL, ExecutorKind.PYTHON)
"""What agents of this version can run."""


async def create_job(database: Executor, wish: JobForCreate) -> Job:
  """Make a job with its first version and its schedules, all or nothing.

  Raises:
    ProtocolError: an executor or status that cannot be, or a schedule that cannot be
      scheduled; names the path.
    NotFound: there is no such namespace.
    Conflict: the name is taken in the namespace, or one schedule's among the others.
  """
  _check_config(wish.config)
  if wish.status is JobStatus.DELETED:
    raise ProtocolError([("$.status", "expected enabled or disabled")])
  async with database.transaction() as connection:
    await share_namespace(connection, wish.namespace_id)
    job = await connection.fetchrow(
      _sql.insert_job,
      id=new_id(),
      namespace_id=wish.namespace_id,
      name=wish.name,
      description=wish.description,
      status=wish.status,
      **await _follow(connection, wish.namespace_id, wish.config),
    )
    if job is None:
      raise _taken(wish.name, wish.namespace_id)
    await connection.fetch(
      _sql.insert_version, job_id=job["id"], version=1, config=wish.config
    )
    await _add_schedules(connection, job, wish)
    return await get_job(connection, job["id"])


async def _add_schedules(
  connection: Connection, job: Record, wish: JobForCreate
) -> None:
  """Make the schedules of a new job; errors name their place in the list."""
  for position, schedule in enumerate(wish.schedules):
    path = f"$.schedules[{position}]"
    if schedule.job_id is not None:
      raise ProtocolError([(f"{path}.job_id", "expected none: the job is being made")])
    try:
      await add_schedule(connection, job, schedule)
    except ScheduleError as error:
      raise ProtocolError([(f"{path}.{error.field}", str(error))]) from error


async def get_job(database: Executor, id: UUID) -> Job:
  """Read one job, a deleted one too.

  Raises:
    NotFound: there is no such job.
  """
  return _read(Job, found(await database.fetchrow(_sql.select_job, id=id), "job", id))


def _read(cls: type[T], record: Record) -> T:
  """Build a job or version, also one whose configuration is refused by now."""
  try:
    config, unusable = wire.load(TaskConfig, record["config"]), None
  except ProtocolError as error:
    stored, problem = record["config"], str(error)
    config, unusable = None, UnusableConfig(stored=stored, problem=problem)
  return from_row(cls, record, config=config, unusable=unusable)


async def query_jobs(
  database: Executor, filter: JobFilter, *, limit: int, cursor: UUID | None = None
) -> list[Job]:
  """Read a page of jobs, newest first; deleted ones only when the filter says so.

  Args:
    database: where.
    filter: which.
    limit: how many at most.
    cursor: the id after which the page begins.
  """
  records = await database.fetch(
    _sql.list_jobs, **criteria(filter), limit=limit, cursor=cursor
  )
  return [_read(Job, record) for record in records]


async def query_versions(
  database: Executor, id: UUID, *, limit: int, cursor: int | None = None
) -> list[JobVersion]:
  """Read a page of a job's versions, newest first.

  Args:
    database: where.
    id: of the job.
    limit: how many at most.
    cursor: the version after which the page begins.

  Raises:
    NotFound: there is no such job.
  """
  found(await database.fetchrow(_sql.select_job, id=id), "job", id)
  records = await database.fetch(
    _sql.list_versions, job_id=id, limit=limit, cursor=cursor
  )
  return [_read(JobVersion, record) for record in records]


@repeated
async def update_job(database: Executor, id: UUID, update: JobForUpdate) -> Job:
  """Change what the update names; a changed configuration becomes a new version.

  Tasks that are planned already keep the version they were planned with; limits are
  those of now for them, too.

  Raises:
    ProtocolError: an executor that this version does not have.
    NotFound: there is no such job.
    Conflict: the name is taken, the job is deleted, or has another version by now.
  """
  async with database.transaction() as connection:
    row = await _lock_live(connection, id)
    if update.version not in (UNSET, row["version"]):
      raise Conflict(
        f"the job {row['name']!r} is at version {row['version']} by now,"
        f" not {update.version}; read it and change that"
      )
    values = {name: row[name] for name in ("version", *_FOLLOWING)}
    if not isinstance(update.config, UnsetType):
      values |= await _new_version(connection, row, update.config)
    given = changes(update)
    for name in ("config", "version"):
      del given[name], given[f"set_{name}"]
    try:
      await connection.fetch(_sql.update_job, id=id, **given, **values)
    except Conflict as error:
      if "sched_job_name" in str(error):
        raise _taken(str(update.name), row["namespace_id"]) from error
      raise
    if any(values[name] != row[name] for name in LIMITS):
      await relane_tasks(connection, values | {"id": id}, row["namespace_id"])
    if values["version"] != row["version"]:
      await wake_schedules(connection, id)
    return await get_job(connection, id)


async def _new_version(
  connection: Connection, row: Record, config: TaskConfig
) -> dict[str, Any]:
  """Freeze a configuration unless it is the one of now; return the columns it sets."""
  _check_config(config)
  if config == (await get_job(connection, row["id"])).config:
    return {}
  version = row["version"] + 1
  await connection.fetch(
    _sql.insert_version, job_id=row["id"], version=version, config=config
  )
  follows = await _follow(connection, row["namespace_id"], config)
  return {"version": version, **follows}


@repeated
async def set_job_enabled(database: Executor, id: UUID, enabled: bool) -> Job:
  """Switch a job on from now, or off with what its schedules have planned for later.

  Raises:
    NotFound: there is no such job.
    Conflict: it is deleted.
  """
  status = JobStatus.ENABLED if enabled else JobStatus.DISABLED
  async with database.transaction() as connection:
    row = await _lock_live(connection, id)
    if row["status"] != status:
      async with replanned_job(connection, row):
        await connection.fetch(_sql.set_job_status, id=id, status=status)
    return await get_job(connection, id)


@repeated
async def delete_job(database: Executor, id: UUID) -> None:
  """Delete a job: its name is free again, its schedules end, its history stays.

  Raises:
    NotFound: there is no such job.
  """
  async with database.transaction() as connection:
    row = found(await connection.fetchrow(_sql.lock_job, id=id), "job", id)
    if row["status"] == JobStatus.DELETED:
      return
    async with replanned_job(connection, row):
      await connection.fetch(_sql.set_job_status, id=id, status=JobStatus.DELETED)
      await switch_schedules_off(connection, id)


async def _lock_live(connection: Connection, id: UUID) -> Record:
  """Hold a job that is not deleted."""
  row = found(await connection.fetchrow(_sql.lock_job, id=id), "job", id)
  if row["status"] == JobStatus.DELETED:
    raise Conflict(f"the job {row['name']!r} is deleted")
  return row


async def _follow(
  connection: Connection, namespace_id: str, config: TaskConfig
) -> dict[str, Any]:
  """Return the columns that repeat what a configuration says."""
  rate = config.rate_limit
  values: dict[str, Any] = {
    "route_id": await intern_route(connection, namespace_id, selector_of(config)),
    "rate_count": None if rate is None else rate.count,
    "rate_seconds": None if rate is None else rate.seconds,
  }
  return values | {
    name: getattr(config, name) for name in _FOLLOWING if name not in values
  }


def _check_config(config: TaskConfig) -> None:
  """Refuse an executor that no agent of this version has."""
  if config.executor not in EXECUTORS:
    known = ", ".join(EXECUTORS)
    raise ProtocolError(
      [("$.config.executor", f"this server has no such executor yet: {known}")]
    )


def _taken(name: str, namespace_id: str) -> Conflict:
  """Say that a job's name is taken."""
  return Conflict(f"a job named {name!r} already exists in namespace {namespace_id!r}")
