"""What the commands share: where the server is, and how they meet it.

``Group`` and ``Command`` take the common options themselves, so that
``hetuflow --server URL jobs list`` and ``hetuflow jobs list --server URL`` mean the same.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
  from hetuflow.client import Call, Client

__all__ = [
  "EXIT_INTERRUPTED",
  "Command",
  "Group",
  "Session",
  "add_common_options",
  "group",
  "json_option",
  "pass_session",
]

EXIT_INTERRUPTED = 130
"""128 and the number of SIGINT, as shells have it."""
DEFAULT_NAMESPACE = "default"

T = TypeVar("T")


class Session:
  """The common options of one call of ``hetuflow``, and the client they lead to."""

  def __init__(self) -> None:
    self.server: str | None = None
    self.key: str | None = None
    self.data_dir: Path | None = None
    self.namespace: str | None = None
    self._client: Client | None = None

  @property
  def here(self) -> str:
    """The namespace in which names are looked up and jobs are made."""
    return self.namespace or DEFAULT_NAMESPACE

  @property
  def client(self) -> "Client":
    """The client, made when it is first needed and closed with the command.

    Raises:
      SettingsError: no server or no key can be found.
    """
    if self._client is None:
      # httpx and the protocol are of no use to commands that do not call.
      import stamina.instrumentation

      from hetuflow.client import Client, find_server

      stamina.instrumentation.set_on_retry_hooks([])
      place = find_server(server=self.server, key=self.key, data_dir=self.data_dir)
      self._client = Client(place)
      click.get_current_context().find_root().call_on_close(self._client.close)
    return self._client

  def send(self, call: "Call[T]") -> T:
    """Make a call of the API and return its answer."""
    return self.client.send(call)


pass_session = click.make_pass_decorator(Session, ensure=True)

json_option = click.option(
  "--json", "as_json", is_flag=True, help="Print JSON instead of a table."
)


def _store(ctx: click.Context, option: click.Parameter, value: Any) -> None:
  """Keep a common option wherever on the line it stood; the last one wins."""
  session = ctx.ensure_object(Session)
  if value is not None and option.name is not None:
    setattr(session, option.name, value)


def _common_options() -> list[click.Option]:
  """Make the options that every command takes."""
  make: Callable[..., click.Option] = click.Option
  rest = {"expose_value": False, "callback": _store}
  folder = click.Path(file_okay=False, path_type=Path)
  return [
    make(["--server"], metavar="URL", help="The server to speak to.", **rest),
    make(["--key"], metavar="KEY", help="An API key.", **rest),
    make(["--data-dir"], type=folder, help="Where a local server lives.", **rest),
    make(["--namespace"], metavar="SLUG", help="Default: default.", **rest),
  ]


def add_common_options(command: click.Command) -> None:
  """Give a command the common options, behind its own."""
  command.params.extend(_common_options())


class Command(click.Command):
  """A command that takes the common options."""

  def __init__(self, *args: Any, **options: Any) -> None:
    super().__init__(*args, **options)
    add_common_options(self)


class Group(click.Group):
  """A group of such commands."""

  command_class = Command


def group(name: str) -> Callable[[Callable[..., Any]], Group]:
  """Make a function the group of the given name."""
  return click.group(name, cls=Group)
