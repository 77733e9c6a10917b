"""The connected agents of a server, one session each.

The gateway enters sessions and strikes them off; whoever has to find an agent looks here.
Nothing but entering and waiting for the end awaits.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

import trio

from hetuflow.nursery import NodeState
from hetuflow.nursery.spec import Outline
from hetuflow.nursery.state import Kind, Status
from hetuflow.protocol.model import AgentId, NamespaceId
from hetuflow.server.session import Session
from hetuflow.server.traffic import Traffic

__all__ = ["Sessions"]

SESSIONS_SHOWN = 50


class Sessions:
  """The registry of connected agents; also the ``session*`` of the tree."""

  def __init__(self) -> None:
    self._by_agent: dict[AgentId, Session] = {}
    self._entering: WeakValueDictionary[AgentId, trio.Lock] = WeakValueDictionary()
    self._empty = trio.Event()
    self.ended: tuple[int, str] | None = None
    self.opened = 0
    self._past = Traffic()

  def __len__(self) -> int:
    return len(self._by_agent)

  def __iter__(self) -> Iterator[Session]:
    return iter(list(self._by_agent.values()))

  def get(self, agent_id: AgentId) -> Session | None:
    """Return the session of an agent, if it is connected here."""
    return self._by_agent.get(agent_id)

  @asynccontextmanager
  async def entering(self, agent_id: AgentId) -> AsyncIterator[None]:
    """Let an agent enter here once at a time, in the order of arrival.

    Of two sessions of one agent the one that the database took last is live. Whoever has
    been taken must be added before the next one asks, or the older would replace it.
    """
    # Those who wait keep the lock alive; the last one takes it along.
    lock = self._entering.setdefault(agent_id, trio.Lock())
    async with lock:
      yield

  def add(self, session: Session) -> None:
    """Enter a session; an older one of the same agent is told to go.

    So is the new one where every session has been told to.
    """
    older = self._by_agent.get(session.agent_id)
    if older is not None:
      older.close(4003, "replaced by a newer session")
    if not self._by_agent:
      self._empty = trio.Event()
    self._by_agent[session.agent_id] = session
    self.opened += 1
    if self.ended is not None:
      session.close(*self.ended)

  def remove(self, session: Session) -> None:
    """Strike a session off, unless a newer one has taken its place.

    Whoever looks at it still, in the middle of a claim, finds nothing to claim for.
    """
    session.run = session.hold = 0
    if session.struck_off:
      return
    session.struck_off = True
    self._past.add(session.traffic)
    if self._by_agent.get(session.agent_id) is session:
      del self._by_agent[session.agent_id]
      if not self._by_agent:
        self._empty.set()

  async def wait_empty(self) -> None:
    """Wait until nobody is connected."""
    while self._by_agent:
      await self._empty.wait()

  def traffic(self) -> Traffic:
    """Return what was said on all connections, those that have ended too."""
    total = Traffic()
    for each in (self._past, *(session.traffic for session in self)):
      total.add(each)
    return total

  def agent_ids(self) -> list[AgentId]:
    """Return who is connected."""
    return list(self._by_agent)

  def namespaces(self) -> list[NamespaceId]:
    """Return the namespaces somebody is connected for."""
    return sorted({name for session in self for name in session.namespace_ids})

  def by_namespace(self) -> dict[NamespaceId, list[Session]]:
    """Group the connected agents by namespace."""
    groups: dict[NamespaceId, list[Session]] = {}
    for session in self._by_agent.values():
      for name in session.namespace_ids:
        groups.setdefault(name, []).append(session)
    return groups

  def close_all(self, code: int, reason: str) -> None:
    """Ask for the end of every connection, for good: also of those that still come."""
    self.ended = (code, reason)
    for session in self:
      session.close(code, reason)

  def outline(self) -> Outline:
    """Return what is drawn of the sessions in the tree."""
    return Outline(label="session*", doc="one per connected agent: receive, send")

  def state(self) -> NodeState:
    """Return the sessions as a node of the tree; the first ones are listed."""
    members: Iterable[Session] = list(self._by_agent.values())[:SESSIONS_SHOWN]
    return NodeState(
      name="session",
      kind=Kind.CROWD,
      status=Status.RUNNING,
      since=0.0,
      count=len(self),
      children=tuple(
        NodeState(
          name=session.name,
          kind=Kind.MEMBER,
          status=Status.RUNNING,
          since=session.connected_at.timestamp(),
        )
        for session in members
      ),
    )
