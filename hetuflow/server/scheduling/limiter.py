"""Places become free, and those who wait the longest get them; deadlines pass.

Run by: one child of each server, for the namespaces bound to it. Owns what it remembers of
them: when to look again, and how far a round over many lanes has come. Everything else is
counted anew in each pass, under a lock of the namespace: of two limiters in one namespace,
as there are while a binding moves, the second one sees what the first has given away. A
server that dies in the middle of a pass has changed nothing.

A hint names the namespace; without one a place is found once a second while anything waits
for one, and what time alone brings is slept for. While the database is away the loop
waits.
"""

import math
from functools import partial

import structlog
import trio

from hetuflow.errors import Unavailable
from hetuflow.nursery import Outage, Wakeup
from hetuflow.protocol.model import NamespaceId
from hetuflow.server.scheduling.bindings import Bindings
from hetuflow.storage.connect import Database
from hetuflow.storage.limits import (
  Look,
  Pass,
  adopt_running,
  adopt_waiting,
  expire_overdue,
  judge_tasks,
  look_at_limits,
  miss_late,
)

__all__ = ["Limiter"]

KIND = "limits:"
INTERVAL_S = 1.0
"""Between two looks while anything is blocked."""
IDLE_INTERVAL_S = 5.0
"""Between two looks while nothing is."""
LEAST_PAUSE_S = 0.02
"""Before what time brings is looked for again; more comes together by then."""
ADOPT_INTERVAL_S = 30.0
"""Between two looks for tasks that agents took before their namespace had a limit."""
PASSES_IN_A_ROW = 100
"""Passes over one namespace before others have their turn."""

_log = structlog.get_logger()


class Limiter:
  """The loop that gives places, and ends what is too late.

  Args:
    database: where tasks are.
    bindings: which namespaces to serve; tells when they change.
    wakeup: set by hints.
  """

  def __init__(self, database: Database, bindings: Bindings, wakeup: Wakeup) -> None:
    self._database = database
    self._bindings = bindings
    self._wakeup = wakeup
    self._hinted: set[NamespaceId] = set()
    self._look_at = -math.inf
    self._after: dict[NamespaceId, str] = {}
    self._adopted_at: dict[NamespaceId, float] = {}
    self._outage = Outage(Unavailable, event="limiter_waits_for_database")
    self.passes = 0
    self.promoted = 0
    bindings.tell(partial(self.hint, None))

  def hint(self, payload: str | None) -> None:
    """Take a notification: a place may be free somewhere, or anything have happened."""
    if payload is None:
      self._look_at = -math.inf
    elif payload.startswith(KIND):
      self._hinted.add(NamespaceId(payload.removeprefix(KIND)))
    else:
      return
    self._wakeup.set()

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Give places for ever, woken by hints and by time."""
    task_status.started()
    while True:
      pause = await self._outage.retry(self.limit_once)
      if pause > 0:
        await self._wakeup.wait(pause)

  async def limit_once(self) -> float:
    """Look where there is reason to; return the seconds until there is again."""
    mine = self._bindings.epochs
    hinted, self._hinted = self._hinted & set(mine), set()
    try:
      while hinted:
        await self._give_places(next(iter(hinted)))
        hinted.pop()
    except BaseException:
      self._hinted |= hinted
      raise
    if mine and trio.current_time() >= self._look_at:
      await self.look_once()
    if self._hinted:
      return 0.0
    limit = IDLE_INTERVAL_S if mine else math.inf
    return min(limit, max(LEAST_PAUSE_S, self._look_at - trio.current_time()))

  async def look_once(self) -> None:
    """Look at every namespace, do what is due, and note when to look again."""
    asked_at = trio.current_time()
    looks = await look_at_limits(self._database, list(self._bindings.epochs))
    blocked = any(look.due_in is not None for look in looks)
    interval = INTERVAL_S if blocked or self._bindings.blocked else IDLE_INTERVAL_S
    self._look_at = asked_at + interval
    for look in looks:
      self._look_in(min(_future(look), default=math.inf), asked_at)
      await self._follow(look)

  async def _follow(self, look: Look) -> None:
    """Do what is due in one namespace."""
    namespace_id = look.namespace_id
    if look.limited and self._is_time_to_adopt(namespace_id):
      await adopt_running(self._database, namespace_id)
    if look.strays:
      while await adopt_waiting(self._database, namespace_id):
        pass
    if _is_over(look.start_in):
      while await miss_late(self._database, namespace_id):
        pass
    if _is_over(look.end_in):
      while await expire_overdue(self._database, namespace_id):
        pass
    if look.strays or _is_over(look.due_in):
      await self._give_places(namespace_id)

  async def _give_places(self, namespace_id: NamespaceId) -> None:
    """Pass over the lanes of a namespace until there is nothing more to do at once."""
    for _ in range(PASSES_IN_A_ROW):
      done = await self.pass_once(namespace_id)
      if not done.more:
        return
    self.hint(KIND + namespace_id)

  async def pass_once(self, namespace_id: NamespaceId) -> Pass:
    """Decide once over some lanes of a namespace."""
    asked_at = trio.current_time()
    after = self._after.pop(namespace_id, "")
    done = await judge_tasks(self._database, namespace_id, after=after)
    if done.after:
      self._after[namespace_id] = done.after
    if done.next_in is not None:
      self._look_in(done.next_in, asked_at)
    self.passes += 1
    self.promoted += done.promoted
    if done.settled or done.replaced:
      _log.debug(
        "places_given",
        namespace=namespace_id,
        promoted=done.promoted,
        left_out=done.settled - done.promoted,
        replaced=done.replaced,
      )
    return done

  def _look_in(self, seconds: float, since: float) -> None:
    """Look again no later than some seconds after a moment."""
    self._look_at = min(self._look_at, since + seconds)

  def _is_time_to_adopt(self, namespace_id: NamespaceId) -> bool:
    """Tell whether to look for running tasks without a lane; then not for a while."""
    now = trio.current_time()
    if now < self._adopted_at.get(namespace_id, -math.inf):
      return False
    self._adopted_at[namespace_id] = now + ADOPT_INTERVAL_S
    return True


def _is_over(seconds: float | None) -> bool:
  """Tell whether a moment has come."""
  return seconds is not None and seconds <= 0


def _future(look: Look) -> list[float]:
  """List in how many seconds time alone makes a difference in a namespace."""
  moments = (look.due_in, look.start_in, look.end_in)
  return [seconds for seconds in moments if seconds is not None and seconds > 0]
