"""``hetuflow exec``: a command, once, on some agent.

Tasks belong to jobs, so a job named ``exec-…`` is made for the command. While it is
followed (the default) it belongs to this process: Ctrl-C cancels the task, a second one
does not keep it from that, and the job is deleted at the end; its task and output stay
in the history. With ``--no-follow`` it is left, for nobody would know when to delete it.
"""

import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from hetuflow.cli import output
from hetuflow.cli.session import Command, Session, pass_session
from hetuflow.cli.words import pair
from hetuflow.client.calls import jobs, tasks
from hetuflow.protocol.model import Job, JobForCreate
from hetuflow.protocol.states import TASK_FINAL
from hetuflow.protocol.wire import load

__all__ = ["execute"]


@click.command("exec", cls=Command, context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--agent-label", "labels", type=pair, multiple=True, help="Where.")
@click.option("--env", type=pair, multiple=True, help="For the process's environment.")
@click.option("--timeout", type=click.FloatRange(0), default=0.0, help="Seconds.")
@click.option("--follow/--no-follow", default=True, show_default=True)
@pass_session
@click.pass_context
def execute(
  ctx: click.Context,
  session: Session,
  command: tuple[str, ...],
  labels: tuple[tuple[str, str], ...],
  env: tuple[tuple[str, str], ...],
  timeout: float,
  follow: bool,
) -> None:
  """Run a command once on some agent.

  Prints its output and exits as it does; Ctrl-C cancels it. Options come before COMMAND.
  """
  config = {
    "cmd": command[0],
    "args": list(command[1:]),
    "environment": dict(env),
    "labels": dict(labels),
    "timeout": timeout,
    "on_lost": "fail",
  }
  body = {
    "namespace_id": session.here,
    "name": f"exec-{secrets.token_hex(4)}",
    "description": "made by hetuflow exec",
    "config": config,
  }
  job = session.send(jobs.create_job(load(JobForCreate, body)))
  if follow:
    ctx.exit(_accompany(session, job))
  click.echo(session.send(jobs.run_job(job.id)).id)
  click.echo(f"the job {job.name} stays; delete it when it has run", err=True)


def _accompany(session: Session, job: Job) -> int:
  """Run the job's one task to its end, whatever that is, and delete the job."""
  with _interrupted_once():
    try:
      task = session.send(jobs.run_job(job.id))
      return output.follow_task(session, task.id)
    except KeyboardInterrupt:
      _cancel_all(session, job)
      raise
    finally:
      session.send(jobs.delete_job(job.id))


def _cancel_all(session: Session, job: Job) -> None:
  """Cancel the job's task, of which we may not have been told yet."""
  for task in session.client.pages(tasks.list_tasks(job_id=job.id)):
    if task.status not in TASK_FINAL:
      session.send(tasks.cancel_task(task.id))


@contextmanager
def _interrupted_once() -> Iterator[None]:
  """Let the first Ctrl-C interrupt the block and no other its clean-up.

  That takes as long as a few calls of the API at most, which have their own limits.
  """

  def interrupt(number: int, frame: FrameType | None) -> None:
    """Interrupt, and never again."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt

  before = signal.signal(signal.SIGINT, interrupt)
  try:
    yield
  finally:
    # Once interrupted, this process has nothing else to do but to end.
    if signal.getsignal(signal.SIGINT) is interrupt:
      signal.signal(signal.SIGINT, before)
