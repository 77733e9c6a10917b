"""``hetuflow what-if``: the load to come, with schedules that are only thought of."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from hetuflow.cli import show
from hetuflow.cli.documents import read_document
from hetuflow.cli.find import find_schedule
from hetuflow.cli.session import Command, Session, json_option, pass_session
from hetuflow.cli.words import moment
from hetuflow.client.calls import schedules as calls
from hetuflow.errors import SettingsError
from hetuflow.protocol import wire
from hetuflow.protocol.model import (
  Forecast,
  ForecastClockChange,
  ForecastHour,
  ForecastSchedule,
  WhatIf,
)

__all__ = ["what_if"]

BAR_WIDTH = 40
MOST_BARS = 48
"""Of longer spans several hours share a bar."""
MOST_DAYS_NAMED = 5


@click.command("what-if", cls=Command)
@click.option(
  "--days", type=click.FloatRange(0.01, 100), default=7.0, show_default=True
)
@click.option("--from", "start", type=moment, help="The hour of now by default.")
@click.option(
  "--file",
  type=click.Path(exists=True, dir_okay=False, path_type=Path),
  help='Proposed schedules, as {"schedules": [...]} in JSON or TOML.',
)
@click.option("--without", multiple=True, help="Leave a schedule out.")
@click.option(
  "--durations",
  type=click.Choice(["median", "p95"]),
  default="median",
  show_default=True,
)
@click.option("--limit", type=click.IntRange(1, 1_000), default=20, show_default=True)
@click.option("--all-namespaces", is_flag=True, help="Not only those of the namespace.")
@json_option
@pass_session
def what_if(
  session: Session,
  /,
  days: float,
  start: datetime | None,
  file: Path | None,
  without: tuple[str, ...],
  durations: str,
  limit: int,
  all_namespaces: bool,
  as_json: bool,
) -> None:
  """Foresee the load of all schedules, with some more of them or without some."""
  question = {
    "days": days,
    "start_at": start,
    "namespace_id": None if all_namespaces else session.here,
    "schedules": [] if file is None else _proposals(file, session.here),
    "without": [find_schedule(session, name).id for name in without],
    "durations": durations,
    "limit": limit,
  }
  found = session.send(calls.foresee_load(wire.load(WhatIf, question, strict=True)))
  if as_json:
    show.print_json(found)
  else:
    _print(found)


def _proposals(file: Path, namespace_id: str) -> list[Any]:
  """Read proposed schedules; those that name no namespace are in the one of the call."""
  body = read_document(file, '{"schedules": [...]}')
  if set(body) != {"schedules"} or not isinstance(body["schedules"], list):
    raise SettingsError(f'{file}: expected {{"schedules": [...]}}')
  return [
    {"namespace_id": namespace_id} | each if isinstance(each, dict) else each
    for each in body["schedules"]
  ]


def _print(found: Forecast) -> None:
  """Print a forecast for people."""
  peak = found.peak
  at = "" if peak.at is None else f" at {show.when(peak.at)}"
  click.echo(
    f"{show.when(found.start_at)} to {show.when(found.end_at)}: "
    f"{found.fires} planned times, at most {peak.concurrency} at once{at}"
  )
  if found.fires:
    _print_bars(found.hours)
  if found.schedules:
    click.echo()
    _print_schedules(found.schedules)
  if found.left_off:
    click.echo(f"and {found.left_off} more schedules", err=True)
  for each in found.schedules:
    _print_days(each)
  for change in found.clock_changes:
    _print_change(change)
  for name in found.unusable:
    click.echo(f"plans nothing: {name}", err=True)


def _print_bars(hours: Sequence[ForecastHour]) -> None:
  """Print a bar for each hour, or for some hours on end: how many run at most."""
  size = -(-len(hours) // MOST_BARS)
  groups = [hours[at : at + size] for at in range(0, len(hours), size)]
  peaks = [max(hour.peak for hour in group) for group in groups]
  highest = max(*peaks, 1)
  click.echo()
  show.print_table(
    ("FROM", "FIRES", "MEAN", "PEAK", ""),
    (
      (
        f"{group[0].at.astimezone():%a %d %b %H:%M}",
        *(sum(hour.fires for hour in group),),
        *(f"{sum(hour.mean for hour in group) / len(group):.2f}", peak),
        "█" * round(BAR_WIDTH * peak / highest),
      )
      for group, peak in zip(groups, peaks, strict=True)
    ),
  )


def _print_schedules(schedules: Iterable[ForecastSchedule]) -> None:
  """Print what becomes of the tasks of each schedule."""
  show.print_table(
    ("SCHEDULE", "JOB", "FIRES", "TAKES", "STARTED", "TROUBLE"),
    (
      (
        f"{each.name}{' (proposed)' if each.proposed else ''}",
        *(each.job_name, f"{each.fires}{' (steady)' if each.steady else ''}"),
        f"{each.duration:.3g} s{'' if each.measured else ' (assumed)'}",
        *(each.started, _trouble(each)),
      )
      for each in schedules
    ),
  )


def _trouble(each: ForecastSchedule) -> str | None:
  """Say in a few words what does not go as planned."""
  words = [
    f"{count} {noun}"
    for count, noun in (
      (each.skipped, "skipped"),
      (each.replaced, "replaced"),
      (each.missed, "missed"),
      (each.waiting, "waiting at the end"),
    )
    if count
  ]
  if each.longest_wait:
    words.append(f"waits up to {each.longest_wait:.0f} s")
  if each.grows:
    words.append("its queue never drains")
  return ", ".join(words) or None


def _print_days(each: ForecastSchedule) -> None:
  """Tell what calendars do to a schedule."""
  moved = [f"{day.from_date} to {day.to_date}" for day in each.moved]
  for verb, days in (("moves", moved), ("leaves out", each.dropped)):
    if days:
      more = len(days) - MOST_DAYS_NAMED
      rest = f" and {more} more" if more > 0 else ""
      click.echo(f"{each.name} {verb} {', '.join(days[:MOST_DAYS_NAMED])}{rest}")


def _print_change(change: ForecastClockChange) -> None:
  """Tell what a change of the clock does."""
  way = "forward" if change.kind == "gap" else "back"
  click.echo(
    f"{change.timezone}: the clock goes {way} by {change.seconds // 60} min"
    f" at {show.when(change.at)}"
  )
  for each in change.schedules:
    words = [
      f"{count} {noun}"
      for count, noun in (
        (each.moved, "moved"),
        (each.skipped, "skipped"),
        (each.doubled, "doubled"),
      )
      if count
    ]
    click.echo(f"  {each.name}: {', '.join(words)}")
  if change.left_off:
    click.echo(f"  and {change.left_off} more schedules")
