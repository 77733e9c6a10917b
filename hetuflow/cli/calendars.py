"""``hetuflow calendars``: days that schedules heed."""

from collections import defaultdict
from datetime import date, datetime
from pathlib import Path
from typing import Any

import click

from hetuflow.cli import show
from hetuflow.cli.documents import read_document
from hetuflow.cli.find import find_calendar
from hetuflow.cli.session import Session, group, json_option, pass_session
from hetuflow.client.calls import calendars as calls
from hetuflow.errors import SettingsError
from hetuflow.protocol import wire
from hetuflow.protocol.model import CalendarForCreate, CalendarForUpdate

__all__ = ["calendars"]

WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
DAY = click.DateTime(["%Y-%m-%d"])
NAME = click.argument("name", metavar="CALENDAR")
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
DEFINITION = (
  click.option("--date", "dates", multiple=True, help="A day, or FROM..TO."),
  click.option(
    "--weekly", multiple=True, type=click.Choice(WEEKDAYS), help="Each such day."
  ),
  click.option("--holidays", metavar="COUNTRY[-PART]", help="Such as DE or DE-BY."),
  click.option("--except", "exceptions", multiple=True, help="A day, or FROM..TO."),
  click.option("--ics", type=FILE, help="Days of an iCalendar file."),
  click.option("--file", type=FILE, help="A definition as JSON or TOML."),
)


@group("calendars")
def calendars() -> None:
  """Look after calendars: days that schedules heed."""


def _definition_options(command: Any) -> Any:
  """Give a command the options that ``_definition_of`` reads."""
  for option in reversed(DEFINITION):
    command = option(command)
  return command


@calendars.command("list")
@json_option
@pass_session
def list_calendars(session: Session, as_json: bool) -> None:
  """List the calendars of the namespace."""
  found = list(session.client.pages(calls.list_calendars(namespace_id=session.here)))
  if as_json:
    show.print_json(found)
    return
  show.print_table(
    ("NAME", "DAYS", "VERSION", "CHANGED", "ID"),
    (
      (each.name, _words(each.definition), each.version, each.updated_at, each.id)
      for each in found
    ),
  )


def _words(definition: dict[str, Any]) -> str:
  """Say in a few words what is in a calendar."""
  words = [*definition.get("weekly", [])]
  if holidays := definition.get("holidays"):
    part = holidays.get("subdivision")
    words.append(f"holidays {holidays['country']}{'-' + part if part else ''}")
  for key, noun in (("dates", "dates"), ("except", "exceptions")):
    if entries := definition.get(key):
      words.append(f"{len(entries)} {noun}")
  return ", ".join(words)


@calendars.command("show")
@NAME
@json_option
@pass_session
def show_calendar(session: Session, name: str, as_json: bool) -> None:
  """Show one calendar."""
  calendar = find_calendar(session, name)
  if as_json:
    show.print_json(calendar)
  else:
    show.print_facts(wire.dump(calendar).items())


@calendars.command("days")
@NAME
@click.option("--from", "first", type=DAY, help="Today by default.")
@click.option("--to", "last", type=DAY, help="A year later by default.")
@json_option
@pass_session
def list_days(
  session: Session,
  name: str,
  first: datetime | None,
  last: datetime | None,
  as_json: bool,
) -> None:
  """List the days that are in a calendar, to check it."""
  calendar = find_calendar(session, name)
  call = calls.list_calendar_days(
    calendar.id, first=first and first.date(), last=last and last.date()
  )
  found = session.send(call)
  if as_json:
    show.print_json(found)
    return
  months: dict[str, list[str]] = defaultdict(list)
  for day in map(date.fromisoformat, found.days):
    months[f"{day:%Y-%m}"].append(f"{day:%a} {day.day}")
  show.print_table(
    ("MONTH", "DAYS"), ((month, ", ".join(days)) for month, days in months.items())
  )


@calendars.command("create")
@click.argument("name")
@_definition_options
@click.option("--description", default="")
@json_option
@pass_session
def create_calendar(
  session: Session, /, name: str, description: str, as_json: bool, **words: Any
) -> None:
  """Make a calendar of --date, --weekly, --holidays, --ics or --file."""
  body = {"name": name, "namespace_id": session.here, "description": description}
  body |= _definition_of(**words)
  made = session.send(calls.create_calendar(wire.load(CalendarForCreate, body)))
  if as_json:
    show.print_json(made)
  else:
    click.echo(f"{made.name}  {made.id}")


@calendars.command("update")
@NAME
@_definition_options
@click.option("--description")
@json_option
@pass_session
def update_calendar(
  session: Session, /, name: str, description: str | None, as_json: bool, **words: Any
) -> None:
  """Give a calendar other days, all of them anew; --ics alone replaces its dates."""
  change = _definition_of(**words)
  if description is not None:
    change["description"] = description
  if not change:
    raise click.UsageError("nothing to change: give the days, or --description")
  calendar = find_calendar(session, name)
  update = wire.load(CalendarForUpdate, change)
  changed = session.send(calls.update_calendar(calendar.id, update))
  if as_json:
    show.print_json(changed)
  else:
    click.echo(f"{changed.name}  version {changed.version}")


@calendars.command("delete")
@click.argument("names", metavar="CALENDAR...", nargs=-1, required=True)
@pass_session
def delete_calendars(session: Session, names: tuple[str, ...]) -> None:
  """Delete calendars that no schedule heeds."""
  for calendar in [find_calendar(session, name) for name in names]:
    session.send(calls.delete_calendar(calendar.id))


def _definition_of(
  *,
  dates: tuple[str, ...],
  weekly: tuple[str, ...],
  holidays: str | None,
  exceptions: tuple[str, ...],
  ics: Path | None,
  file: Path | None,
) -> dict[str, Any]:
  """Return the definition that was given, and the text of an iCalendar file."""
  country, _, part = (holidays or "").partition("-")
  definition = {
    "dates": [_days(each) for each in dates],
    "weekly": list(weekly),
    "holidays": {"country": country, "subdivision": part or None} if country else None,
    "except": [_days(each) for each in exceptions],
  }
  given = {name: value for name, value in definition.items() if value}
  if file is not None:
    if given:
      raise click.UsageError("give the days by options or by --file, not both")
    given = read_document(file, "the definition of a calendar")
  body: dict[str, Any] = {"definition": given} if given else {}
  if ics is not None:
    try:
      body["ics"] = ics.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
      raise SettingsError(f"{ics}: {error}") from error
  return body


def _days(text: str) -> str | dict[str, str]:
  """Read a day, or a span of them; the server checks what they are."""
  first, dots, last = text.partition("..")
  return {"from": first, "to": last} if dots else text
