"""``/calendars``."""

from datetime import UTC, date, datetime, timedelta
from functools import partial
from uuid import UUID

import trio
from quart import Blueprint, Response, request

from hetuflow.errors import ProtocolError
from hetuflow.protocol.model import (
  Calendar,
  CalendarDays,
  CalendarFilter,
  CalendarForCreate,
  CalendarForUpdate,
  CalendarVersion,
  JsonObject,
)
from hetuflow.schedule import Calendar as Days
from hetuflow.server.api.exchange import (
  answer,
  created,
  no_content,
  page,
  read_body,
  read_query,
  single,
)
from hetuflow.server.api.once import create_once
from hetuflow.server.api.operation import NoFilter, operation
from hetuflow.server.api.services import services
from hetuflow.storage import calendars

__all__ = ["blueprint"]

blueprint = Blueprint("calendars", __name__)

DAYS_SHOWN = 366
"""Days from the first on that are looked at where the last one is not given."""
MAX_DAYS = 3_660
_DATE = {"type": "string", "format": "date"}


@blueprint.get("")
@operation(Calendar, filter=CalendarFilter)
async def list_calendars() -> Response:
  """List calendars, newest first."""
  paging = read_query(CalendarFilter)
  found = await calendars.query_calendars(
    services().database, paging.filter, limit=paging.limit + 1, cursor=paging.after
  )
  return page(found, paging.limit)


@blueprint.post("")
@operation(Calendar, status=201, body=CalendarForCreate, once=True)
async def create_calendar() -> Response:
  """Make a calendar, of a definition or of an iCalendar file."""
  wish = await read_body(CalendarForCreate)
  made = await create_once(lambda executor: calendars.create_calendar(executor, wish))
  return created(made, f"calendars/{made['id']}")


@blueprint.get("/<uuid:calendar_id>")
@operation(Calendar)
async def get_calendar(calendar_id: UUID) -> Response:
  """Read a calendar."""
  return answer(await calendars.get_calendar(services().database, calendar_id))


@blueprint.patch("/<uuid:calendar_id>")
@operation(Calendar, body=CalendarForUpdate)
async def update_calendar(calendar_id: UUID) -> Response:
  """Change a calendar; what its schedules have planned for later is planned anew."""
  update = await read_body(CalendarForUpdate)
  changed = await calendars.update_calendar(services().database, calendar_id, update)
  services().wake("schedules", changed.namespace_id)
  return answer(changed)


@blueprint.delete("/<uuid:calendar_id>")
@operation(status=204)
async def delete_calendar(calendar_id: UUID) -> Response:
  """Remove a calendar that no schedule heeds."""
  await calendars.delete_calendar(services().database, calendar_id)
  return no_content()


@blueprint.get("/<uuid:calendar_id>/versions")
@operation(CalendarVersion, filter=NoFilter)
async def list_calendar_versions(calendar_id: UUID) -> Response:
  """List the definitions a calendar ever had, newest first."""
  paging = read_query(NoFilter)
  found = await calendars.query_calendar_versions(
    services().database,
    calendar_id,
    limit=paging.limit + 1,
    cursor=paging.after_version,
  )
  return page(found, paging.limit, lambda version: version.version)


@blueprint.get("/<uuid:calendar_id>/days")
@operation(CalendarDays, query={"from": _DATE, "to": _DATE})
async def list_calendar_days(calendar_id: UUID) -> Response:
  """List the dates that are in a calendar, from today or ``from``, up to and with ``to``.

  Without ``to`` a year is looked at; ten years at most.
  """
  for name in request.args:
    if name not in ("from", "to"):
      raise ProtocolError([(f"$.{name}", "unknown key")])
  first = _read_date("from", datetime.now(UTC).date())
  last = _read_date("to", min(first, _LAST_FIRST) + timedelta(days=DAYS_SHOWN - 1))
  if not 0 <= (last - first).days < MAX_DAYS:
    raise ProtocolError([("$.to", f"expected at most {MAX_DAYS} days from `from` on")])
  found = await calendars.get_calendar(services().database, calendar_id)
  days = await trio.to_thread.run_sync(
    partial(_days_in, found.definition, first=first, last=last)
  )
  return answer(CalendarDays(days=days))


_LAST_FIRST = date.max - timedelta(days=DAYS_SHOWN)


def _read_date(name: str, otherwise: date) -> date:
  """Read a date of the query."""
  if name not in request.args:
    return otherwise
  try:
    return datetime.strptime(single(name), "%Y-%m-%d").replace(tzinfo=UTC).date()
  except ValueError:
    raise ProtocolError([(f"$.{name}", "expected a date such as 2026-12-24")]) from None


def _days_in(definition: JsonObject, *, first: date, last: date) -> list[str]:
  """List the dates of a span that a definition contains."""
  days = Days.parse(definition)
  span = range(first.toordinal(), last.toordinal() + 1)
  return [day.isoformat() for day in map(date.fromordinal, span) if days.contains(day)]
