"""``hetuflow server`` and ``hetuflow agent``: this process becomes the program."""

import os
import sys

import click

__all__ = ["agent", "server"]

PASS_ON = {"ignore_unknown_options": True, "help_option_names": []}


def _become(module: str, arguments: tuple[str, ...]) -> None:
  """Replace this process, so that its pid and its signals are the program's."""
  sys.stdout.flush()
  os.execv(sys.executable, [sys.executable, "-m", module, *arguments])  # noqa: S606 - no shell is wanted


@click.command("server", context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def server(arguments: tuple[str, ...]) -> None:
  """Run a server.

  The same as `python -m hetuflow.server`, which takes all arguments.
  """
  _become("hetuflow.server", arguments)


@click.command("agent", context_settings=PASS_ON)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def agent(arguments: tuple[str, ...]) -> None:
  """Run an agent.

  The same as `python -m hetuflow.agent`, which takes all arguments.
  """
  _become("hetuflow.agent", arguments)
