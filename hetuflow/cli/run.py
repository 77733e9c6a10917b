"""``hetuflow run``: a job, now or at a time."""

from datetime import datetime

import click

from hetuflow.cli import output, show
from hetuflow.cli.find import find_job
from hetuflow.cli.session import Command, Session, json_option, pass_session
from hetuflow.cli.words import moment, pair, parameters_of
from hetuflow.client.calls import jobs
from hetuflow.protocol.model.task import JobForRun
from hetuflow.protocol.wire import load

__all__ = ["run"]


@click.command("run", cls=Command)
@click.argument("name", metavar="JOB")
@click.option("-p", "pairs", type=pair, multiple=True, help="A parameter.")
@click.option("--at", type=moment, help="When; at once by default.")
@click.option("--priority", type=click.IntRange(-10, 10), help="Higher goes first.")
@click.option("--follow", is_flag=True, help="Print output; exit as the task does.")
@json_option
@pass_session
@click.pass_context
def run(
  ctx: click.Context,
  session: Session,
  name: str,
  pairs: tuple[tuple[str, str], ...],
  at: datetime | None = None,
  priority: int | None = None,
  follow: bool = False,
  as_json: bool = False,
) -> None:
  """Run a job now or at a time.

  JOB is a name or an id. A parameter that is JSON is taken as such, else as text.
  """
  if as_json and follow:
    raise click.UsageError("--json and --follow exclude each other")
  job = find_job(session, name)
  body = {
    "parameters": parameters_of(pairs),
    "scheduled_at": at,
    "priority": priority,
  }
  task = session.send(jobs.run_job(job.id, load(JobForRun, body)))
  if as_json:
    show.print_json(task)
  elif not follow:
    click.echo(task.id)
  if follow:
    ctx.exit(output.follow_task(session, task.id))
