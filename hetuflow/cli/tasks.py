"""``hetuflow tasks``: planned occurrences of jobs."""

from itertools import islice
from uuid import UUID

import click

from hetuflow.cli import show
from hetuflow.cli.find import find_job, job_names
from hetuflow.cli.session import Session, group, json_option, pass_session
from hetuflow.client.calls import tasks as calls
from hetuflow.protocol import wire
from hetuflow.protocol.states import TaskStatus

__all__ = ["tasks"]

IDS = click.argument("ids", metavar="TASK...", type=click.UUID, nargs=-1, required=True)


@group("tasks")
def tasks() -> None:
  """Look after tasks: planned occurrences of jobs."""


@tasks.command("list")
@click.option("--job", help="Only those of a job.")
@click.option("--status", type=click.Choice([each.value for each in TaskStatus]))
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@json_option
@pass_session
def list_tasks(
  session: Session, job: str | None, status: str | None, limit: int, as_json: bool
) -> None:
  """List tasks, the newest first."""
  job_id = find_job(session, job).id if job else None
  call = calls.list_tasks(
    namespace_id=session.here, job_id=job_id, status=status, limit=min(limit, 200)
  )
  found = list(islice(session.client.pages(call), limit))
  if as_json:
    show.print_json(found)
    return
  names = job_names(session, (each.job_id for each in found))
  show.print_table(
    ("ID", "JOB", "STATUS", "DUE", "ATTEMPTS", "REASON"),
    (
      (
        *(each.id, names.get(each.job_id, each.job_id), each.status, each.due_at),
        *(each.attempts, each.reason),
      )
      for each in found
    ),
  )


@tasks.command("show")
@click.argument("task_id", metavar="TASK", type=click.UUID)
@json_option
@pass_session
def show_task(session: Session, task_id: UUID, as_json: bool) -> None:
  """Show one task with its attempts."""
  task = session.send(calls.get_task(task_id))
  attempts = list(session.client.pages(calls.list_instances(task_id=task_id)))
  if as_json:
    show.print_json({**wire.dump(task), "instances": attempts})
    return
  show.print_facts(wire.dump(task).items())
  show.print_table(
    ("INSTANCE", "ATTEMPT", "STATUS", "EXIT CODE", "STARTED", "COMPLETED", "REASON"),
    (
      (
        *(each.id, each.attempt, each.status, each.exit_code, each.started_at),
        *(each.completed_at, each.error_message or each.reason),
      )
      for each in attempts
    ),
  )


@tasks.command("cancel")
@IDS
@pass_session
def cancel_tasks(session: Session, ids: tuple[UUID, ...]) -> None:
  """Cancel tasks; what runs is stopped by its agent."""
  for task_id in ids:
    session.send(calls.cancel_task(task_id))


@tasks.command("retry")
@IDS
@pass_session
def retry_tasks(session: Session, ids: tuple[UUID, ...]) -> None:
  """Run tasks that have ended once more."""
  for task_id in ids:
    session.send(calls.retry_task(task_id))
