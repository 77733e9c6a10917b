"""What is to be kept going is kept going: daemons, and intervals from end to start.

Run by: one child of each server, for the namespaces bound to it. Owns nothing: what there
is stands in ``sched_replica``, and each change of it is a transaction that holds its
schedule. Two servers that serve a namespace for a moment do each thing once; one that
dies in the middle has done nothing, and the next look finds what is left to do. Where
there is nothing to keep it asks every few seconds; else every second, or when a start is
due, or somebody hints.
"""

from datetime import timedelta

import structlog
import trio

from hetuflow.errors import Conflict, StorageError, Unavailable
from hetuflow.nursery import Outage, Wakeup
from hetuflow.server.scheduling.bindings import Bindings
from hetuflow.storage.connect import Database
from hetuflow.storage.replicas import keep_schedule, read_keepings
from hetuflow.storage.upkeep import Keeping, judge

__all__ = ["Reconciler"]

INTERVAL = 1.0
IDLE_INTERVAL = 5.0
"""Seconds between looks where nothing is kept going."""
PAUSE = 0.05
"""Seconds that hints are gathered for."""
STEPS = 5
"""Changes of one schedule in one pass; each may be the occasion of the next."""

_HINTS = ("schedules", "ends:")

_log = structlog.get_logger()


class Reconciler:
  """The loop that keeps going.

  Args:
    database: where schedules and tasks are.
    bindings: the namespaces to work for.
    wakeup: set when schedules have changed, or tasks that they keep have ended.
    horizon: seconds ahead that the task of an interval is planned.
  """

  def __init__(
    self, database: Database, bindings: Bindings, wakeup: Wakeup, *, horizon: float
  ) -> None:
    self._database = database
    self._bindings = bindings
    self._wakeup = wakeup
    self._horizon = timedelta(seconds=horizon)
    self._known = False
    self._outage = Outage(Unavailable, event="reconciler_waits_for_database")
    bindings.tell(wakeup.set)

  def hint(self, payload: str | None) -> None:
    """Take a notification; that of an end means nothing where nothing is kept going."""
    if payload is None or payload.startswith(_HINTS if self._known else "schedules"):
      self._wakeup.set()

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Keep going for ever."""
    task_status.started()
    while True:
      wait = await self._outage.retry(self.reconcile_once)
      await trio.sleep(PAUSE)
      await self._wakeup.wait(wait)

  async def reconcile_once(self) -> float:
    """Do what there is to do; return the seconds until there may be more."""
    namespaces = list(self._bindings.epochs)
    if not namespaces:
      return IDLE_INTERVAL
    keepings = await read_keepings(self._database, namespaces=namespaces)
    self._known = bool(keepings)
    for keeping in keepings:
      if judge(keeping, horizon=self._horizon):
        await self._keep(keeping)
    if not keepings:
      return IDLE_INTERVAL
    return min(map(_until_next, keepings))

  async def _keep(self, keeping: Keeping) -> None:
    """Change one schedule until nothing is left to do for now."""
    try:
      for _ in range(STEPS):
        done = await keep_schedule(
          self._database, keeping.schedule_id, horizon=self._horizon
        )
        if not done:
          return
        _log.debug(
          "replicas_kept",
          schedule_id=str(keeping.schedule_id),
          started=len(done.due),
          ended=len(done.ended),
          stopped=len(done.stops),
        )
    except Conflict as error:
      # Somebody gave an earlier task of a replica another attempt: that one counts now.
      _log.warning(
        "replica_occupied", schedule_id=str(keeping.schedule_id), error=str(error)
      )
    except Unavailable:
      raise
    except StorageError as error:
      # A row that nobody can work with must not stop what others keep going.
      _log.error(
        "schedule_unusable", schedule=str(keeping.schedule_id), error=str(error)
      )


def _until_next(keeping: Keeping) -> float:
  """Return the seconds until a replica starts anew, at most those between two looks."""
  waits = [
    (replica.next_at - keeping.read_at).total_seconds()
    for replica in keeping.replicas
    if replica.next_at is not None
  ]
  return min([INTERVAL, *(wait for wait in waits if wait > 0)])
