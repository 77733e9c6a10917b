"""``hetuflow import``: jobs from elsewhere, taken over as often as one likes."""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import click

from hetuflow.cli import show
from hetuflow.cli.find import named_job
from hetuflow.cli.plans import Plan, plan_job
from hetuflow.cli.session import Command, Group, Session, json_option, pass_session
from hetuflow.client import ApiError
from hetuflow.client.calls import schedules
from hetuflow.client.crontab import CrontabEntry, job_of_entry, parse_crontab
from hetuflow.errors import ProtocolError, SettingsError
from hetuflow.protocol.model import JobForCreate
from hetuflow.protocol.wire import load
from hetuflow.schedule import load_zone

__all__ = ["Row", "crontab_files", "has_user_column", "import_"]

LOCALTIME = Path("/etc/localtime")
TIMEZONE = Path("/etc/timezone")
NOT_TAKEN = "not taken"
NOTE = "note"
IGNORED = "ignored"
CRON_READS = re.compile(r"[A-Za-z0-9_-]+")
"""Names in /etc/cron.d that Debian's cron reads, see cron(8); not *.dpkg-old and such."""


@attrs.frozen(kw_only=True)
class Row:
  """What became of one line of a file; ``line`` 0 is the whole file."""

  file: str
  line: int
  job: str | None
  outcome: str
  why: str = ""


@click.group("import", cls=Group)
def import_() -> None:
  """Take over jobs from elsewhere."""


@import_.command("crontab", cls=Command)
@click.argument(
  "files",
  metavar="FILE...",
  nargs=-1,
  required=True,
  type=click.Path(exists=True, path_type=Path),
)
@click.option(
  "--user-column/--no-user-column",
  "with_user",
  default=None,
  help="Whether lines name a user; by default as cron knows /etc/crontab and cron.d.",
)
@click.option("--tz", "timezone", help="For lines without CRON_TZ; default: local.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@json_option
@pass_session
@click.pass_context
def crontab(
  ctx: click.Context,
  session: Session,
  files: tuple[Path, ...],
  with_user: bool | None,
  timezone: str | None,
  dry_run: bool,
  as_json: bool,
) -> None:
  """Make a job of each line of crontab files and folders.

  A second import changes only what has changed in the files. Exits with 1 when a line
  could not be taken.
  """
  zone = timezone or local_zone()
  load_zone(zone)
  rows: list[Row] = []
  wanted: list[tuple[CrontabEntry, dict[str, Any]]] = []
  for file, named in crontab_files(files):
    if not named:
      why = "cron ignores names that are not of letters, digits, '-' and '_'"
      rows.append(Row(file=_text(file), line=0, job=None, outcome=IGNORED, why=why))
      continue
    more, problems = _read(file, with_user, zone)
    wanted += more
    rows += problems
  rows += _take_all(session, wanted, dry_run=dry_run)
  rows.sort(key=lambda row: (row.file, row.line))
  _print(rows, as_json=as_json)
  ctx.exit(any(row.outcome == NOT_TAKEN for row in rows))


def crontab_files(paths: Iterable[Path]) -> Iterator[tuple[Path, bool]]:
  """Yield the files to read; of a folder, with False, also those that cron ignores."""
  for path in paths:
    if not path.is_dir():
      yield path, True
      continue
    for file in sorted(path.iterdir()):
      if file.is_file():
        yield file, CRON_READS.fullmatch(file.name) is not None


def has_user_column(file: Path) -> bool:
  """Tell whether cron expects a user in the lines of a file, by where it stands."""
  file = file.absolute()
  return file.parent.name == "cron.d" or (file.parent.name, file.name) == (
    "etc",
    "crontab",
  )


def local_zone() -> str:
  """Return the IANA name of this machine's time zone, UTC where there is none.

  Raises:
    SettingsError: there is one, but nothing tells its name.
  """
  if name := os.environ.get("TZ", "").removeprefix(":"):
    return name
  _, found, name = str(LOCALTIME.resolve()).partition("/zoneinfo/")
  if found:
    return name
  # A copy of the zone's file has no name; Debian keeps the name beside it.
  with suppress(OSError):
    return TIMEZONE.read_text("utf-8").strip()
  if LOCALTIME.exists():
    raise SettingsError("the time zone of this machine has no name here: give --tz")
  return "UTC"


def _text(file: Path) -> str:
  """Return a path as text; bytes that are none become U+FFFD."""
  return os.fsencode(file).decode("utf-8", "replace")


def _read(
  file: Path, with_user: bool | None, zone: str
) -> tuple[list[tuple[CrontabEntry, dict[str, Any]]], list[Row]]:
  """Read a file: its entries with the bodies of their jobs, and what was odd."""
  name = _text(file)
  try:
    # Bytes that are no text reach only the lines they stand in.
    text = file.read_text("utf-8", errors="surrogateescape")
  except OSError as error:
    why = error.strerror or str(error)
    return [], [Row(file=name, line=0, job=None, outcome=NOT_TAKEN, why=why)]
  user = has_user_column(file) if with_user is None else with_user
  found = parse_crontab(text, source=name, with_user=user)
  rows = [
    Row(
      file=name,
      line=problem.line,
      job=None,
      outcome=NOTE if problem.taken else NOT_TAKEN,
      why=problem.reason,
    )
    for problem in found.problems
  ]
  return [(entry, job_of_entry(entry, timezone=zone)) for entry in found.entries], rows


def _take_all(
  session: Session,
  wanted: Sequence[tuple[CrontabEntry, dict[str, Any]]],
  *,
  dry_run: bool,
) -> list[Row]:
  """Take all entries, with a bar on a terminal."""
  from rich.console import Console
  from rich.progress import track

  rows: list[Row] = []
  seen: dict[str, str] = {}
  for entry, body in track(
    wanted,
    "importing",
    console=Console(stderr=True),
    transient=True,
    disable=not sys.stderr.isatty(),
  ):
    first = seen.setdefault(entry.name, entry.source)
    if first != entry.source:
      rows.append(_row(entry, NOT_TAKEN, f"{first} has an entry of the same name"))
    else:
      rows.append(_take(session, entry, body, dry_run=dry_run))
  return rows


def _take(
  session: Session, entry: CrontabEntry, body: dict[str, Any], *, dry_run: bool
) -> Row:
  """Make or change the job of one entry."""
  try:
    job = load(JobForCreate, {**body, "namespace_id": session.here}, strict=True)
    plan = _plan(session, job)
    for call in () if dry_run else plan.calls:
      session.send(call)
  except (ApiError, ProtocolError) as error:
    return _row(entry, NOT_TAKEN, str(error))
  return _row(entry, plan.outcome, ", ".join(plan.changes))


def _plan(session: Session, wanted: JobForCreate) -> Plan:
  """Compare a job with what the server has."""
  there = named_job(session, wanted.name)
  if there is None:
    return plan_job(wanted, None)
  due = list(session.client.pages(schedules.list_schedules(job_id=there.id)))
  return plan_job(wanted, there, due)


def _row(entry: CrontabEntry, outcome: str, why: str = "") -> Row:
  """Return the row of one entry."""
  return Row(
    file=entry.source, line=entry.line, job=entry.name, outcome=outcome, why=why
  )


def _print(rows: Sequence[Row], *, as_json: bool) -> None:
  """Print what became of each line."""
  if as_json:
    show.print_json(rows)
    return
  show.print_table(
    ("WHERE", "JOB", "OUTCOME", "WHY"),
    (
      (
        f"{row.file}:{row.line}" if row.line else row.file,
        *(row.job, row.outcome, row.why),
      )
      for row in rows
    ),
  )
