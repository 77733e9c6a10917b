"""``python -m hetuflow.agent``: one agent, until a signal ends it."""

import sys

import click

from hetuflow.agent.config import agent_options, load_agent_config
from hetuflow.agent.program import run_agent
from hetuflow.logs import configure_logging
from hetuflow.nursery import main as run_program

__all__ = ["command"]


async def _run(flags: dict[str, object]) -> int:
  """Read the settings and run."""
  config = load_agent_config(flags)
  configure_logging(config.log.level, config.log.format)
  return await run_agent(config)


@click.command("agent")
@agent_options
def command(**flags: object) -> None:
  """Run the tasks of a hetuflow server on this machine."""
  sys.exit(run_program(_run, flags))


if __name__ == "__main__":
  command(prog_name="python -m hetuflow.agent")
