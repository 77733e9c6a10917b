"""The root of the command line: which commands there are, and where they live.

Nothing but click is imported here: a command's module is loaded when the command is
called, so that ``hetuflow --help`` and ``hetuflow agent`` cost nothing they do not use.
"""

import errno
import importlib
import json
from itertools import takewhile
from typing import Any

import click

from hetuflow import __version__
from hetuflow.cli.session import EXIT_INTERRUPTED, add_common_options
from hetuflow.errors import HetuflowError, SettingsError

__all__ = ["COMMANDS", "cli", "main"]

COMMANDS = {
  "up": ("up:up", "Start a server and an agent on this machine."),
  "server": ("programs:server", "Run a server."),
  "agent": ("programs:agent", "Run an agent."),
  "status": ("status:status", "Show how servers, agents and their parts fare."),
  "jobs": ("jobs:jobs", "Look after jobs: what is to be done."),
  "schedules": ("schedules:schedules", "Look after schedules: when jobs are due."),
  "calendars": (
    "calendars:calendars",
    "Look after calendars: days that schedules heed.",
  ),
  "run": ("run:run", "Run a job now or at a time."),
  "exec": ("execute:execute", "Run a command once on some agent."),
  "tasks": ("tasks:tasks", "Look after tasks: planned occurrences of jobs."),
  "explain": ("explain:explain", "Say why a task is not running, or ran as it did."),
  "logs": ("logs:logs", "Print what a task instance printed."),
  "agents": ("agents:agents", "Look after agents: who runs tasks."),
  "namespaces": ("namespaces:namespaces", "Look after namespaces."),
  "preview": ("preview:preview", "Show when a cron expression fires."),
  "what-if": (
    "what_if:what_if",
    "Foresee the load of all schedules, with some more of them or without some.",
  ),
  "import": ("imports:import_", "Take over jobs from elsewhere."),
  "doctor": ("doctor:doctor", "Check the database for what must not be."),
  "repair": ("doctor:repair", "Mend what is mechanical of what the doctor finds."),
  "migrate": ("doctor:migrate", "Bring the database to the schema of this version."),
}
"""Name: where the command is within ``hetuflow.cli``, and the first line of its help."""


AS_JSON = "hetuflow.as_json"
"""Whether JSON is wanted, among what the contexts of one call share."""


class Failure(click.ClickException):
  """One line on stderr and exit code 1."""


class WrongSetting(click.ClickException):
  """One line on stderr and the exit code for what the caller must set right."""

  exit_code = 2


class RootGroup(click.Group):
  """Loads commands by the table, and gives every error its exit code."""

  def list_commands(self, ctx: click.Context) -> list[str]:
    """Return the names in the order of the table."""
    return list(COMMANDS)

  def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
    """Load the module of a command."""
    if cmd_name not in COMMANDS:
      return None
    module, _, name = COMMANDS[cmd_name][0].partition(":")
    command: click.Command = getattr(
      importlib.import_module(f"hetuflow.cli.{module}"), name
    )
    return command

  def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Write the table without loading anything."""
    with formatter.section("Commands"):
      formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

  def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
    """Refuse what is no text, and see whether JSON is wanted whatever else is wrong."""
    for arg in args:
      if any("\ud800" <= each <= "\udfff" for each in arg):
        raise click.UsageError(f"{arg!r} is not UTF-8", ctx)
    ctx.meta[AS_JSON] = "--json" in takewhile("--".__ne__, args)
    return super().parse_args(ctx, args)

  def invoke(self, ctx: click.Context) -> Any:
    """Run the command; where JSON is wanted, an error is JSON on stdout too."""
    try:
      return self._invoke(ctx)
    except click.ClickException as error:
      if ctx.meta[AS_JSON]:
        click.echo(json.dumps({"error": _facts(error)}, indent=2))
      raise

  def _invoke(self, ctx: click.Context) -> Any:
    """Run the command; what is not its fault becomes one line."""
    try:
      return super().invoke(ctx)
    except SettingsError as error:
      raise WrongSetting(str(error)) from error
    except HetuflowError as error:
      raise Failure(str(error)) from error
    except OSError as error:
      if error.errno == errno.EPIPE:
        raise  # nobody reads on, as below `| head`: click ends in silence
      raise Failure(str(error)) from error
    except KeyboardInterrupt:
      ctx.exit(EXIT_INTERRUPTED)


def _facts(error: click.ClickException) -> dict[str, Any]:
  """Return an error as plain data; the cause is told by what an ``ApiError`` has."""
  cause = error.__cause__
  return {
    "message": error.format_message(),
    "exit_code": error.exit_code,
    "status": getattr(cause, "status", None),
    "errors": [
      {"path": path, "message": message}
      for path, message in getattr(cause, "errors", getattr(cause, "issues", ()))
    ],
  }


@click.group(cls=RootGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hetuflow")
def cli() -> None:
  """Run jobs on time, anywhere: cron for a fleet on PostgreSQL.

  The server is found by --server and --key, else by HETUFLOW_URL and HETUFLOW_API_KEY,
  else in the data folder of this machine.
  """


add_common_options(cli)


def main() -> None:
  """Run the command line and end the process with its exit code."""
  cli(prog_name="hetuflow")
