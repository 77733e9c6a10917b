"""Public holidays, as far as the ``holidays`` library knows them.

The library is imported when the first calendar asks for it (40 ms). What it says of a
year it knows nothing of is that there are no holidays. Two servers agree on holidays as
long as they have the same version of it.
"""

import warnings
from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from types import ModuleType
from typing import Any

from attrs import frozen

from hetuflow.errors import ScheduleError

__all__ = ["PublicHolidays"]

_FIELD = "definition.holidays"


@frozen(kw_only=True)
class PublicHolidays:
  """The holidays of one country; make it with ``PublicHolidays.parse``.

  Args:
    country: its code of ISO 3166-1, two capital letters.
    subdivision: a part of it, such as the state; None leaves out what only parts have.
    categories: of the library, such as ``bank``; empty for the country's usual one.
  """

  country: str
  subdivision: str | None
  categories: tuple[str, ...]

  @staticmethod
  def parse(wish: object) -> "PublicHolidays":
    """Read ``{"country": ..., "subdivision": ..., "categories": [...]}``.

    Raises:
      ScheduleError: not such an object, or unknown to the library; names the field.
    """
    known = {"country", "subdivision", "categories"}
    if not isinstance(wish, Mapping) or not isinstance(wish.get("country"), str):
      raise ScheduleError(
        'expected {"country": "DE", "subdivision": "BY" or null}', field=_FIELD
      )
    for name in wish:
      if name not in known:
        raise ScheduleError("unknown key", field=f"{_FIELD}.{name}")
    found = PublicHolidays(
      country=wish["country"],
      subdivision=_text_or_none(wish.get("subdivision")),
      categories=_texts(wish.get("categories")),
    )
    _check_known(found)
    return found

  def year(self, year: int) -> int:
    """Return the holidays of a year as a set of its days."""
    return _mask(self, year)


def _text_or_none(value: object) -> str | None:
  """Return a subdivision, or raise ScheduleError."""
  if value is None or isinstance(value, str):
    return value
  raise ScheduleError("expected text or null", field=f"{_FIELD}.subdivision")


def _texts(value: object) -> tuple[str, ...]:
  """Return categories in order and each once, or raise ScheduleError."""
  if value is None:
    return ()
  if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
    raise ScheduleError("expected a list of texts", field=f"{_FIELD}.categories")
  return tuple(sorted(set(value)))


def _library() -> ModuleType:
  """Return the library, imported now if it was not before."""
  import holidays

  return holidays


def _check_known(wish: PublicHolidays) -> None:
  """Raise ScheduleError unless the library knows country, part and categories."""
  # The library finds an entity by attribute, so that odd texts would reach other things.
  countries: Mapping[str, Any] = _library().list_supported_countries(
    include_aliases=True
  )
  if wish.country not in countries:
    raise ScheduleError(
      f"no holidays are known for {wish.country!r}; expected a country such as DE",
      field=f"{_FIELD}.country",
    )
  entity = getattr(_library(), wish.country)
  parts = (*entity.subdivisions, *entity.subdivisions_aliases)
  if wish.subdivision is not None and wish.subdivision not in parts:
    raise ScheduleError(
      f"{wish.country} has no part {wish.subdivision!r}; "
      f"allowed: {', '.join(parts) or 'none'}",
      field=f"{_FIELD}.subdivision",
    )
  for category in wish.categories:
    if category not in entity.supported_categories:
      raise ScheduleError(
        f"{wish.country} has no category {category!r}; "
        f"allowed: {', '.join(entity.supported_categories)}",
        field=f"{_FIELD}.categories",
      )


@lru_cache(maxsize=16_384)
def _mask(wish: PublicHolidays, year: int) -> int:
  """Ask the library for one year."""
  with warnings.catch_warnings():
    # It warns of years beyond its tables; the promise above says what comes of that.
    warnings.simplefilter("ignore")
    found = _library().country_holidays(
      wish.country,
      subdiv=wish.subdivision,
      years=year,
      categories=wish.categories or None,
      expand=False,
    )
  start = date(year, 1, 1).toordinal()
  return sum({1 << day.toordinal() - start for day in found if day.year == year})
