"""Upkeep of the database.

Run by: the leader group of the server that leads. Owns nothing: it makes partitions ahead
and forgets what is of no use any more; that one dies half way, or goes on when another
leads already, is harmless, so that no term is checked. While the database is away it
waits.
"""

from collections.abc import Awaitable, Callable

import structlog
import trio

from hetuflow.errors import Unavailable
from hetuflow.nursery import Outage
from hetuflow.storage.connect import Database
from hetuflow.storage.dead_letters import forget_letters
from hetuflow.storage.idempotency import forget_expired
from hetuflow.storage.maintenance import ensure_partitions
from hetuflow.storage.routes import forget_agent_routes
from hetuflow.storage.servers import forget_servers

__all__ = ["Janitor"]

UPKEEP_INTERVAL = 3_600.0
FORGET_LIMIT = 10_000
"""Rows forgotten in one statement."""
SERVER_DAYS = 7
"""Days for which a server that is gone is still listed."""
LETTER_DAYS = 30
"""Days for which a dead letter waits for somebody to look at it."""

_log = structlog.get_logger()


class Janitor:
  """Upkeep once an hour.

  Args:
    database: what is kept up.
  """

  def __init__(self, database: Database) -> None:
    self._database = database
    self._outage = Outage(Unavailable, event="janitor_waits_for_database")

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Keep up for ever."""
    task_status.started()
    while True:
      await self._outage.retry(self.tidy_once)
      await trio.sleep(UPKEEP_INTERVAL)

  async def tidy_once(self) -> None:
    """Make partitions ahead, and forget old keys, servers, routes and dead letters."""
    database = self._database
    made = await ensure_partitions(database)
    keys = await _all(lambda limit: forget_expired(database, limit))
    letters = await _all(
      lambda limit: forget_letters(database, days=LETTER_DAYS, limit=limit)
    )
    servers = await forget_servers(database, days=SERVER_DAYS)
    routes = await _all(lambda limit: forget_agent_routes(database, limit=limit))
    if made or keys or letters or servers or routes:
      _log.info(
        "upkeep_done",
        partitions=made,
        keys_forgotten=keys,
        letters_forgotten=letters,
        servers_forgotten=servers,
        routes_forgotten=routes,
      )


async def _all(forget: Callable[[int], Awaitable[int]]) -> int:
  """Forget in portions until there is no more; return how many there were."""
  forgotten = latest = await forget(FORGET_LIMIT)
  while latest == FORGET_LIMIT:
    latest = await forget(FORGET_LIMIT)
    forgotten += latest
  return forgotten
