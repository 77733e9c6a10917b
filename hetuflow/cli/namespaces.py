"""``hetuflow namespaces``: who is kept apart from whom."""

import click

from hetuflow.cli import show
from hetuflow.cli.session import Session, group, json_option, pass_session
from hetuflow.client.calls import system
from hetuflow.protocol.model import NamespaceForCreate
from hetuflow.protocol.wire import load

__all__ = ["namespaces"]


@group("namespaces")
def namespaces() -> None:
  """Look after namespaces."""


@namespaces.command("list")
@json_option
@pass_session
def list_namespaces(session: Session, as_json: bool) -> None:
  """List the namespaces."""
  found = list(session.client.pages(system.list_namespaces()))
  if as_json:
    show.print_json(found)
    return
  show.print_table(
    ("ID", "WEIGHT", "RETENTION", "LEAD", "LEASE"),
    (
      (
        *(each.id, each.weight, f"{each.retention_days} d"),
        *(f"{each.lead:g} s", f"{each.lease:g} s"),
      )
      for each in found
    ),
  )


@namespaces.command("create")
@click.argument("slug")
@click.option("--weight", type=int, default=1, show_default=True)
@click.option("--retention-days", type=int, default=30, show_default=True)
@click.option("--lead", type=float, default=5.0, show_default=True, help="Seconds.")
@pass_session
def create_namespace(
  session: Session, slug: str, weight: int, retention_days: int, lead: float
) -> None:
  """Make a namespace."""
  body = {
    "id": slug,
    "weight": weight,
    "retention_days": retention_days,
    "lead": lead,
  }
  session.send(system.create_namespace(load(NamespaceForCreate, body)))
