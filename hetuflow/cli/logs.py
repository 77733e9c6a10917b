"""``hetuflow logs``: what a task instance printed."""

import attrs
import click

from hetuflow.cli import output, show
from hetuflow.cli.find import find_instance
from hetuflow.cli.session import Command, Session, json_option, pass_session

__all__ = ["logs"]


@click.command("logs", cls=Command)
@click.argument("name", metavar="INSTANCE")
@click.option("-f", "--follow", is_flag=True, help="Go on until it ends.")
@click.option(
  "--stream",
  type=click.Choice(["stdout", "stderr", "all"]),
  default="all",
  show_default=True,
)
@json_option
@pass_session
@click.pass_context
def logs(
  ctx: click.Context,
  session: Session,
  name: str,
  follow: bool,
  stream: str,
  as_json: bool,
) -> None:
  """Print what a task instance printed.

  INSTANCE is an id; that of a task, or the name of a job, stands for its latest instance.
  """
  if as_json and follow:
    raise click.UsageError("--json and --follow exclude each other")
  instance = find_instance(session, name)
  if as_json:
    pages = list(output.log_pages(session, instance.id, stream))
    log = attrs.evolve(pages[-1], items=[item for page in pages for item in page.items])
    show.print_json({"instance": instance, "log": log})
  elif follow:
    ctx.exit(output.follow_instance(session, instance.id, stream))
  else:
    output.print_log(session, instance, stream)
