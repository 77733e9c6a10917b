"""Options that several commands share: what a job runs, and when it is due."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import click

from hetuflow.cli.words import calendar_use, moment, pair

__all__ = [
  "calendar_option",
  "config_of",
  "config_options",
  "timing_options",
  "timings_of",
]

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

calendar_option = click.option(
  "--calendar",
  "calendars",
  type=calendar_use,
  multiple=True,
  metavar="NAME[:MODE]",
  help="Heed a calendar: exclude (default), include, next or previous.",
)
CONFIG = (
  click.option("--executor", type=click.Choice(["process", "shell", "python"])),
  click.option(
    "--env", type=pair, multiple=True, help="For the process's environment."
  ),
  click.option(
    "--label", type=pair, multiple=True, help="Only on agents that have it."
  ),
  click.option("--timeout", type=click.FloatRange(0), help="Seconds; 0 is none."),
  click.option("--retries", type=click.IntRange(0), help="How often after a failure."),
)
TIMING = (
  click.option("--cron", help="Fires by this expression."),
  click.option(
    "--every", type=click.FloatRange(1), help="Fires every so many seconds."
  ),
  click.option("--at", type=moment, help="Fires once."),
  click.option("--tz", "timezone", default="UTC", show_default=True),
  calendar_option,
)


def config_options(command: Decorated) -> Decorated:
  """Give a command the options that ``config_of`` reads."""
  for option in reversed(CONFIG):
    command = option(command)
  return command


def timing_options(command: Decorated) -> Decorated:
  """Give a command the options that ``timings_of`` reads."""
  for option in reversed(TIMING):
    command = option(command)
  return command


def config_of(
  command: tuple[str, ...],
  *,
  executor: str | None,
  env: tuple[tuple[str, str], ...],
  label: tuple[tuple[str, str], ...],
  timeout: float | None,
  retries: int | None,
) -> dict[str, Any]:
  """Return the fields of a job's ``config`` that were given, and no others."""
  given = {
    "executor": executor,
    "environment": dict(env) or None,
    "labels": dict(label) or None,
    "timeout": timeout,
    "max_retries": retries,
  }
  words = {"cmd": command[0], "args": list(command[1:])} if command else {}
  return words | {name: value for name, value in given.items() if value is not None}


def timings_of(
  *,
  cron: str | None,
  every: float | None,
  at: datetime | None,
  timezone: str,
  calendars: tuple[dict[str, str], ...],
) -> list[dict[str, Any]]:
  """Return a schedule for each time that was given."""
  return [
    {"kind": kind, field: value, "timezone": timezone, "calendars": list(calendars)}
    for kind, field, value in (
      ("cron", "cron_expression", cron),
      ("time", "interval_seconds", every),
      ("time", "run_at", at),
    )
    if value is not None
  ]
