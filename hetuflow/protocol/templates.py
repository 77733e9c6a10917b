"""Templates: ``{{ parameters.x }}`` in a text becomes what the task's parameter says."""

import re
from typing import Any

from hetuflow.protocol import wire
from hetuflow.protocol.model import JsonObject

__all__ = ["MissingParameter", "as_text", "fill"]

_PLACE = re.compile(r"\{\{\s*parameters\.([^\s{}]+)\s*\}\}")


class MissingParameter(LookupError):
  """A template names a parameter that the task does not have.

  Args:
    name: as the template spells it.
  """

  def __init__(self, name: str) -> None:
    self.name = name
    super().__init__(f"a template needs the parameter {name!r}, which is missing")


def fill(template: str, parameters: JsonObject, *, missing: str | None = None) -> str:
  """Replace each ``{{ parameters.x }}``; a dot leads into an object.

  Args:
    template: any text; other braces stay as they are.
    parameters: those of the task; strings go in as they are, the rest as JSON.
    missing: what stands for a parameter that is missing; None raises.

  Raises:
    MissingParameter: a parameter is missing and nothing stands for it.
  """

  def text(match: re.Match[str]) -> str:
    """Return what takes the place of one parameter."""
    try:
      return as_text(_look_up(match[1], parameters))
    except MissingParameter:
      if missing is None:
        raise
      return missing

  return _PLACE.sub(text, template)


def as_text(value: Any) -> str:
  """Return a string as it is and anything else as JSON."""
  return value if isinstance(value, str) else wire.encode(value).decode()


def _look_up(name: str, parameters: JsonObject) -> Any:
  """Find a parameter by its name, or by a path of names."""
  if name in parameters:
    return parameters[name]
  value: Any = parameters
  for part in name.split("."):
    if not isinstance(value, dict) or part not in value:
      raise MissingParameter(name)
    value = value[part]
  return value
