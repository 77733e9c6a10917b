"""How answers are printed: tables for people, JSON for programs."""

import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import click
import msgspec

from hetuflow.protocol import wire

if TYPE_CHECKING:
  from rich.console import Console

__all__ = [
  "ago",
  "console",
  "print_facts",
  "print_json",
  "print_table",
  "print_times",
  "when",
]

UNBOUNDED_WIDTH = 100_000
"""Columns of a table that no terminal shows: nothing is cut or wrapped."""


def print_json(value: object) -> None:
  """Print models or plain values as indented JSON."""
  click.echo(msgspec.json.format(wire.encode(value), indent=2))


def console() -> "Console":
  """Return where tables are printed: as wide as the terminal, else without bound."""
  from rich.console import Console

  terminal = sys.stdout.isatty()
  width = shutil.get_terminal_size().columns if terminal else UNBOUNDED_WIDTH
  return Console(
    file=sys.stdout,
    width=width,
    no_color=None if terminal else True,
    highlight=False,
    markup=False,
    emoji=False,
    soft_wrap=not terminal,
  )


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
  """Print rows below their headings; None is shown as a dash.

  Nothing is cut where the terminal is narrow: the first column, by which one names a row
  in the next command, stays on one line, the others are folded.
  """
  from rich.table import Column, Table
  from rich.text import Text

  first, *others = columns
  heads = (
    Column(first, no_wrap=True),
    *(Column(each, overflow="fold") for each in others),
  )
  table = Table(*heads, box=None, pad_edge=False, header_style="bold")
  for row in rows:
    table.add_row(*(Text(_cell(value)) for value in row))
  console().print(table)


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
  """Print names and values below each other."""
  from rich.table import Column, Table
  from rich.text import Text

  columns = (Column(no_wrap=True), Column(overflow="fold"))
  table = Table(*columns, box=None, pad_edge=False, show_header=False)
  for name, value in facts:
    table.add_row(Text(name, style="bold"), Text(_cell(value)))
  console().print(table)


def print_times(times: Sequence[datetime], timezone: str) -> None:
  """Print when something fires, by the clock of an IANA time zone."""
  zone = ZoneInfo(timezone)
  for time in times:
    click.echo(time.astimezone(zone).strftime("%a %Y-%m-%d %H:%M:%S %Z"))
  if not times:
    click.echo("never", err=True)


def _cell(value: Any) -> str:
  """Write one value as it stands in a table."""
  if value is None:
    return "-"
  if isinstance(value, datetime):
    return when(value)
  if isinstance(value, dict):
    return ", ".join(f"{name}={_cell(each)}" for name, each in value.items()) or "-"
  if isinstance(value, list | tuple):
    return ", ".join(map(_cell, value)) or "-"
  # Control characters of names and errors must not reach the terminal.
  return "".join(each if each.isprintable() else " " for each in str(value))


def when(time: datetime) -> str:
  """Write a time by the clock of this machine, to the second."""
  return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def ago(time: datetime | None, now: datetime | None = None) -> str | None:
  """Write how long ago a time was, in its greatest unit."""
  if time is None:
    return None
  seconds = ((now or datetime.now(UTC)) - time).total_seconds()
  for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
    if seconds >= size:
      return f"{seconds / size:.0f} {unit} ago"
  return f"{max(seconds, 0):.0f} s ago"
