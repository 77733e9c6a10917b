"""Tasks that every matching agent runs are spread over them, and end when all parts have.

Run by: one child of each server, for the namespaces bound to it. Owns nothing but what it
last saw. Everything it does is a transaction that holds the rows it changes: two servers
that serve a namespace for a moment do each thing once, and one that dies has done a thing
or has not. Where there is nothing to broadcast it asks every few seconds; else every
second, when a task is due, and when somebody hints.
"""

from collections.abc import Sequence

import structlog
import trio

from hetuflow.errors import Unavailable
from hetuflow.nursery import Outage, Wakeup
from hetuflow.server.scheduling.bindings import Bindings
from hetuflow.storage.broadcasts import (
  abandon_parts,
  cancel_parts,
  end_broadcasts,
  spread_broadcasts,
  survey_broadcasts,
)
from hetuflow.storage.connect import Database

__all__ = ["Broadcaster"]

INTERVAL = 1.0
IDLE_INTERVAL = 5.0
"""Seconds between looks where no job is broadcast."""
PAUSE = 0.02
"""Seconds that hints are gathered for."""

_HINTS = ("routes", "tasks:", "ends:", "cancels")

_log = structlog.get_logger()


class Broadcaster:
  """The loop that broadcasts.

  Args:
    database: where the tasks are.
    bindings: the namespaces to work for.
    wakeup: set when there may be tasks to spread, cancel or end.
    lost_grace: seconds that a part waits for an agent that is gone.
  """

  def __init__(
    self,
    database: Database,
    bindings: Bindings,
    wakeup: Wakeup,
    *,
    lost_grace: float,
  ) -> None:
    self._database = database
    self._bindings = bindings
    self._wakeup = wakeup
    self._lost_grace = lost_grace
    self._known = False
    self._outage = Outage(Unavailable, event="broadcaster_waits_for_database")
    bindings.tell(wakeup.set)

  def hint(self, payload: str | None) -> None:
    """Take a notification, of which most mean nothing where no job is broadcast."""
    if payload is None or payload.startswith(_HINTS if self._known else "routes"):
      self._wakeup.set()

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Broadcast for ever."""
    task_status.started()
    while True:
      wait = await self._outage.retry(self.broadcast_once)
      await trio.sleep(PAUSE)
      await self._wakeup.wait(wait)

  async def broadcast_once(self) -> float:
    """Do what there is to do; return the seconds until there may be more."""
    namespaces = list(self._bindings.epochs)
    if not namespaces:
      return IDLE_INTERVAL
    survey = await survey_broadcasts(self._database, namespaces)
    self._known = survey.known or survey.running
    if survey.running:
      await self._end(namespaces)
    if survey.due_in is not None and survey.due_in <= 0:
      spread = await spread_broadcasts(self._database, namespaces)
      if spread:
        _log.debug("broadcasts_spread", tasks=spread)
        return 0.0
    if survey.due_in is not None and 0 < survey.due_in < INTERVAL:
      return survey.due_in
    return INTERVAL if self._known else IDLE_INTERVAL

  async def _end(self, namespaces: Sequence[str]) -> None:
    """Cancel and give up parts where it is due, and end what has no live part."""
    await cancel_parts(self._database, namespaces)
    await abandon_parts(self._database, namespaces, grace=self._lost_grace)
    ended = await end_broadcasts(self._database, namespaces)
    if ended:
      _log.debug("broadcasts_ended", tasks=ended)
