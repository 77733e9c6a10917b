"""Namespaces are bound to servers that are alive, in proportion to their weights.

Run by: the leader group of the server that leads. Owns the memory of which servers are
under strain. Every move is one statement that checks the term and raises the binding's
epoch: what the former server still plans is refused. If the leader dies, its successor
finds the bindings as they are and goes on.

A server that dies is noticed when its last sign of life runs out: the next look is never
later than that. Servers that come or stop, and namespaces that are made, are told of by
wake-ups.
"""

import structlog
import trio

from hetuflow.errors import Unavailable
from hetuflow.nursery import Backoff, Outage, Wakeup
from hetuflow.protocol.model import ServerId
from hetuflow.server.scheduling.leading.assign import Place, Portion, assign
from hetuflow.server.scheduling.leading.office import Office
from hetuflow.storage.bindings import (
  Balance,
  ServerRow,
  move_namespaces,
  read_balance,
)
from hetuflow.storage.connect import Database

__all__ = ["Balancer"]

MOVES_PER_PASS, MOVES_SHARE, MAX_MOVES = 10, 20, 100
"""Namespaces that move in one pass for the sake of balance: as many, or one in so many of
all, but never more than that."""
PAUSE = 1.0
"""Seconds between two such passes: those that moved begin where they are."""
PATIENCE = 0.05
"""Seconds by which a look comes after the end of a sign of life."""
STRAIN, EASE = 0.95, 0.6
"""The load from which a server is under strain, and the one below which no longer. It
gives a quarter away, after which it is well between the two."""

_log = structlog.get_logger()


class Balancer:
  """The loop that binds.

  Args:
    database: where bindings are.
    office: the term in which they are written.
    wakeup: set when servers or namespaces have come or gone.
  """

  def __init__(self, database: Database, office: Office, wakeup: Wakeup) -> None:
    self._database = database
    self._office = office
    self._wakeup = wakeup
    self._strained: set[ServerId] = set()
    self._outage = Outage(
      Unavailable,
      event="balancer_waits_for_database",
      backoff=Backoff(maximum=PAUSE),
    )

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Bind for as long as the term lasts.

    Raises:
      TermOver: it is over.
    """
    task_status.started()
    while True:
      delay = await self._outage.retry(self.balance_once)
      await self._wakeup.wait(delay)

  async def balance_once(self) -> float:
    """Look once and move what has to move; return the seconds until the next look.

    Raises:
      TermOver: the term is over; nothing moved.
    """
    term = self._office.term
    balance = await read_balance(self._database)
    self._judge(balance.servers)
    namespaces = balance.namespaces
    limit = max(MOVES_PER_PASS, min(MAX_MOVES, len(namespaces) // MOVES_SHARE))
    moves = assign(
      self._places(balance),
      [Portion(id=each.id, weight=each.weight, wish=each.wish) for each in namespaces],
      {each.id: each.server_id for each in namespaces if each.server_id is not None},
      limit,
    )
    if moves:
      # The clocks are looked at again: reading may have taken long.
      moved = await move_namespaces(self._database, self._office.term, moves)
      _log.info("namespaces_moved", count=moved, term=term.term)
      return PAUSE
    return self._next_look(balance)

  def _judge(self, servers: list[ServerRow]) -> None:
    """Remember which servers are under strain; one that was must ease well before."""
    self._strained = {
      each.id
      for each in servers
      if each.load >= (EASE if each.id in self._strained else STRAIN)
    }

  def _places(self, balance: Balance) -> list[Place]:
    """Say what may be given to whom."""
    return [
      Place(id=each.id, weight=each.weight, strained=each.id in self._strained)
      for each in balance.servers
    ]

  def _next_look(self, balance: Balance) -> float:
    """Return the seconds until the first sign of life could run out."""
    lasting = [each.seconds for each in balance.servers]
    return min(lasting, default=PAUSE) + PATIENCE
