"""Named queries from the ``.sql`` files that stand beside their modules.

A file is a sequence of::

  -- name: get_job
  -- One line that says what it is for.
  SELECT … WHERE id = $id

``$id`` is a named parameter. It becomes PostgreSQL's ``$1`` when the file is loaded; the
statement text never changes after that, so every connection prepares it once.
"""

import re
from importlib import resources
from typing import Any

import attrs

__all__ = ["Queries", "Query", "load_queries"]

_HEADER = re.compile(r"^-- name: (?P<name>\w+)$", re.M)
_PARAMETER = re.compile(r"(?<![\w$])\$(?P<name>[a-z_]\w*)")


@attrs.frozen(kw_only=True)
class Query:
  """One statement with its positional text and the names of its parameters in order."""

  name: str
  text: str
  parameters: tuple[str, ...]

  def arrange(self, values: dict[str, Any]) -> list[Any]:
    """Put named values into positional order.

    Raises:
      TypeError: a parameter is missing or unknown.
    """
    if len(values) != len(self.parameters):
      missing = set(self.parameters).symmetric_difference(values)
      raise TypeError(f"{self.name}: missing or unknown: {', '.join(sorted(missing))}")
    try:
      return [values[name] for name in self.parameters]
    except KeyError as error:
      raise TypeError(f"{self.name}: missing {error}") from None


class Queries:
  """The queries of one file, as attributes."""

  def __init__(self, queries: dict[str, Query]) -> None:
    self._queries = queries

  def __getattr__(self, name: str) -> Query:
    """Return the query of that name."""
    try:
      return self._queries[name]
    except KeyError:
      raise AttributeError(f"no query named {name!r}") from None

  def __iter__(self) -> Any:
    """Iterate over the queries in the order of the file."""
    return iter(self._queries.values())


def parse_queries(text: str) -> dict[str, Query]:
  """Split the text of a ``.sql`` file into its queries."""
  parts = _HEADER.split(text)[1:]
  queries = {}
  for name, body in zip(parts[::2], parts[1::2], strict=True):
    if name in queries:
      raise ValueError(f"two queries are named {name!r}")
    queries[name] = _parse_query(name, body)
  return queries


def _parse_query(name: str, body: str) -> Query:
  """Turn named parameters into positions, in order of first use."""
  positions: dict[str, int] = {}

  def position(match: re.Match[str]) -> str:
    """Give each name its number."""
    number = positions.setdefault(match["name"], len(positions) + 1)
    return f"${number}"

  lines = [line for line in body.splitlines() if not line.lstrip().startswith("--")]
  text = _PARAMETER.sub(position, "\n".join(lines)).strip().rstrip(";")
  return Query(name=name, text=f"/* {name} */ {text}", parameters=tuple(positions))


def load_queries(stem: str) -> Queries:
  """Load ``<stem>.sql`` of this package."""
  path = resources.files("hetuflow.storage").joinpath(f"{stem}.sql")
  return Queries(parse_queries(path.read_text(encoding="utf-8")))
