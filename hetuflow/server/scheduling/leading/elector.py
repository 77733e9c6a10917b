"""Who leads: the office is taken, kept for as long as it is renewed, and given up.

Run by: one child of each server. Owns the server's part in the office and, while it holds
it, the leader group: a supervisor of its own, run in a scope that ends with the term.

A leader that dies is followed when its term has run out by the database's clock; one that
is stopped resigns, and is followed at once. A leader that cannot renew its term, because
the database is away, the network hangs or the process was frozen, stops by its own clocks
before that (``Office``). What it had under way is refused by the database if it comes too
late. A part of the group that fails too often gives the office up: perhaps another server
fares better.
"""

import structlog
import trio

from hetuflow.errors import Refused, SettingsError, Unavailable
from hetuflow.nursery import Backoff, Outage, Restart, Supervisor
from hetuflow.protocol.model import ServerId
from hetuflow.server.scheduling.leading.office import Office
from hetuflow.server.trust import Moment
from hetuflow.storage.connect import Database
from hetuflow.storage.leader import Term, TermOver, acquire_leader, resign_leader

__all__ = ["IN_TERM", "STOP_TIMEOUT", "Elector"]

IN_TERM = Restart(fatal=(TermOver, Refused, SettingsError))
"""How the children of the leader group are restarted: not once the term is over."""
STOP_TIMEOUT = 0.1
"""Seconds for one child of the group to stop before the next is stopped, too."""
RESIGN_TIMEOUT = 1.0
"""Seconds for the database to hear that this server resigns."""
RETRY_INTERVAL = 0.25
"""Seconds until the next try where somebody else was quicker."""

_log = structlog.get_logger()


class Elector:
  """This server's candidacy.

  Args:
    database: where the office is.
    server_id: this server.
    office: what it knows of it.
    leader: runs the leader group.
  """

  def __init__(
    self,
    database: Database,
    server_id: ServerId,
    office: Office,
    leader: Supervisor,
  ) -> None:
    self._database = database
    self._server_id = server_id
    self._office = office
    self._leader = leader
    self._outage = Outage(
      Unavailable,
      event="elector_waits_for_database",
      backoff=Backoff(maximum=1.0),
    )

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Stand for the office for ever, and lead whenever it is won."""
    task_status.started()
    while True:
      await self._wait_vacant()
      await self.elect_once()

  async def elect_once(self) -> Term | None:
    """Try to take the office; lead for as long as that lasts, and return the term."""
    won = await self._outage.retry(self._stand)
    if won is None:
      return None
    await self._lead(*won)
    return won[0]

  async def _stand(self) -> tuple[Term, Moment] | None:
    """Acquire the office if it is vacant; return the term and when it was asked for."""
    # The next beat knows better; until then somebody else may fail at once.
    self._office.vacant_at = trio.current_time() + RETRY_INTERVAL
    since = Moment()
    term = await acquire_leader(self._database, self._server_id, ttl=self._office.ttl)
    return None if term is None else (term, since)

  async def _wait_vacant(self) -> None:
    """Wait until the office may be vacant."""
    while (wait := self._office.vacant_at - trio.current_time()) > 0:
      await self._office.news.wait(wait)

  async def _lead(self, term: Term, since: Moment) -> None:
    """Run the leader group until the term ends, and leave nothing of it behind.

    Raises:
      SupervisionError: a part of the group fails too often.
    """
    _log.info("leader_elected", term=term.term)
    try:
      with trio.CancelScope() as scope:
        self._office.enter(term, since, scope)
        await self._leader.run()
    except TermOver as error:
      _log.warning("leader_refused", term=term.term, error=str(error))
    finally:
      self._office.expire()
      self._office.leave("given up")
      with trio.move_on_after(RESIGN_TIMEOUT, shield=True):
        await self._resign(term)

  async def _resign(self, term: Term) -> None:
    """Let another follow at once, if the database hears it."""
    try:
      if await resign_leader(self._database, term):
        _log.info("leader_resigned", term=term.term)
    except Unavailable as error:
      _log.debug("leader_not_resigned", term=term.term, error=str(error))
