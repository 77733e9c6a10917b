"""An iCalendar file as dates (RFC 5545), read once when a calendar is made.

The days of an event are those its own wall shows: a time zone in the file is not that of
the schedules that use the calendar. ``icalendar`` reads the file, and is imported when the
first one comes (50 ms); what recurs is unrolled over the span asked for.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from attrs import field, frozen, mutable

from hetuflow.errors import ScheduleError
from hetuflow.schedule.calendar.definition import Calendar, check_shape
from hetuflow.schedule.calendar.recurrence import occurrences, parse_rule
from hetuflow.schedule.calendar.years import (
  FIRST_ORDINAL,
  LAST_ORDINAL,
  Range,
  merge_ranges,
)

if TYPE_CHECKING:
  from icalendar import Event

__all__ = ["DateJson", "import_definition", "import_ics"]

DateJson = str | dict[str, str]
"""A date, or ``{"from": date, "to": date}`` with both ends included."""

_FIELD = "definition.ics"
_LONGEST_TEXT = 1_000_000
_MOST_DAYS = 2_000_000
"""How many days are looked at before a file is refused; some seconds of work."""

_DAY = timedelta(days=1)


def import_definition(
  definition: object, *, first: date, last: date
) -> dict[str, object]:
  """Turn the definition of a calendar into the form that is kept.

  Args:
    definition: that of ``Calendar.parse``, in which ``ics`` may hold the text of an
      iCalendar file.
    first: events before it are left out.
    last: events after it are left out; what recurs for ever ends here.

  Returns:
    The same without ``ics``, whose days are among ``dates``; ``Calendar.parse`` takes it.

  Raises:
    ScheduleError: it is no such definition; names the field.
  """
  kept = dict(check_shape(definition))
  text = kept.pop("ics", None)
  if text is not None:
    own = kept.get("dates", [])
    if not isinstance(own, list):
      raise ScheduleError("expected a list of dates", field="definition.dates")
    kept["dates"] = [*own, *import_ics(text, first=first, last=last)]
  Calendar.parse(kept)
  return kept


def import_ics(text: object, *, first: date, last: date) -> list[DateJson]:
  """Return the dates of the events of an iCalendar file.

  Args:
    text: the file, at most a million characters.
    first: the first date that counts.
    last: the last date that counts.

  Returns:
    Dates and spans in order, as they stand in the definition of a calendar.

  Raises:
    ScheduleError: it is not such a file, or one that is not understood; field
      ``definition.ics``.
  """
  if not isinstance(text, str) or len(text) > _LONGEST_TEXT:
    raise ScheduleError(
      f"expected the text of an .ics file of at most {_LONGEST_TEXT} characters",
      field=_FIELD,
    )
  low = max(first.toordinal(), FIRST_ORDINAL)
  high = min(last.toordinal(), LAST_ORDINAL)
  if low > high:
    return []
  window = _Window(first=date.fromordinal(low), last=date.fromordinal(high))
  found = [
    (max(start, low), min(end, high))
    for start, end in _ranges(_read_events(text), window)
    if start <= high and end >= low
  ]
  return [_json(span) for span in merge_ranges(found)]


@mutable(kw_only=True)
class _Window:
  """The span that is looked at, and how much work is left for it."""

  first: date
  last: date
  _left: int = field(default=_MOST_DAYS, init=False)

  def spend(self, days: int) -> None:
    """Take note that days were looked at; raise ScheduleError when it is too much."""
    self._left -= days
    if self._left < 0:
      raise ScheduleError("too much recurs in it for too long", field=_FIELD)


@frozen(kw_only=True)
class _Entry:
  """One event of a file, in days.

  Args:
    uid: what a changed occurrence has in common with its event.
    start: the first day of its first occurrence.
    length: how many more days an occurrence takes.
    replaces: the day of the occurrence that this one stands for.
    cancelled: it does not take place.
    extra, missing: single occurrences more or less.
    repeats: the rules, called with the window and the length.
  """

  uid: str
  start: date
  length: int
  replaces: date | None
  cancelled: bool
  extra: frozenset[date]
  missing: frozenset[date]
  repeats: tuple[Callable[["_Window", int], Iterator[date]], ...]


def _json(span: Range) -> DateJson:
  """Return some days on end as they stand in a definition."""
  start, end = (date.fromordinal(day).isoformat() for day in span)
  return start if start == end else {"from": start, "to": end}


def _read_events(text: str) -> list[_Entry]:
  """Parse a file, or raise ScheduleError."""
  import icalendar

  try:
    calendars = icalendar.Calendar.from_ical(text, multiple=True)
    if not calendars or any(found.name != "VCALENDAR" for found in calendars):
      raise ScheduleError("expected BEGIN:VCALENDAR to END:VCALENDAR", field=_FIELD)
    events = [
      event
      for found in calendars
      for event in found.walk("VEVENT")
      if isinstance(event, icalendar.Event)
    ]
  except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
    # The library has no error of its own for what is not a calendar at all.
    raise ScheduleError(f"it is not an .ics file: {error}", field=_FIELD) from error
  return [_read_event(event) for event in events]


def _read_event(event: "Event") -> _Entry:
  """Turn one event into days, or raise ScheduleError with its name."""
  try:
    if event.errors:
      raise ValueError(" ".join(map(str, event.errors[0])))
    return _entry(event)
  except (ValueError, KeyError, AttributeError, TypeError, OverflowError) as error:
    name = event.get("SUMMARY") or event.get("UID") or "without a name"
    raise ScheduleError(f"event {str(name)[:80]!r}: {error}", field=_FIELD) from error


def _entry(event: "Event") -> _Entry:
  """Turn one event into days, or raise ValueError."""
  start, end = event.start, event.end
  for name in ("EXRULE", "RANGE"):
    if name in event or name in getattr(event.get("RECURRENCE-ID"), "params", {}):
      raise ValueError(f"{name} is not taken")
  replaces = event.get("RECURRENCE-ID")
  return _Entry(
    uid=str(event.get("UID", id(event))),
    start=_day(start, start),
    length=max((_last_day(end, start) - _day(start, start)).days, 0),
    replaces=None if replaces is None else _day(replaces.dt, start),
    cancelled=str(event.get("STATUS", "")).upper() == "CANCELLED",
    extra=_single_days(event, "RDATE", start),
    missing=_single_days(event, "EXDATE", start),
    repeats=tuple(_repeat(rule, start) for rule in _listed(event.get("RRULE"))),
  )


def _listed(value: Any) -> list[Any]:
  """Return what may stand in an event once, several times or not at all."""
  if value is None:
    return []
  return value if isinstance(value, list) else [value]


def _day(moment: object, start: date) -> date:
  """Return the date that the wall of an event shows, or raise ValueError."""
  if isinstance(moment, datetime):
    return _on_wall(moment, start).date()
  if isinstance(moment, date):
    return moment
  raise ValueError("a period is not taken")


def _on_wall(moment: datetime, start: date) -> datetime:
  """Return a moment in the time zone of the event, if both have one."""
  zone = start.tzinfo if isinstance(start, datetime) else None
  return moment.astimezone(zone) if zone and moment.tzinfo else moment


def _last_day(end: date, start: date) -> date:
  """Return the last day of an event that is over at its end."""
  if not isinstance(end, datetime):
    return end - _DAY
  return (_on_wall(end, start) - timedelta(microseconds=1)).date()


def _single_days(event: "Event", name: str, start: date) -> frozenset[date]:
  """Return the days of RDATE or EXDATE."""
  return frozenset(
    _day(item.dt, start) for listed in _listed(event.get(name)) for item in listed.dts
  )


def _repeat(rule: object, start: date) -> Callable[[_Window, int], Iterator[date]]:
  """Return what unrolls one RRULE of an event, or raise ValueError."""
  if not isinstance(rule, Mapping):
    raise ValueError("RRULE is not understood")
  parts = {str(name).upper(): _listed(values) for name, values in rule.items()}
  first_day = _day(start, start)
  parsed = parse_rule(parts, first_day)
  until = _last_start(parts["UNTIL"][0], start) if parts.get("UNTIL") else date.max

  def unroll(window: _Window, length: int) -> Iterator[date]:
    """Yield the days on which an occurrence begins."""
    return occurrences(
      parsed,
      first_day,
      first=date.fromordinal(max(window.first.toordinal() - length, 1)),
      last=min(window.last, until),
      spend=window.spend,
    )

  return unroll


def _last_start(until: object, start: date) -> date:
  """Return the last day on which an occurrence may begin under UNTIL."""
  last = _day(until, start)
  if isinstance(until, datetime) and isinstance(start, datetime):
    at = _on_wall(until, start).replace(tzinfo=None).time()
    return last - _DAY if at < start.replace(tzinfo=None).time() else last
  return last


def _ranges(entries: list[_Entry], window: _Window) -> Iterator[Range]:
  """Yield the days of all events, changed occurrences in the place of theirs."""
  replaced: dict[str, set[date]] = {}
  for entry in entries:
    if entry.replaces is not None:
      replaced.setdefault(entry.uid, set()).add(entry.replaces)
  for entry in entries:
    if entry.cancelled:
      continue
    days = {entry.start, *entry.extra}
    for repeat in entry.repeats:
      days.update(repeat(window, entry.length))
    days -= entry.missing
    if entry.replaces is None:
      days -= replaced.get(entry.uid, set())
    for day in days:
      yield day.toordinal(), day.toordinal() + entry.length
