"""Calendars: create, get, query, update, delete, and their versions.

A calendar and what its schedules have planned change together: in one transaction the
calendar, the jobs and the schedules that heed it are locked in this order, what was due
by the old days stays, and what is later is planned by the new ones.
"""

from datetime import date, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import trio

from hetuflow.errors import Conflict, ProtocolError, ScheduleError
from hetuflow.protocol.model import (
  UNSET,
  Calendar,
  CalendarFilter,
  CalendarForCreate,
  CalendarForUpdate,
  CalendarVersion,
  JsonObject,
  UnsetType,
  new_id,
)
from hetuflow.schedule import import_definition
from hetuflow.storage.connect import Connection, Record
from hetuflow.storage.namespaces import share_namespace
from hetuflow.storage.replan import replanned
from hetuflow.storage.rows import Executor, criteria, found, from_row, repeated
from hetuflow.storage.sql import load_queries

__all__ = [
  "create_calendar",
  "delete_calendar",
  "get_calendar",
  "query_calendar_versions",
  "query_calendars",
  "update_calendar",
]

_sql = load_queries("calendars")

IMPORTED_PAST = timedelta(days=366)
IMPORTED_AHEAD = timedelta(days=3_660)
"""How far the events of an iCalendar file are followed before and after today."""
NAMED_USERS = 10
"""So many of the schedules that heed a calendar are named to who would delete it."""


async def create_calendar(database: Executor, wish: CalendarForCreate) -> Calendar:
  """Make a calendar with its first version.

  Raises:
    ProtocolError: the definition or file is none; names the path.
    NotFound: there is no such namespace.
    Conflict: the name is taken in the namespace.
  """
  definition = await _import(database, wish.definition, wish.ics)
  async with database.transaction() as connection:
    await share_namespace(connection, wish.namespace_id)
    record = await connection.fetchrow(
      _sql.insert_calendar,
      id=new_id(),
      namespace_id=wish.namespace_id,
      name=wish.name,
      description=wish.description,
      definition=definition,
    )
  if record is None:
    raise Conflict(
      f"a calendar {wish.name!r} already exists in namespace {wish.namespace_id!r}"
    )
  return from_row(Calendar, record)


async def get_calendar(database: Executor, id: UUID) -> Calendar:
  """Read one calendar.

  Raises:
    NotFound: there is no such calendar.
  """
  record = await database.fetchrow(_sql.select_calendar, id=id)
  return from_row(Calendar, found(record, "calendar", id))


async def query_calendars(
  database: Executor, filter: CalendarFilter, *, limit: int, cursor: UUID | None = None
) -> list[Calendar]:
  """Read a page of calendars, newest first.

  Args:
    database: where.
    filter: which.
    limit: how many at most.
    cursor: the id after which the page begins.
  """
  records = await database.fetch(
    _sql.list_calendars, **criteria(filter), limit=limit, cursor=cursor
  )
  return [from_row(Calendar, record) for record in records]


async def query_calendar_versions(
  database: Executor, id: UUID, *, limit: int, cursor: int | None = None
) -> list[CalendarVersion]:
  """Read a page of a calendar's definitions, newest first.

  Args:
    database: where.
    id: of the calendar.
    limit: how many at most.
    cursor: the version after which the page begins.

  Raises:
    NotFound: there is no such calendar.
  """
  found(await database.fetchrow(_sql.select_calendar, id=id), "calendar", id)
  records = await database.fetch(
    _sql.list_versions, calendar_id=id, limit=limit, cursor=cursor
  )
  return [from_row(CalendarVersion, record) for record in records]


