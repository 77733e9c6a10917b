"""``hetuflow doctor``, ``repair`` and ``migrate``: the database itself, server or none."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from hetuflow.cli import show
from hetuflow.cli.session import Command, Session, json_option, pass_session

if TYPE_CHECKING:
  from hetuflow.ops.doctor import Finding, Mended

__all__ = ["doctor", "migrate", "repair"]

CONFIG = click.option("--config", metavar="FILE", help="The TOML file of the server.")
DATABASE_URL = click.option(
  "--database-url", metavar="URL", help="The database, if not that of --data-dir."
)
WRONG = 1
"""The exit code where something is found wrong."""


def _places(command: Callable[..., Any]) -> Callable[..., Any]:
  """Let a command take where the server's settings and database are."""
  return CONFIG(DATABASE_URL(command))


def _flags(
  session: Session, config: str | None, database_url: str | None
) -> dict[str, object]:
  """Return what was said of the database, as settings take it."""
  folder = None if session.data_dir is None else str(session.data_dir)
  return {"config": config, "data_dir": folder, "database_url": database_url}


@click.command("doctor", cls=Command)
@click.option(
  "--days",
  metavar="N",
  type=click.IntRange(1, 3650),
  default=7,
  show_default=True,
  help="How far back planned times are accounted for.",
)
@_places
@json_option
@pass_session
def doctor(
  session: Session,
  days: int,
  config: str | None,
  database_url: str | None,
  as_json: bool,
) -> None:
  """Check the database for what must not be."""
  # The drivers of the database are of no use to other commands.
  from hetuflow.ops import run

  report = run.diagnose(_flags(session, config, database_url), days=days)
  if as_json:
    show.print_json({"ok": report.ok, "checks": report.checks})
  else:
    _print_findings(report.checks)
  if not report.ok:
    click.get_current_context().exit(WRONG)


def _print_findings(findings: "list[Finding]") -> None:
  """Print each check, and below the table what was found wrong."""
  show.print_table(
    ("CHECK", "OK", "FAULTS", "WHAT MUST HOLD", "NOTE"),
    (
      (each.name, _verdict(each.ok), each.count, each.promise, each.note)
      for each in findings
    ),
  )
  for finding in findings:
    if finding.ok is not False:
      continue
    click.echo()
    click.echo(f"{finding.name}: {finding.count} found")
    for fault in finding.examples:
      click.echo(f"  {fault.subject}: {fault.matter}")
    if finding.repair is not None:
      click.echo(f"  hetuflow repair: {finding.repair}")


def _verdict(ok: bool | None) -> str | None:
  """Write whether a check went well; a dash where it was not made."""
  return None if ok is None else "yes" if ok else "NO"


@click.command("repair", cls=Command)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@_places
@json_option
@pass_session
def repair(
  session: Session,
  config: str | None,
  database_url: str | None,
  dry_run: bool,
  as_json: bool,
) -> None:
  """Mend what is mechanical of what the doctor finds."""
  from hetuflow.ops import run

  done = run.mend(_flags(session, config, database_url), dry_run=dry_run)
  if as_json:
    show.print_json({"dry_run": dry_run, "repairs": done})
  else:
    _print_repairs(done, dry_run=dry_run)


def _print_repairs(done: "list[Mended]", *, dry_run: bool) -> None:
  """Print what was mended, or would be."""
  if not done:
    click.echo("nothing to mend")
  for each in done:
    click.echo(f"{'would mend' if dry_run else 'mended'} {each.count}: {each.promise}")


@click.command("migrate", cls=Command)
@click.option("--check", is_flag=True, help="Change nothing; fail if there is need to.")
@_places
@pass_session
def migrate(
  session: Session, config: str | None, database_url: str | None, check: bool
) -> None:
  """Bring the database to the schema of this version."""
  from hetuflow.ops import run

  flags = _flags(session, config, database_url)
  if check:
    run.check_schema(flags)
    click.echo("the database has the schema of this version")
    return
  applied = run.upgrade(flags)
  for each in applied:
    click.echo(f"applied {each}")
  if not applied:
    click.echo("nothing to apply")
