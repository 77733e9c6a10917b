"""What the API needs from the rest of the server."""

from collections.abc import Callable
from typing import Any, Protocol, cast

import attrs
import trio
from quart import current_app

from hetuflow.protocol.model import Connection, GatewayStatistics, ServerId
from hetuflow.server.api.pulse import Pulse
from hetuflow.storage.connect import Database

__all__ = ["EXTENSION", "ApiServices", "GatewayView", "services"]

EXTENSION = "hetuflow"
MIB = 1024**2


class GatewayView(Protocol):
  """The gateway as the API sees it."""

  def connections(self) -> list[Connection]:
    """List the live sessions of this server."""
    ...

  def statistics(self) -> GatewayStatistics:
    """Return counters."""
    ...

  async def serve_websocket(self) -> None:
    """Serve the WebSocket of the current context to its end."""
    ...


def _no_wake(kind: str, namespace_id: str) -> None:
  """Wake nobody: polling finds it."""


def _no_figures() -> dict[str, Any]:
  """Know of no loops."""
  return {}


@attrs.frozen(kw_only=True)
class ApiServices:
  """What the API needs, handed in by the server's tree.

  Args:
    database: where everything is.
    gateway: the sessions of agents.
    figures: returns what each loop has done, as plain JSON types.
    tree: returns the state of the supervision tree, as plain JSON types.
    server_id: of this server.
    version: of this program.
    wake: hints, after a commit, that there are new ``tasks`` or ``schedules`` in a
      namespace, or orders for ``agents``; called with the kind and the namespace.
    max_body_size: bytes of the largest body that is read.
    max_followers: callers that may follow output live at the same time.
    cors_origins: web origins that may call; ``*`` means all.
    draining: set when the server takes nothing new; streams end then.
  """

  database: Database
  gateway: GatewayView
  tree: Callable[[], dict[str, Any]]
  server_id: ServerId
  version: str
  wake: Callable[[str, str], None] = _no_wake
  figures: Callable[[], dict[str, Any]] = _no_figures
  max_body_size: int = 16 * MIB
  max_followers: int = 100
  cors_origins: tuple[str, ...] = ()
  draining: trio.Event = attrs.field(factory=trio.Event)
  pulse: Pulse = attrs.field(init=False)
  followers: set[object] = attrs.field(init=False, factory=set)

  @pulse.default
  def _default_pulse(self) -> Pulse:
    """Make what asks after the database's health."""
    return Pulse(self.database)


def services() -> ApiServices:
  """Return the services of the application that serves this request."""
  return cast(ApiServices, current_app.extensions[EXTENSION])
