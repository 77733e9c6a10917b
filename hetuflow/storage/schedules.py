"""Schedules: create, get, query, update, delete, enable, disable."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import attrs

from hetuflow.errors import Conflict, ProtocolError, ScheduleError
from hetuflow.protocol.checks import FieldError
from hetuflow.protocol.model import (
  UNSET,
  JobId,
  Schedule,
  ScheduleCalendar,
  ScheduleFilter,
  ScheduleForCreate,
  ScheduleForUpdate,
  ScheduleId,
  UnsetType,
  new_id,
)
from hetuflow.protocol.states import JobStatus, ScheduleKind
from hetuflow.schedule import next_fire
from hetuflow.storage.connect import Connection, Record
from hetuflow.storage.replan import first_cursor, read_schedule, replanned
from hetuflow.storage.replicas import restart_intervals, stop_daemon
from hetuflow.storage.rows import Executor, changes, criteria, found, repeated
from hetuflow.storage.sql import load_queries
from hetuflow.storage.timing import (
  check_window,
  find_calendars,
  hold_calendars,
  is_planned,
  read_calendars,
  timing_for,
  timing_of,
)

__all__ = [
  "add_schedule",
  "create_schedule",
  "delete_schedule",
  "get_schedule",
  "locked_schedule",
  "query_schedules",
  "replanned_job",
  "set_schedule_enabled",
  "switch_schedules_off",
  "update_schedule",
  "wake_schedules",
]

_sql = load_queries("schedules")

_TIMES = ("run_at", "interval_seconds")


async def create_schedule(database: Executor, wish: ScheduleForCreate) -> Schedule:
  """Make a schedule for a job.

  Raises:
    ProtocolError: ``job_id`` is missing.
    ScheduleError: it cannot be scheduled; names the field.
    NotFound: there is no such job.
    Conflict: the job has a schedule of that name, or is deleted.
  """
  if wish.job_id is None:
    raise ProtocolError([("$.job_id", "required")])
  async with database.transaction() as connection:
    job = await _share_job(connection, wish.job_id)
    schedule_id = await add_schedule(connection, job, wish)
    return await get_schedule(connection, schedule_id)


async def add_schedule(
  connection: Connection, job: Record, wish: ScheduleForCreate
) -> ScheduleId:
  """Make a schedule inside the caller's transaction, which has locked the job.

  Args:
    connection: in that transaction.
    job: with ``id``, ``namespace_id``, ``name`` and ``status``.
    wish: what the schedule is to be; one without a name gets one.

  Raises:
    ScheduleError: it cannot be scheduled; names the field.
    Conflict: the job has a schedule of that name.
  """
  id = ScheduleId(new_id())
  now: datetime = await connection.fetchval(_sql.read_clock)
  namespace_id = job["namespace_id"]
  cursor = first_cursor(wish, now)
  first = None
  if is_planned(wish):
    calendars = await hold_calendars(connection, namespace_id, wish.calendars)
    timing = timing_for(
      wish, id=id, namespace_id=namespace_id, created_at=now, calendars=calendars
    )
    if wish.enabled and job["status"] == JobStatus.ENABLED:
      first = next_fire(timing, after=cursor)
  else:
    _check_unplanned(wish, job["name"])
  values = criteria(wish) | {
    "id": id,
    "namespace_id": namespace_id,
    "job_id": job["id"],
    "name": wish.name or f"{wish.kind}-{id.hex[-8:]}",
    "cursor_at": cursor,
    "next_plan_at": first,
    "created_at": now,
  }
  if await connection.fetchval(_sql.insert_schedule, **values) is None:
    raise _taken(wish.name, job["name"])
  await connection.fetch(_sql.notify_schedules)
  return id


async def get_schedule(database: Executor, id: UUID) -> Schedule:
  """Read one schedule.

  Raises:
    NotFound: there is no such schedule.
  """
  record = await database.fetchrow(_sql.select_schedules, ids=[id])
  record = found(record, "schedule", id)
  return read_schedule(record, await read_calendars(database, [record]))


async def query_schedules(
  database: Executor,
  filter: ScheduleFilter,
  *,
  limit: int,
  cursor: UUID | None = None,
) -> list[Schedule]:
  """Read a page of schedules, newest first.

  Args:
    database: where.
    filter: which.
    limit: how many at most.
    cursor: the id after which the page begins.
  """
  records = await database.fetch(
    _sql.list_schedules, **criteria(filter), limit=limit, cursor=cursor
  )
  calendars = await read_calendars(database, records)
  return [read_schedule(record, calendars) for record in records]


@repeated
async def update_schedule(
  database: Executor, id: UUID, update: ScheduleForUpdate
) -> Schedule:
  """Change a schedule and plan anew.

  Raises:
    ProtocolError: a time that does not belong to its kind.
    ScheduleError: it cannot be scheduled; names the field.
    NotFound: there is no such schedule.
    Conflict: its job has another schedule of that name.
  """
  if update.name == "":
    raise ProtocolError([("$.name", "expected a name")])
  uses = () if isinstance(update.calendars, UnsetType) else update.calendars
  async with locked_schedule(database, id, uses) as (connection, job):
    before = await get_schedule(connection, id)
    values = changes(_complete(before, update))
    await _check(connection, attrs.evolve(before, **_given(values)), job["name"])
    new_run_at = update.run_at is not UNSET and update.run_at != before.run_at
    async with replanned(connection, job["namespace_id"], [id], new_run_at=new_run_at):
      try:
        await connection.fetch(_sql.update_schedule, id=id, **values)
      except Conflict as error:
        if "sched_schedule_name" in str(error):
          raise _taken(str(update.name), job["name"]) from error
        raise
    await restart_intervals(connection, id)
    return await get_schedule(connection, id)


async def _check(connection: Connection, schedule: Schedule, job_name: str) -> None:
  """Raise an error that names the field unless a schedule could be as it is wanted."""
  fields = [field.name for field in attrs.fields(ScheduleForCreate)]
  try:
    ScheduleForCreate(**{name: getattr(schedule, name) for name in fields})
  except FieldError as error:
    raise ProtocolError([(f"$.{error.field}", error.message)]) from error
  if not is_planned(schedule):
    _check_unplanned(schedule, job_name)
    return
  timing_of(
    schedule,
    await find_calendars(connection, schedule.namespace_id, schedule.calendars),
  )


def _check_unplanned(schedule: Schedule | ScheduleForCreate, job_name: str) -> None:
  """Raise ScheduleError unless a schedule could be that has no times of its own."""
  check_window(schedule)
  if schedule.after is not None and schedule.after.job == job_name:
    raise ScheduleError("a job cannot follow itself", field="after.job")


@repeated
async def set_schedule_enabled(database: Executor, id: UUID, enabled: bool) -> Schedule:
  """Switch a schedule on from now, or off with what it has planned for later.

  Raises:
    NotFound: there is no such schedule.
  """
  async with locked_schedule(database, id) as (connection, job):
    if (await get_schedule(connection, id)).enabled != enabled:
      async with replanned(connection, job["namespace_id"], [id]):
        await connection.fetch(
          _sql.switch_schedules, id=id, job_id=None, enabled=enabled
        )
    return await get_schedule(connection, id)


@repeated
async def delete_schedule(database: Executor, id: UUID) -> None:
  """Remove a schedule and what it has planned for later; claimed tasks go on.

  Not those of a daemon, which would go on for ever.

  Raises:
    NotFound: there is no such schedule.
  """
  async with locked_schedule(database, id) as (connection, job):
    now = await connection.fetchval(_sql.read_clock)
    await connection.fetch(
      _sql.delete_future_tasks, namespace_id=job["namespace_id"], ids=[id], now=now
    )
    await stop_daemon(connection, job["namespace_id"], id)
    await connection.fetch(_sql.delete_schedule, id=id)


@asynccontextmanager
async def replanned_job(connection: Connection, job: Record) -> AsyncIterator[None]:
  """Plan every schedule of a job anew, whose status changes in the block.

  Args:
    connection: in a transaction that has locked the job.
    job: with ``id`` and ``namespace_id``.

  Raises:
    Unavailable: after a long downtime there is too much to be caught up at once.
  """
  records = await connection.fetch(_sql.lock_schedules, id=None, job_id=job["id"])
  ids = [record["id"] for record in records]
  async with replanned(connection, job["namespace_id"], ids):
    yield


async def switch_schedules_off(connection: Connection, job_id: UUID) -> None:
  """Disable every schedule of a job that is being deleted."""
  await connection.fetch(_sql.switch_schedules, id=None, job_id=job_id, enabled=False)


async def wake_schedules(connection: Connection, job_id: UUID) -> None:
  """Let schedules be looked at that plan no more, perhaps because of their job.

  Args:
    connection: in a transaction that has locked the job.
    job_id: whose configuration has changed.
  """
  await connection.fetch(_sql.wake_schedules, job_id=job_id)
  await connection.fetch(_sql.notify_schedules)


@asynccontextmanager
async def locked_schedule(
  database: Executor, id: UUID, calendars: Sequence[ScheduleCalendar] = ()
) -> AsyncIterator[tuple[Connection, Record]]:
  """Open a transaction that holds a schedule, and before it its job and some calendars.

  Those come first everywhere, so that no two editors wait for each other.

  Args:
    database: where.
    id: of the schedule.
    calendars: that it is to heed.

  Returns:
    The connection, and the job with ``id``, ``namespace_id``, ``name`` and ``status``.

  Raises:
    NotFound: there is no such schedule.
  """
  job_id = await database.fetchval(_sql.find_job, id=id)
  async with database.transaction() as connection:
    job = await connection.fetchrow(_sql.share_job, id=job_id)
    if job is not None:
      await hold_calendars(connection, job["namespace_id"], calendars)
    held = await connection.fetchrow(_sql.lock_schedules, id=id, job_id=None)
    found(held, "schedule", id)
    yield connection, found(job, "job", job_id)


async def _share_job(connection: Connection, id: JobId) -> Record:
  """Hold the job that a new schedule is for."""
  job = found(await connection.fetchrow(_sql.share_job, id=id), "job", id)
  if job["status"] == JobStatus.DELETED:
    raise Conflict(f"the job {job['name']!r} is deleted")
  return job


def _complete(before: Schedule, update: ScheduleForUpdate) -> ScheduleForUpdate:
  """Let one of two times replace the other; whether it belongs there is checked later."""
  given = [name for name in _TIMES if getattr(update, name) is not UNSET]
  if before.kind is not ScheduleKind.TIME or not given:
    return update
  if len(given) > 1:
    problem = f"expected only one of {', '.join(given)}"
    raise ProtocolError([(f"$.{given[0]}", problem)])
  other: dict[str, Any] = {name: None for name in _TIMES if name not in given}
  if given == ["run_at"] and update.fixed_delay is UNSET:
    other["fixed_delay"] = False
  return attrs.evolve(update, **other)


def _given(values: dict[str, Any]) -> dict[str, Any]:
  """Read the fields that are to be set out of the pairs ``changes`` made."""
  return {name: values[name] for name in values if values.get(f"set_{name}")}


def _taken(name: str, job_name: str) -> Conflict:
  """Say that a schedule's name is taken."""
  return Conflict(f"a schedule named {name!r} already exists for job {job_name!r}")
