"""A calendar: a set of dates, from a definition to the answer whether a date is in it.

The dates are those of the wall in the time zone of the schedule that uses the calendar;
the calendar itself knows none.
"""

import re
from collections.abc import Mapping
from datetime import date

from attrs import field, frozen

from hetuflow.errors import ScheduleError
from hetuflow.schedule.calendar.holidays import PublicHolidays
from hetuflow.schedule.calendar.years import (
  FIRST_ORDINAL,
  LAST_ORDINAL,
  Range,
  locate,
  mask_of_ranges,
  mask_of_weekdays,
  merge_ranges,
)
from hetuflow.schedule.fields import FIRST_YEAR, LAST_YEAR

__all__ = ["Calendar", "check_shape"]

_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_KEYS = ("dates", "weekly", "holidays", "except")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MOST_ENTRIES = 20_000


@frozen(kw_only=True, cache_hash=True)
class Calendar:
  """A set of dates; make it with ``Calendar.parse``.

  Args:
    dates: single days and spans.
    weekly: days of the week, Sunday 0.
    holidays: the public holidays of a country.
    exceptions: days that are not in the set whatever the others say.
  """

  dates: tuple[Range, ...] = ()
  weekly: frozenset[int] = frozenset()
  holidays: PublicHolidays | None = None
  exceptions: tuple[Range, ...] = ()
  _years: dict[int, int] = field(factory=dict, init=False, eq=False, repr=False)

  @staticmethod
  def parse(definition: object) -> "Calendar":
    """Read a definition.

    Args:
      definition: ``{"dates": ["2026-12-24", {"from": "2026-12-27", "to": "2026-12-31"}],
        "weekly": ["sat", "sun"], "holidays": {"country": "DE", "subdivision": "BY",
        "categories": ["public"]}, "except": [like dates]}`` as decoded JSON; every key
        may be left out, but not all of the first three. ``ics`` is refused here: it is
        for ``import_definition``.

    Raises:
      ScheduleError: with a field such as ``definition.dates[1].to``.
    """
    shape = check_shape(definition)
    if "ics" in shape:
      raise ScheduleError("expected dates: import it first", field="definition.ics")
    holidays = shape.get("holidays")
    return Calendar(
      dates=_read_dates(shape.get("dates", []), "definition.dates"),
      weekly=_read_weekly(shape.get("weekly", [])),
      holidays=None if holidays is None else PublicHolidays.parse(holidays),
      exceptions=_read_dates(shape.get("except", []), "definition.except"),
    )

  def contains(self, day: date) -> bool:
    """Tell whether a date is in the set; none before 1970 or after 2199 is."""
    ordinal = day.toordinal()
    if not FIRST_ORDINAL <= ordinal <= LAST_ORDINAL:
      return False
    year, bit = locate(ordinal)
    return bool(self.year(year) >> bit & 1)

  def year(self, year: int) -> int:
    """Return the days of a year from 1970 to 2199 that are in the set.

    Returns:
      A number of which bit ``n`` is set for the day n days after 1 January.
    """
    mask = self._years.get(year)
    if mask is None:
      mask = mask_of_ranges(self.dates, year) | mask_of_weekdays(self.weekly, year)
      if self.holidays is not None:
        mask |= self.holidays.year(year)
      mask &= ~mask_of_ranges(self.exceptions, year)
      self._years[year] = mask
    return mask


def check_shape(definition: object) -> Mapping[str, object]:
  """Return a definition as an object of known keys, or raise ScheduleError."""
  if not isinstance(definition, Mapping):
    raise ScheduleError("expected an object", field="definition")
  for key in definition:
    if key not in (*_KEYS, "ics"):
      raise ScheduleError(
        f"unknown key; allowed: {', '.join(_KEYS)}, ics", field=f"definition.{key}"
      )
  if not set(definition) - {"except"}:
    raise ScheduleError(
      "expected at least one of dates, weekly, holidays and ics", field="definition"
    )
  return definition


def _read_weekly(value: object) -> frozenset[int]:
  """Return days of the week by their numbers, or raise ScheduleError."""
  if not isinstance(value, list):
    raise ScheduleError("expected a list of days", field="definition.weekly")
  for place, name in enumerate(value):
    if name not in _WEEKDAYS:
      raise ScheduleError(
        f"expected one of {', '.join(_WEEKDAYS)}", field=f"definition.weekly[{place}]"
      )
  return frozenset(_WEEKDAYS.index(name) for name in value)


def _read_dates(value: object, path: str) -> tuple[Range, ...]:
  """Return a list of days and spans, merged, or raise ScheduleError."""
  if not isinstance(value, list) or len(value) > _MOST_ENTRIES:
    raise ScheduleError(f"expected a list of at most {_MOST_ENTRIES} dates", field=path)
  return merge_ranges(
    [_read_range(entry, f"{path}[{place}]") for place, entry in enumerate(value)]
  )


def _read_range(entry: object, path: str) -> Range:
  """Return one day or span, or raise ScheduleError."""
  if not isinstance(entry, Mapping):
    day = _read_date(entry, path)
    return day, day
  if set(entry) != {"from", "to"}:
    raise ScheduleError('expected a date or {"from": date, "to": date}', field=path)
  first = _read_date(entry["from"], f"{path}.from")
  last = _read_date(entry["to"], f"{path}.to")
  if last < first:
    raise ScheduleError("expected a date not before from", field=f"{path}.to")
  return first, last


def _read_date(value: object, path: str) -> int:
  """Return the ordinal of a date such as 2026-12-24, or raise ScheduleError."""
  if isinstance(value, str) and _DATE.fullmatch(value):
    try:
      day = date.fromisoformat(value)
    except ValueError:
      pass
    else:
      if FIRST_YEAR <= day.year <= LAST_YEAR:
        return day.toordinal()
  raise ScheduleError(
    f"expected a date such as 2026-12-24, from {FIRST_YEAR} to {LAST_YEAR}", field=path
  )
