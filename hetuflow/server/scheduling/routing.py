"""Which agent can do what: the routes of each namespace, as this server knows them.

Run by: the poller, in its own task; hints come from anybody in the Trio thread. Owns what
was read of the routes. A route that no hint told of is found by reading again every few
seconds; an agent that comes or changes is compared with all of them anew.
"""

import math

import trio

from hetuflow.protocol.model import NamespaceId
from hetuflow.server.session import Session
from hetuflow.server.sessions import Sessions
from hetuflow.storage.connect import Database
from hetuflow.storage.routes import Route, list_routes

__all__ = ["Routing", "satisfies"]

INTERVAL = 5.0
"""Seconds after which routes are read again though nobody said that there are new ones."""


class Routing:
  """The routes of the namespaces that agents are connected for.

  Args:
    database: where routes are.
    sessions: the connected agents.
  """

  def __init__(self, database: Database, sessions: Sessions) -> None:
    self._database = database
    self._sessions = sessions
    self._routes: dict[NamespaceId, dict[int, Route]] = {}
    self._own: dict[NamespaceId, dict[str, int]] = {}
    self._fresh_until = -math.inf
    self.weights: dict[NamespaceId, int] = {}
    """What each namespace counts for."""

  def hint(self) -> None:
    """Take a hint that there are new routes."""
    self._fresh_until = -math.inf

  async def refresh(self, namespace_id: NamespaceId) -> bool:
    """Read the routes again if they may have changed, or are not known at all.

    Returns:
      Whether they were read.
    """
    known = namespace_id in self._routes
    if known and trio.current_time() < self._fresh_until:
      return False
    # Before they are read: a hint that comes meanwhile may speak of a later one.
    self._fresh_until = trio.current_time() + INTERVAL
    try:
      await self._read()
    except BaseException:
      self._fresh_until = -math.inf
      raise
    return True

  def satisfied(self, namespace_id: NamespaceId, session: Session) -> tuple[int, ...]:
    """Find the routes of a namespace that an agent satisfies, remembered by session."""
    routes = self._routes.get(namespace_id, {})
    known = session.routes.get(namespace_id)
    if known is None or known[0] is not routes:
      found = tuple(route.id for route in routes.values() if satisfies(session, route))
      known = session.routes[namespace_id] = (routes, found)
    return known[1]

  def own_route(self, namespace_id: NamespaceId, session: Session) -> int | None:
    """Find the route of a namespace that leads to this one agent, if there is one."""
    return self._own.get(namespace_id, {}).get(str(session.agent_id))

  async def _read(self) -> None:
    """Read every route of the namespaces that agents are connected for."""
    names = self._sessions.namespaces()
    routes: dict[NamespaceId, dict[int, Route]] = {name: {} for name in names}
    own: dict[NamespaceId, dict[str, int]] = {}
    weights: dict[NamespaceId, int] = {}
    for route in await list_routes(self._database, names):
      weights[route.namespace_id] = route.weight
      # There may be one for every agent, and nobody else need compare it with anything.
      if (agent_id := route.selector.get("agent")) is not None:
        own.setdefault(route.namespace_id, {})[str(agent_id)] = route.id
      else:
        routes.setdefault(route.namespace_id, {})[route.id] = route
    self.weights, self._own = weights, own
    # Unchanged namespaces keep their object, and sessions what they know of it.
    for name, fresh in routes.items():
      if self._routes.get(name) != fresh:
        self._routes[name] = fresh


def satisfies(session: Session, route: Route) -> bool:
  """Tell whether an agent can do what a route asks for.

  A route to one agent has been matched when its tasks were made; that of a broadcast is
  the broadcaster's.
  """
  selector = route.selector
  if (agent_id := selector.get("agent")) is not None:
    return bool(agent_id == str(session.agent_id))
  if selector.get("broadcast"):
    return False
  capabilities = session.capabilities
  if selector.get("executor") not in capabilities.executors:
    return False
  function = selector.get("function")
  if function is not None and function not in capabilities.functions:
    return False
  labels: dict[str, str] = selector.get("labels", {})
  return all(session.labels.get(name) == value for name, value in labels.items())
