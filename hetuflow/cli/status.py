"""``hetuflow status``: servers, agents and the supervision tree."""

from collections.abc import Iterator, Sequence
from typing import Any

import click

from hetuflow.cli import show
from hetuflow.cli.agents import print_agents
from hetuflow.cli.session import Command, Session, json_option, pass_session
from hetuflow.client.calls import system
from hetuflow.protocol.model import Server

__all__ = ["status"]


@click.command("status", cls=Command)
@json_option
@pass_session
def status(session: Session, as_json: bool) -> None:
  """Show how servers, agents and their parts fare."""
  health = session.send(system.get_health())
  servers = list(session.client.pages(system.list_servers()))
  agents = list(session.client.pages(system.list_agents()))
  tree = session.send(system.get_tree())
  if as_json:
    show.print_json(
      {"health": health, "servers": servers, "agents": agents, "tree": tree}
    )
    return
  click.echo(f"{session.client.place.url}  {health.get('status', '')}".rstrip())
  click.echo()
  show.print_table(
    (
      *("SERVER", "ALIVE", "LEADER", "NAMESPACES", "WEIGHT", "LOAD"),
      *("VERSION", "STARTED", "SEEN", "URL"),
    ),
    (
      (
        *(each.name, "yes" if each.alive else "no", "yes" if each.leader else None),
        *(each.namespaces, each.weight, f"{each.load:.0%}", each.version),
        *(each.started_at, show.ago(each.heartbeat_at), each.url),
      )
      for each in current(servers)
    ),
  )
  click.echo()
  print_agents(agents)
  click.echo()
  show.print_table(("PART", "STATUS", "RESTARTS", "LAST ERROR"), tree_rows(tree))


def current(servers: Sequence[Server]) -> list[Server]:
  """Leave out servers that are gone where a later one of their name has followed.

  Args:
    servers: the newest first, as the API lists them; each start of a server is one.
  """
  latest = {each.name: each for each in reversed(servers)}
  return [each for each in servers if each.alive or latest[each.name] is each]


def tree_rows(node: dict[str, Any], indent: str = "", fork: str = "") -> Iterator[Any]:
  """Yield a row for each node of a supervision tree, drawn as a tree.

  Args:
    node: a node as ``GET /system/tree`` answers: name, status, restarts, last_error,
      count, children.
    indent: what stands before the node.
    fork: the branch that leads to it.
  """
  children = node.get("children") or []
  crowd = f" ({node.get('count', 0)})" if node.get("kind") == "crowd" else ""
  yield (
    f"{indent}{fork}{node.get('name', '?')}{crowd}",
    node.get("status"),
    node.get("restarts") or None,
    node.get("last_error"),
  )
  deeper = indent + {"├─ ": "│  ", "└─ ": "   "}.get(fork, "")
  for place, child in enumerate(children, 1):
    yield from tree_rows(child, deeper, "└─ " if place == len(children) else "├─ ")
