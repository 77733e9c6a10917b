"""Calendars: named sets of dates that schedules heed."""

from datetime import date
from typing import Any
from uuid import UUID

from hetuflow.client.call import Call, Page, delete, get, listing, patch, post
from hetuflow.protocol.model import (
  Calendar,
  CalendarDays,
  CalendarForCreate,
  CalendarForUpdate,
  CalendarVersion,
)

__all__ = [
  "create_calendar",
  "delete_calendar",
  "get_calendar",
  "list_calendar_days",
  "list_calendar_versions",
  "list_calendars",
  "update_calendar",
]


def list_calendars(
  *,
  namespace_id: str | None = None,
  name: str | None = None,
  limit: int | None = None,
) -> Call[Page[Calendar]]:
  """Describe the list of calendars, filtered by what is given."""
  query = {"namespace_id": namespace_id, "name": name, "limit": limit}
  return listing(Calendar, "calendars", query=query)


def get_calendar(calendar_id: UUID) -> Call[Calendar]:
  """Describe the reading of one calendar."""
  return get(Calendar, "calendars", calendar_id)


def create_calendar(
  calendar: CalendarForCreate | dict[str, Any], *, idempotency_key: str | None = None
) -> Call[Calendar]:
  """Describe the making of a calendar."""
  return post(Calendar, "calendars", body=calendar, key=idempotency_key)


def update_calendar(
  calendar_id: UUID, change: CalendarForUpdate | dict[str, Any]
) -> Call[Calendar]:
  """Describe a change of a calendar; the schedules that heed it are planned anew."""
  return patch(Calendar, "calendars", calendar_id, body=change)


def delete_calendar(calendar_id: UUID) -> Call[None]:
  """Describe the end of a calendar that no schedule heeds."""
  return delete("calendars", calendar_id)


def list_calendar_versions(calendar_id: UUID) -> Call[Page[CalendarVersion]]:
  """Describe the list of a calendar's definitions."""
  return listing(CalendarVersion, "calendars", calendar_id, "versions", query={})


def list_calendar_days(
  calendar_id: UUID, *, first: date | None = None, last: date | None = None
) -> Call[CalendarDays]:
  """Describe the list of the dates in a calendar; a year from today is meant otherwise."""
  span = {
    "from": first and first.isoformat(),
    "to": last and last.isoformat(),
  }
  return get(CalendarDays, "calendars", calendar_id, "days", **span)