@repeated
async def update_calendar(
  database: Executor, id: UUID, update: CalendarForUpdate
) -> Calendar:
  """Change a calendar; with other days its schedules are planned anew.

  Raises:
    ProtocolError: the definition or file is none; names the path.
    NotFound: there is no such calendar.
    Conflict: it has another version by now.
    Unavailable: after a long downtime its schedules have too much to catch up.
  """
  # Reading a file may take long: it is done before anything is locked.
  imported = await _imported(database, update)
  async with database.transaction() as connection:
    record = await connection.fetchrow(_sql.lock_calendar, id=id)
    row = found(record, "calendar", id)
    if update.version not in (UNSET, row["version"]):
      raise Conflict(
        f"the calendar {row['name']!r} is at version {row['version']} by now,"
        f" not {update.version}; read it and change that"
      )
    kept = row["definition"] if update.definition is UNSET else {}
    description = update.description
    if isinstance(description, UnsetType):
      description = row["description"]
    return await _change(connection, row, description, kept | imported)


async def _imported(database: Executor, update: CalendarForUpdate) -> JsonObject:
  """Return what an update sets of a definition, checked; nothing where it sets none."""
  ics = None if isinstance(update.ics, UnsetType) else update.ics
  if not isinstance(update.definition, UnsetType):
    return await _import(database, update.definition, ics)
  return {} if ics is None else await _import(database, {}, ics)


async def _import(
  database: Executor, definition: JsonObject, ics: str | None
) -> JsonObject:
  """Check a definition, and put the days of an iCalendar file into it."""
  if ics is not None and "ics" in definition:
    raise ProtocolError([("$.ics", "expected none: it stands in the definition")])
  wish = definition if ics is None else {**definition, "ics": ics}
  today: date = await database.fetchval(_sql.read_today)
  try:
    return await trio.to_thread.run_sync(
      partial(
        import_definition,
        wish,
        first=today - IMPORTED_PAST,
        last=today + IMPORTED_AHEAD,
      )
    )
  except ScheduleError as error:
    at_ics = ics is not None and error.field == "definition.ics"
    path = "$.ics" if at_ics else f"$.{error.field}"
    raise ProtocolError([(path, str(error))]) from error


async def _change(
  connection: Connection, row: Record, description: str, definition: JsonObject
) -> Calendar:
  """Write a locked calendar; other days make a new version and new plans."""
  values: dict[str, Any] = {"description": description, "definition": definition}
  if definition == row["definition"]:
    return await _write(connection, row, version=row["version"], **values)
  user = {"namespace_id": row["namespace_id"], "name": row["name"]}
  await connection.fetch(_sql.share_jobs_of_users, **user)
  ids = [held["id"] for held in await connection.fetch(_sql.lock_users, **user)]
  version = row["version"] + 1
  async with replanned(connection, row["namespace_id"], ids):
    changed = await _write(connection, row, version=version, **values)
    await connection.fetch(
      _sql.insert_version,
      calendar_id=row["id"],
      version=version,
      definition=definition,
    )
  return changed


async def _write(connection: Connection, row: Record, **values: Any) -> Calendar:
  """Write the columns of a calendar that change."""
  record = await connection.fetchrow(_sql.update_calendar, id=row["id"], **values)
  return from_row(Calendar, found(record, "calendar", row["id"]))


@repeated
async def delete_calendar(database: Executor, id: UUID) -> None:
  """Remove a calendar with its versions.

  Raises:
    NotFound: there is no such calendar.
    Conflict: schedules heed it; names some of them.
  """
  async with database.transaction() as connection:
    record = await connection.fetchrow(_sql.lock_calendar, id=id)
    row = found(record, "calendar", id)
    users = await connection.fetch(
      _sql.list_users,
      namespace_id=row["namespace_id"],
      name=row["name"],
      limit=NAMED_USERS + 1,
    )
    if users:
      names = [f"{each['name']!r} of {each['job_name']!r}" for each in users]
      more = ", …" if len(names) > NAMED_USERS else ""
      raise Conflict(
        f"schedules heed the calendar {row['name']!r}: "
        f"{', '.join(names[:NAMED_USERS])}{more}"
      )
    await connection.fetch(_sql.delete_calendar, id=id)
