"""Upkeep of the database.

Run by: the leader group of the server that leads. Owns the memory of what it has pruned:
it makes partitions ahead and forgets what is of no use any more; that one dies half way, or
goes on when another leads already, is harmless, so that no term is checked. While the
database is away it waits.

History is kept by whole weeks. One that no namespace keeps any longer is dropped, at a
moment when nobody has to wait for that; from one that only some keep no longer their rows
are deleted, a few pages at a time with a pause after each. A week is pruned once for each
namespace: nothing is ever added to it.
"""

from collections.abc import Awaitable, Callable

import attrs
import structlog
import trio

from hetuflow.errors import Unavailable
from hetuflow.nursery import Outage
from hetuflow.protocol.model import NamespaceId
from hetuflow.storage.agents import forget_agents
from hetuflow.storage.connect import Database
from hetuflow.storage.dead_letters import forget_letters
from hetuflow.storage.idempotency import forget_expired
from hetuflow.storage.maintenance import ensure_partitions
from hetuflow.storage.retention import (
  Expired,
  drop_week,
  has_output,
  list_expired,
  prune_gaps,
  prune_pages,
)
from hetuflow.storage.routes import forget_agent_routes
from hetuflow.storage.servers import forget_servers

__all__ = ["Janitor"]

UPKEEP_INTERVAL = 3_600.0
RETRY_INTERVAL = 60.0
"""Seconds until the next try where a week could not be dropped."""
PRUNE_PAGES = 200
"""Pages of a week that are pruned in one statement: some 5,000 rows at most."""
PRUNE_PAUSE = 0.1
"""Seconds after each of them."""
FORGET_LIMIT = 10_000
"""Rows forgotten in one statement."""
SERVER_DAYS = 7
"""Days for which a server that is gone is still listed."""
AGENT_DAYS = 30
"""Days for which an agent that is gone is still listed."""
LETTER_DAYS = 30
"""Days for which a dead letter waits for somebody to look at it."""

_log = structlog.get_logger()


class Janitor:
  """Upkeep at each election and once an hour.

  Args:
    database: what is kept up.
  """

  def __init__(self, database: Database) -> None:
    self._database = database
    self._pruned: dict[str, frozenset[NamespaceId]] = {}
    self._outage = Outage(Unavailable, event="janitor_waits_for_database")

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Keep up for ever."""
    task_status.started()
    while True:
      await self._outage.retry(self.tidy_once)
      done = await self._outage.retry(self.retain_once)
      await trio.sleep(UPKEEP_INTERVAL if done else RETRY_INTERVAL)

  async def tidy_once(self) -> None:
    """Make partitions ahead, and forget what is of no use any more."""
    database = self._database
    made = await ensure_partitions(database)
    keys = await _all(lambda limit: forget_expired(database, limit))
    letters = await _all(
      lambda limit: forget_letters(database, days=LETTER_DAYS, limit=limit)
    )
    gaps = await _all(lambda limit: prune_gaps(database, limit))
    agents = await _all(
      lambda limit: forget_agents(database, days=AGENT_DAYS, limit=limit)
    )
    servers = await forget_servers(database, days=SERVER_DAYS)
    routes = await _all(lambda limit: forget_agent_routes(database, limit=limit))
    if made or keys or letters or gaps or agents or servers or routes:
      _log.info(
        "upkeep_done",
        partitions=made,
        keys_forgotten=keys,
        letters_forgotten=letters,
        gaps_forgotten=gaps,
        agents_forgotten=agents,
        servers_forgotten=servers,
        routes_forgotten=routes,
      )

  async def retain_once(self) -> bool:
    """Drop and prune the weeks that are over; tell whether all of them are.

    Tried again after an outage it goes on with the week it was at.
    """
    done = True
    for expired in await list_expired(self._database):
      week = expired.week
      if not expired.all or await has_output(self._database, week):
        await self._prune(expired)
      elif await drop_week(self._database, week):
        _log.info("week_dropped", partition=week.name)
      else:
        done = False
    return done

  async def _prune(self, expired: Expired) -> None:
    """Delete from a week the rows of namespaces that it was not pruned for before."""
    week = expired.week
    known = self._pruned.get(week.name, frozenset())
    rest = attrs.evolve(expired, namespaces=expired.namespaces - known)
    if not rest.namespaces:
      return
    rows = 0
    for page in range(0, week.pages, PRUNE_PAGES):
      rows += await prune_pages(self._database, rest, page, page + PRUNE_PAGES)
      await trio.sleep(PRUNE_PAUSE)
    self._pruned[week.name] = known | rest.namespaces
    if rows:
      _log.info("week_pruned", partition=week.name, rows=rows)


async def _all(forget: Callable[[int], Awaitable[int]]) -> int:
  """Forget in portions until there is no more; return how many there were."""
  forgotten = latest = await forget(FORGET_LIMIT)
  while latest == FORGET_LIMIT:
    latest = await forget(FORGET_LIMIT)
    forgotten += latest
  return forgotten
