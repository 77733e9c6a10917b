"""Calendars: named sets of dates that schedules heed."""

import attrs

from hetuflow.protocol.checks import fits_a_message, length
from hetuflow.protocol.model.ids import (
  DEFAULT_NAMESPACE,
  UNSET,
  CalendarId,
  Instant,
  JsonObject,
  NamespaceId,
  UnsetType,
)

__all__ = [
  "Calendar",
  "CalendarDays",
  "CalendarFilter",
  "CalendarForCreate",
  "CalendarForUpdate",
  "CalendarVersion",
]

MAX_ICS = 1_000_000
"""Characters of an iCalendar file."""


@attrs.frozen(kw_only=True)
class Calendar:
  """A calendar as it is read.

  A date is in it that is among ``dates`` (single ones, or spans with both ends), on a day
  of ``weekly`` or one of the public ``holidays`` of a country, and not in ``except``.
  Which moments a date is, the time zone of each schedule says.

  Example:
    {"id": "0190a8b4-7c00-7000-8000-00000000000a", "namespace_id": "default",
     "name": "closed", "description": "", "version": 1,
     "definition": {"dates": ["2026-12-24", {"from": "2026-12-27", "to": "2026-12-31"}],
       "weekly": ["sat", "sun"], "holidays": {"country": "DE", "subdivision": "BY"},
       "except": ["2026-12-28"]},
     "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}
  """

  id: CalendarId
  namespace_id: NamespaceId
  name: str
  description: str
  version: int
  definition: JsonObject
  created_at: Instant
  updated_at: Instant


@attrs.frozen(kw_only=True)
class CalendarVersion:
  """One definition that a calendar has or had.

  Example:
    {"calendar_id": "0190a8b4-7c00-7000-8000-00000000000a", "version": 1,
     "definition": {"weekly": ["sat", "sun"]}, "created_at": "2026-01-01T00:00:00Z"}
  """

  calendar_id: CalendarId
  version: int
  definition: JsonObject
  created_at: Instant


@attrs.frozen(kw_only=True)
class CalendarForCreate:
  """What a caller says of a new calendar.

  ``ics`` is the text of an iCalendar file: the days of its events, from a year ago to ten
  years ahead, are added to the ``dates`` of the definition, which may then be left out.

  Example:
    {"name": "closed", "definition": {"weekly": ["sat", "sun"]}}
  """

  namespace_id: NamespaceId = DEFAULT_NAMESPACE
  name: str = attrs.field(validator=length(1, 200))
  description: str = attrs.field(default="", validator=length(0, 10_000))
  definition: JsonObject = attrs.field(factory=dict, validator=fits_a_message)
  ics: str | None = attrs.field(default=None, validator=length(1, MAX_ICS))


@attrs.frozen(kw_only=True)
class CalendarForUpdate:
  """What may be changed of a calendar; what is left out stays, all schedules follow.

  ``definition`` is replaced whole; ``ics`` without it replaces the ``dates``. With the
  ``version`` that the caller has read, nothing is changed where there is a newer one.

  Example:
    {"definition": {"weekly": ["sun"]}, "version": 1}
  """

  description: str | UnsetType = attrs.field(default=UNSET, validator=length(0, 10_000))
  definition: JsonObject | UnsetType = attrs.field(
    default=UNSET, validator=fits_a_message
  )
  ics: str | UnsetType = attrs.field(default=UNSET, validator=length(1, MAX_ICS))
  version: int | UnsetType = UNSET


@attrs.frozen(kw_only=True)
class CalendarFilter:
  """Which calendars to list; what is None does not matter.

  Example:
    {"namespace_id": "default", "name": "closed"}
  """

  namespace_id: str | None = None
  name: str | None = None


@attrs.frozen(kw_only=True)
class CalendarDays:
  """The dates of a span that are in a calendar.

  Example:
    {"days": ["2026-12-24", "2026-12-25"]}
  """

  days: list[str]
