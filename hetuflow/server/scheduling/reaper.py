"""What silent agents have is given to others; silent servers are signed off.

Run by: the leader group of the server that leads. Owns nothing: every look begins anew,
and every write checks the term, so a leader that dies, or leads no longer, leaves nothing
half done. While the database is away it waits.

An agent is silent when its lease is over. After an outage all of them are, at once, so
they first have the time to come back: see ``Patience``. What is lost is waited for
(``storage/reaping.sql``); an agent that comes back with it takes it up again, unless
another has it by then.
"""

import structlog
import trio

from hetuflow.errors import Unavailable
from hetuflow.nursery import Outage
from hetuflow.server.clock import DatabaseClock
from hetuflow.server.scheduling.leading.office import Office
from hetuflow.storage.connect import Database
from hetuflow.storage.reaping import (
  Patience,
  close_lost,
  find_overdue,
  lose_instances,
  sign_off_servers,
)

__all__ = ["Reaper"]

INTERVAL = 2.0
"""Seconds between two looks."""
TERM_GRACE = 10.0
"""Seconds that agents have after a change of the leader, but never more than a lease."""

_log = structlog.get_logger()


class Reaper:
  """The loop that gives up the silent.

  Args:
    database: where to look and write.
    office: the term in which it is written.
    clock: tells since when the database has been in touch.
    lease: seconds for which a heartbeat of an agent is good.
    lost_grace: seconds for which lost attempts are waited for.
  """

  def __init__(
    self,
    database: Database,
    office: Office,
    clock: DatabaseClock,
    *,
    lease: float,
    lost_grace: float,
  ) -> None:
    self._database = database
    self._office = office
    self._clock = clock
    self._patience = Patience(lease=lease, term=min(TERM_GRACE, lease), lost=lost_grace)
    self._outage = Outage(Unavailable, event="reaper_waits_for_database")

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Look for as long as the term lasts.

    Raises:
      TermOver: it is over.
    """
    task_status.started()
    while True:
      if not await self._outage.retry(self.reap_once):
        await trio.sleep(INTERVAL)

  async def reap_once(self) -> int:
    """Give up what is overdue, some at a time; return how much that was.

    Raises:
      TermOver: the term is over; nothing was written in it.
    """
    overdue = await find_overdue(
      self._database, self._patience, steady_since=self._clock.steady_since
    )
    reaped = 0
    # The office is asked before each statement: what was read may have taken long.
    if overdue.agents:
      term = self._office.term
      for agent in await lose_instances(self._database, term, overdue.agents):
        _log.warning(
          "agent_lost", agent=agent.name, agent_id=str(agent.id), instances=agent.count
        )
        reaped += agent.count
    if overdue.lost:
      reaped += await self._close()
    if overdue.servers:
      for server_id in await sign_off_servers(self._database, self._office.term):
        _log.warning("server_lost", server_id=str(server_id))
        reaped += 1
    return reaped

  async def _close(self) -> int:
    """Wait no longer for what is overdue; return how much that was."""
    closed = await close_lost(self._database, self._office.term, self._patience)
    if closed:
      _log.info("lost_closed", instances=closed)
    return closed
