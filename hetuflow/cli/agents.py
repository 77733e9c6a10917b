"""``hetuflow agents``: who runs tasks."""

import click

from hetuflow.cli import show
from hetuflow.cli.find import find_agent
from hetuflow.cli.session import Session, group, json_option, pass_session
from hetuflow.client.calls import gateway, system
from hetuflow.protocol import wire
from hetuflow.protocol.model import Agent
from hetuflow.protocol.states import AgentStatus

__all__ = ["agents", "print_agents"]

NAMES = click.argument("names", metavar="AGENT...", nargs=-1, required=True)


@group("agents")
def agents() -> None:
  """Look after agents: who runs tasks."""


@agents.command("list")
@click.option("--status", type=click.Choice([each.value for each in AgentStatus]))
@json_option
@pass_session
def list_agents(session: Session, status: str | None, as_json: bool) -> None:
  """List the agents, of one namespace where one is named."""
  call = system.list_agents(namespace_id=session.namespace, status=status)
  found = list(session.client.pages(call))
  if as_json:
    show.print_json(found)
  else:
    print_agents(found)


def print_agents(agents: list[Agent]) -> None:
  """Print agents as a table."""
  show.print_table(
    ("NAME", "STATUS", "NAMESPACES", "RUNNING", "HELD", "SEEN", "LABELS", "ID"),
    (
      (
        *(each.name, each.status, each.namespace_ids),
        *(f"{each.metrics.running}/{each.capabilities.max_concurrent}",),
        *(each.metrics.held, show.ago(each.last_heartbeat_at), each.labels, each.id),
      )
      for each in agents
    ),
  )


@agents.command("show")
@click.argument("name", metavar="AGENT")
@json_option
@pass_session
def show_agent(session: Session, name: str, as_json: bool) -> None:
  """Show one agent."""
  agent = find_agent(session, name)
  if as_json:
    show.print_json(agent)
  else:
    show.print_facts(wire.dump(agent).items())


@agents.command("drain")
@NAMES
@pass_session
def drain_agents(session: Session, names: tuple[str, ...]) -> None:
  """Let agents take nothing new until they are resumed."""
  for name in names:
    session.send(gateway.drain_agent(find_agent(session, name).id))


@agents.command("resume")
@NAMES
@pass_session
def resume_agents(session: Session, names: tuple[str, ...]) -> None:
  """Let drained agents take work again."""
  for name in names:
    session.send(gateway.resume_agent(find_agent(session, name).id))


@agents.command("disconnect")
@NAMES
@pass_session
def disconnect_agents(session: Session, names: tuple[str, ...]) -> None:
  """End the sessions of agents; they connect anew."""
  for name in names:
    session.send(gateway.disconnect_agent(find_agent(session, name).id))
