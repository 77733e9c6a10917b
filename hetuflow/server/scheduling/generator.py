"""Due schedules become tasks, up to the horizon ahead.

Run by: one child of each server, for the namespaces bound to it. Owns a cache of parsed
definitions. Every pass reads schedules whose next planned time is near, computes their
times, and carries the plans out in statements that hold the bindings and move each cursor
by compare-and-set: of two servers that plan the same schedule one finds nothing to move,
and what a server plans for a namespace that is no longer its own comes to nothing. A
server that dies between reading and writing has changed nothing. While the database is
away the loop waits; what became due meanwhile is caught up by the misfire policy of its
job. Once a minute it looks for schedules that were planned too far ahead: the database's
clock was, and has been set back.
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Sequence
from uuid import UUID

import structlog
import trio

from hetuflow.errors import ProtocolError, ScheduleError, StorageError, Unavailable
from hetuflow.nursery import Outage, Wakeup
from hetuflow.protocol.model import NamespaceId, Schedule
from hetuflow.schedule import Timing
from hetuflow.server.scheduling.bindings import Bindings
from hetuflow.storage.connect import Database, Record
from hetuflow.storage.failures import blames_values
from hetuflow.storage.plan import Plan, plan_schedule
from hetuflow.storage.planning import (
  Fence,
  draw_back_cursors,
  list_due_schedules,
  plan_tasks,
)
from hetuflow.storage.rows import from_row
from hetuflow.storage.timing import Calendars, read_calendars, timing_of

__all__ = ["Generator"]

SCHEDULES_PER_PASS = 500
TIMES_PER_SCHEDULE = 1_000
"""Planned times of one schedule that are not late; more of them take more passes."""
CACHED_TIMINGS = 100_000
LOOK_AHEAD_INTERVAL = 60.0
"""Seconds between two looks for cursors that are too far ahead."""

_log = structlog.get_logger()


class Generator:
  """The loop that plans.

  Args:
    database: where schedules and tasks are.
    bindings: whose schedules are this server's to plan.
    horizon: seconds ahead that tasks are planned.
    interval: seconds between passes when nothing wakes it.
    wakeup: set when schedules or bindings have changed.
  """

  def __init__(
    self,
    database: Database,
    bindings: Bindings,
    *,
    horizon: float,
    interval: float,
    wakeup: Wakeup,
  ) -> None:
    self._database = database
    self._bindings = bindings
    self._horizon = horizon
    self._interval = interval
    self._wakeup = wakeup
    self._timings: OrderedDict[tuple[UUID, int], Timing] = OrderedDict()
    self._outage = Outage(Unavailable, event="generator_waits_for_database")
    self._look_ahead_at = -math.inf
    self.planned = 0
    bindings.tell(wakeup.set)

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Plan for ever, woken by changes of schedules and by time."""
    task_status.started()
    while True:
      more = await self._outage.retry(self.plan_once)
      if not more:
        await self._wakeup.wait(self._interval)

  async def plan_once(self) -> bool:
    """Plan what is due in one pass; tell whether there is more at once."""
    fence = Fence(server_id=self._bindings.server_id, epochs=self._bindings.epochs)
    if not fence.epochs:
      return False
    if trio.current_time() >= self._look_ahead_at:
      await self.draw_back_once()
      self._look_ahead_at = trio.current_time() + LOOK_AHEAD_INTERVAL
    rows = await list_due_schedules(
      self._database,
      horizon=self._horizon,
      limit=SCHEDULES_PER_PASS,
      namespaces=fence.epochs,
    )
    if not rows:
      return False
    plans = await self._plan_all(rows)
    made = await self._carry_out(rows, plans, fence)
    self.planned += sum(made.values())
    _log.debug("tasks_planned", tasks=sum(made.values()), schedules=len(plans))
    # Where nothing could be planned, because somebody else has it all in hand or plans
    # for these namespaces by now, there is nothing to hurry for.
    return bool(made) and (
      len(rows) == SCHEDULES_PER_PASS
      or any(
        plan.cursor_at < row["until_at"]
        for plan, row in zip(plans, rows, strict=True)
        if plan.next_plan_at is not None
      )
    )

  async def _carry_out(
    self, rows: Sequence[Record], plans: Sequence[Plan], fence: Fence
  ) -> dict[NamespaceId, int]:
    """Carry out plans; where the database refuses one, each for itself."""
    try:
      return await plan_tasks(self._database, plans, fence=fence)
    except StorageError as error:
      if not blames_values(error):
        raise
      made: Counter[NamespaceId] = Counter()
      for row, plan in zip(rows, plans, strict=True):
        made.update(await self._carry_out_one(row, plan, fence))
      return made

  async def _carry_out_one(
    self, row: Record, plan: Plan, fence: Fence
  ) -> dict[NamespaceId, int]:
    """Carry out one plan; a schedule whose plan is refused plans nothing more."""
    try:
      return await plan_tasks(self._database, [plan], fence=fence)
    except StorageError as error:
      if not blames_values(error):
        raise
      _log.error("schedule_unusable", schedule=str(row["id"]), error=str(error))
      return await plan_tasks(self._database, [_nothing(row)], fence=fence)

  async def draw_back_once(self) -> int:
    """Let schedules begin anew that are planned too far ahead; return how many did."""
    total = 0
    while drawn := await draw_back_cursors(
      self._database,
      horizon=self._horizon,
      limit=SCHEDULES_PER_PASS,
      namespaces=self._bindings.epochs,
    ):
      total += len(drawn)
      _log.warning("schedules_drawn_back", schedules=len(drawn))
    return total

  async def _plan_all(self, rows: Sequence[Record]) -> list[Plan]:
    """Decide what becomes of all that is due."""
    # Read after the schedules: what has changed since has raised their revision too.
    calendars = await read_calendars(
      self._database, (row for row in rows if _key(row) not in self._timings)
    )
    plans = []
    for row in rows:
      plans.append(self._plan(row, calendars))
      # A long backlog of many schedules must not hold up the rest of the server.
      await trio.lowlevel.checkpoint()
    # Not before: a schedule of this pass whose calendars were not read needs its timing.
    while len(self._timings) > CACHED_TIMINGS:
      self._timings.popitem(last=False)
    return plans

  def _plan(self, row: Record, calendars: Calendars) -> Plan:
    """Plan one schedule; one that can no longer be understood plans nothing more."""
    try:
      timing = self._timing(row, calendars)
      return plan_schedule(row, timing, limit=TIMES_PER_SCHEDULE)
    except (ProtocolError, ScheduleError, StorageError) as error:
      _log.error("schedule_unusable", schedule=str(row["id"]), error=str(error))
      return _nothing(row)

  def _timing(self, row: Record, calendars: Calendars) -> Timing:
    """Return the parsed definition of a schedule as it stands in this revision."""
    key = _key(row)
    timing = self._timings.get(key)
    if timing is None:
      timing = timing_of(from_row(Schedule, row, next_run_at=None), calendars)
      self._timings[key] = timing
    return timing


def _key(row: Record) -> tuple[UUID, int]:
  """Name a schedule's definition: it and its calendars change with the revision."""
  return row["id"], row["revision"]


def _nothing(row: Record) -> Plan:
  """Leave a schedule without further plans."""
  return Plan(
    schedule_id=row["id"],
    namespace_id=row["namespace_id"],
    revision=row["revision"],
    job_version=row["job_version"],
    expected=row["cursor_at"],
    cursor_at=row["cursor_at"],
    next_plan_at=None,
  )
