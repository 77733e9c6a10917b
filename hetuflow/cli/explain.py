"""``hetuflow explain``: why a task is not running, or why it ran as it did."""

from uuid import UUID

import click

from hetuflow.cli import show
from hetuflow.cli.session import Command, Session, json_option, pass_session
from hetuflow.client.calls import tasks as calls
from hetuflow.protocol.model import Explanation

__all__ = ["explain"]


@click.command("explain", cls=Command)
@click.argument("task_id", metavar="TASK", type=click.UUID)
@json_option
@pass_session
def explain(session: Session, task_id: UUID, as_json: bool) -> None:
  """Say why a task is not running, or ran as it did."""
  found = session.send(calls.explain_task(task_id))
  if as_json:
    show.print_json(found)
    return
  click.echo(found.verdict)
  show.print_facts(_facts(found))
  show.print_table(
    ("REASON", "MESSAGE"), ((each.code, each.message) for each in found.reasons)
  )


def _facts(found: Explanation) -> list[tuple[str, object]]:
  """List what is known beside the reasons."""
  facts: list[tuple[str, object]] = [("status", found.status), ("since", found.since)]
  if found.expected_start_at is not None:
    when = show.when(found.expected_start_at)
    facts.append(("expected start", f"{when} (estimated)" if found.estimated else when))
  return facts
