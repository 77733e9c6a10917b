"""What people write on the command line, parsed: pairs, times."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click

__all__ = ["calendar_use", "moment", "pair", "parameters_of"]

CALENDAR_MODES = ("include", "exclude", "next", "previous")


def pair(value: str) -> tuple[str, str]:
  """Cut ``name=value`` at the first equals sign.

  Raises:
    BadParameter: there is no name or no equals sign.
  """
  name, sign, rest = value.partition("=")
  if not name or not sign:
    raise click.BadParameter(f"{value!r}: expected NAME=VALUE")
  return name, rest


def calendar_use(value: str) -> dict[str, str]:
  """Read ``name`` or ``name:mode``: what a calendar means to a schedule."""
  name, colon, mode = value.rpartition(":")
  if colon and mode in CALENDAR_MODES:
    return {"name": name, "mode": mode}
  return {"name": value, "mode": "exclude"}


def moment(value: str) -> datetime:
  """Read a time in ISO 8601; without an offset it is by the clock of this machine.

  Raises:
    BadParameter: it is no time.
  """
  try:
    return datetime.fromisoformat(value).astimezone()
  except (ValueError, OverflowError):
    raise click.BadParameter(
      f"{value!r}: expected a time such as 2026-01-31T14:00"
    ) from None


def parameters_of(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
  """Read the parameters of a task: JSON where a value is JSON, else text."""
  return {name: _value(text) for name, text in pairs}


def _value(text: str) -> Any:
  """Read one value: ``3``, ``true`` and ``{"a": 1}`` are JSON, ``monday`` is text."""
  try:
    return json.loads(text, parse_constant=_refuse)
  except (ValueError, RecursionError):
    return text


def _refuse(word: str) -> Any:
  """Leave NaN and Infinity, which JSON does not know, as text."""
  raise ValueError(word)
