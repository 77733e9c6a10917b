"""``hetuflow schedules``: when jobs are due."""

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any

import attrs
import click

from hetuflow.cli import show
from hetuflow.cli.find import find_job, find_schedule, job_names
from hetuflow.cli.jobs import timing_of
from hetuflow.cli.options import timing_options, timings_of
from hetuflow.cli.session import Session, group, json_option, pass_session
from hetuflow.cli.words import moment
from hetuflow.client.calls import schedules as calls
from hetuflow.protocol import wire
from hetuflow.protocol.model import (
  BackfillForCreate,
  Ledger,
  LedgerCheck,
  LedgerItem,
  ScheduleForCreate,
)

__all__ = ["schedules"]

PAGE = 1_000
NAMES = click.argument("names", metavar="SCHEDULE...", nargs=-1, required=True)


@group("schedules")
def schedules() -> None:
  """Look after schedules: when jobs are due."""


@schedules.command("list")
@click.option("--job", help="Only those of a job.")
@click.option("--limit", type=click.IntRange(1), default=1_000, show_default=True)
@json_option
@pass_session
def list_schedules(
  session: Session, job: str | None, limit: int, as_json: bool
) -> None:
  """List the schedules of the namespace."""
  job_id = find_job(session, job).id if job else None
  call = calls.list_schedules(namespace_id=session.here, job_id=job_id)
  found = list(islice(session.client.pages(call), limit))
  if as_json:
    show.print_json(found)
    return
  names = job_names(session, (each.job_id for each in found if each.job_id))
  show.print_table(
    ("NAME", "JOB", "FIRES", "TIMEZONE", "ENABLED", "NEXT", "LAST", "ID"),
    (
      (
        *(each.name or None, each.job_id and names.get(each.job_id, each.job_id)),
        *(timing_of(wire.dump(each)), each.timezone),
        *("yes" if each.enabled else "no", each.next_run_at, each.last_run_at),
        each.id,
      )
      for each in found
    ),
  )


@schedules.command("show")
@click.argument("name", metavar="SCHEDULE")
@json_option
@pass_session
def show_schedule(session: Session, name: str, as_json: bool) -> None:
  """Show one schedule."""
  schedule = find_schedule(session, name)
  if as_json:
    show.print_json(schedule)
  else:
    show.print_facts(wire.dump(schedule).items())


@schedules.command("next")
@click.argument("name", metavar="SCHEDULE")
@click.option(
  "-n", "count", type=click.IntRange(1, 1_000), default=10, show_default=True
)
@json_option
@pass_session
def show_next(session: Session, name: str, count: int, as_json: bool) -> None:
  """Show when a schedule fires next, by its own time zone."""
  schedule = find_schedule(session, name)
  found = session.send(calls.list_next_fires(schedule.id, count=count))
  if as_json:
    show.print_json(found)
  else:
    show.print_times(found.fire_times, schedule.timezone)


@schedules.command("create")
@click.argument("job", metavar="JOB")
@timing_options
@click.option("--name", default="", help="Made up when it is left out.")
@json_option
@pass_session
def create_schedule(
  session: Session, /, job: str, name: str, as_json: bool, **words: Any
) -> None:
  """Give a job one more schedule: --cron, --every or --at."""
  times = timings_of(**words)
  if len(times) != 1:
    raise click.UsageError("give one of --cron, --every and --at")
  body = {"job_id": find_job(session, job).id, "name": name, **times[0]}
  made = session.send(calls.create_schedule(wire.load(ScheduleForCreate, body)))
  if as_json:
    show.print_json(made)
  else:
    click.echo(f"{made.name}  {made.id}")


@schedules.command("enable")
@NAMES
@pass_session
def enable_schedules(session: Session, names: tuple[str, ...]) -> None:
  """Let schedules fire again."""
  for name in names:
    session.send(calls.enable_schedule(find_schedule(session, name).id))


@schedules.command("disable")
@NAMES
@pass_session
def disable_schedules(session: Session, names: tuple[str, ...]) -> None:
  """Keep schedules from firing, without forgetting them."""
  for name in names:
    session.send(calls.disable_schedule(find_schedule(session, name).id))


@schedules.command("delete")
@NAMES
@pass_session
def delete_schedules(session: Session, names: tuple[str, ...]) -> None:
  """Delete schedules; their jobs stay."""
  for schedule in [find_schedule(session, name) for name in names]:
    session.send(calls.delete_schedule(schedule.id))


@schedules.command("ledger")
@click.argument("name", metavar="SCHEDULE")
@click.option("--from", "from_at", type=moment, help="A day before --to if left out.")
@click.option("--to", "to_at", type=moment, help="As far as is planned if left out.")
@click.option("--limit", type=click.IntRange(1), default=PAGE, show_default=True)
@json_option
@pass_session
def show_ledger(
  session: Session,
  name: str,
  from_at: datetime | None,
  to_at: datetime | None,
  limit: int,
  as_json: bool,
) -> None:
  """Show what became of each planned time, and whether each came to something."""
  call = calls.get_ledger(
    find_schedule(session, name).id,
    from_at=from_at,
    to_at=to_at,
    limit=min(limit, PAGE),
  )
  ledger = page = session.send(call)
  items = list(page.items)
  while page.next_cursor is not None and len(items) < limit:
    page = session.send(call.after(page.next_cursor))
    items += page.items
  ledger = attrs.evolve(ledger, items=items[:limit], next_cursor=page.next_cursor)
  if as_json:
    show.print_json(ledger)
    return
  show.print_table(
    ("PLANNED", "UNTIL", "COUNT", "OUTCOME", "STATUS", "CAUSE", "REASON", "TASK"),
    map(_row, ledger.items),
  )
  for line in _summary(ledger):
    click.echo(line)


def _row(item: LedgerItem) -> tuple[object, ...]:
  """Write an item of a ledger."""
  until = item.to_at if item.count > 1 else None
  return (
    *(item.from_at, until, item.count, item.outcome),
    *(item.status, item.cause, item.reason, item.task_id),
  )


def _summary(ledger: Ledger) -> Iterator[str]:
  """Say what all of it came to, and whether it is whole."""
  if ledger.totals is not None:
    totals = wire.dump(ledger.totals).items()
    yield ", ".join(f"{count} {name}" for name, count in totals if count) or "nothing"
  if ledger.check is not None:
    yield from _verdict(ledger.check)


def _verdict(check: LedgerCheck) -> Iterator[str]:
  """Say whether each planned time is covered once, and which are not."""
  span = f"{show.when(check.after_at)} to {show.when(check.until_at)}"
  if check.complete:
    yield f"each of {check.planned} planned times is covered once, {span}"
    return
  yield f"{check.covered} of {check.planned} planned times are covered, {span}"
  for word in ("uncovered", "doubled", "miscounted"):
    for at in getattr(check, word):
      yield f"{word}: {show.when(at)}"


@schedules.command("backfill")
@click.argument("name", metavar="SCHEDULE")
@click.option("--from", "start_at", type=moment, required=True)
@click.option("--to", "end_at", type=moment, required=True)
@json_option
@pass_session
def backfill_schedule(
  session: Session, name: str, start_at: datetime, end_at: datetime, as_json: bool
) -> None:
  """Run the planned times of a past span that did not run."""
  span = wire.load(BackfillForCreate, {"start_at": start_at, "end_at": end_at})
  made = session.send(calls.backfill_schedule(find_schedule(session, name).id, span))
  if as_json:
    show.print_json(made)
  else:
    click.echo(f"{made.tasks} {'task' if made.tasks == 1 else 'tasks'} made")
