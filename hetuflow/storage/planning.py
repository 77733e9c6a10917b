"""Planning: what becomes of planned times, and the one statement that carries it out.

Misfire (``run_once``): of the planned times that are later than the grace, the last one
runs and the others are booked as merged, as one gap of the ledger however many they are.
"""

import math
from collections.abc import Container, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import accumulate, groupby
from typing import Any
from uuid import UUID

import attrs

from hetuflow.protocol.model import new_id
from hetuflow.protocol.states import LedgerOutcome
from hetuflow.schedule import Timing, fire_times, jitter, next_fire
from hetuflow.storage.connect import Connection, Database, Record
from hetuflow.storage.sql import load_queries

__all__ = [
  "Gap",
  "Plan",
  "PlannedTask",
  "draw_back_cursors",
  "list_behind",
  "list_due_schedules",
  "plan_schedule",
  "plan_tasks",
]

_sql = load_queries("planning")

MISFIRE_GRACE = timedelta(seconds=60)
LEAD_MARGIN = 10.0
"""Seconds that tasks are planned before they are handed out."""

AHEAD_TOLERANCE = 60.0
"""Seconds that a schedule may be planned too far ahead before that is taken for a mistake
of the clock."""


@attrs.frozen(kw_only=True)
class PlannedTask:
  """One planned time that will run: nominal, and with jitter."""

  planned_at: datetime
  scheduled_at: datetime


@attrs.frozen(kw_only=True)
class Gap:
  """Planned times that will not run, from one to another, both included."""

  from_at: datetime
  to_at: datetime
  count: int
  outcome: LedgerOutcome
  reason: str


@attrs.frozen(kw_only=True)
class Plan:
  """What is to become of one schedule that was read at ``revision`` and ``expected``."""

  schedule_id: UUID
  revision: int
  expected: datetime
  cursor_at: datetime
  next_plan_at: datetime | None
  tasks: Sequence[PlannedTask]
  gaps: Sequence[Gap]


async def list_due_schedules(
  executor: Database | Connection, *, horizon: float, limit: int
) -> list[Record]:
  """Read schedules that have planned times to turn into tasks.

  Args:
    executor: where to read.
    horizon: how many seconds ahead tasks are planned at least; a namespace whose lead
      is longer looks further.
    limit: how many schedules at most.

  Returns:
    The columns of a schedule with revision, cursor_at, taken, read_at (the database's
    time) and until_at (up to when to plan).
  """
  return await executor.fetch(
    _sql.list_due_schedules, horizon=horizon, margin=LEAD_MARGIN, limit=limit
  )


async def list_behind(
  connection: Connection, ids: Sequence[UUID], now: datetime
) -> list[Record]:
  """Read those of some locked schedules that have unplanned times up to now.

  Returns:
    The columns of ``list_due_schedules``, with ``now`` for read_at and until_at.
  """
  return await connection.fetch(_sql.list_behind, ids=list(ids), now=now)


async def draw_back_cursors(
  executor: Database | Connection, *, horizon: float, limit: int
) -> list[UUID]:
  """Let schedules begin anew that were planned by a clock that was ahead.

  They would be silent until then. Those of servers that look further ahead than this one
  begin anew as well, to no effect: what they have planned is not planned again.

  Args:
    executor: where to run.
    horizon: that of ``list_due_schedules``, in seconds.
    limit: how many schedules at most.

  Returns:
    Which ones did.
  """
  rows = await executor.fetch(
    _sql.draw_back_cursors,
    horizon=horizon,
    margin=LEAD_MARGIN,
    tolerance=AHEAD_TOLERANCE,
    limit=limit,
  )
  return [row["id"] for row in rows]


def plan_schedule(
  row: Record | Mapping[str, Any], timing: Timing, *, limit: int
) -> Plan:
  """Decide what becomes of the planned times between the cursor and the horizon.

  Args:
    row: a row of ``list_due_schedules``.
    timing: its parsed definition.
    limit: how many planned times to look at; the others are left to a later plan.

  Returns:
    The plan. Every planned time between the old and the new cursor either has a task
    already, or is one of the plan's tasks or inside one of its gaps.
  """
  # Behind the cursor when a lead was made shorter.
  until: datetime = max(row["until_at"], row["cursor_at"])
  left = math.inf if row["max_runs"] is None else row["max_runs"] - row["run_count"]
  times = fire_times(timing, after=row["cursor_at"], until=until, limit=limit)
  cursor = times[-1] if len(times) == limit else until
  upcoming = next_fire(timing, after=cursor)
  late_before = row["read_at"] - MISFIRE_GRACE
  taken = set(row["taken"])
  free = [at for at in times if at not in taken]
  late = [at for at in free if at < late_before]
  # A backlog that goes on in the next pass is merged into the times that follow.
  goes_on = len(times) == limit and upcoming is not None and upcoming < late_before
  merged = late if goes_on else late[:-1]
  due = [at for number, at in enumerate(free[len(merged) :]) if number < left]
  exhausted = left <= len(due)
  return Plan(
    schedule_id=row["id"],
    revision=row["revision"],
    expected=row["cursor_at"],
    cursor_at=cursor,
    next_plan_at=None if exhausted else upcoming,
    tasks=[
      PlannedTask(planned_at=at, scheduled_at=at + jitter(timing, at, str(row["id"])))
      for at in due
    ],
    gaps=_merge([at for at in times if merged and at <= merged[-1]], taken),
  )


def _merge(times: Sequence[datetime], taken: Container[datetime]) -> list[Gap]:
  """Book planned times that another run stands for, around those that have a task."""
  runs = [list(run) for free, run in groupby(times, lambda at: at not in taken) if free]
  return [
    Gap(
      from_at=run[0],
      to_at=run[-1],
      count=len(run),
      outcome=LedgerOutcome.MERGED,
      reason="caught up by one later run",
    )
    for run in runs
  ]


async def plan_tasks(
  executor: Database | Connection, plans: Sequence[Plan]
) -> dict[str, int]:
  """Carry out plans; those of schedules that changed meanwhile come to nothing.

  Returns:
    How many tasks were made in each namespace.
  """
  plans = sorted(plans, key=lambda plan: plan.schedule_id)
  tasks = [task for plan in plans for task in plan.tasks]
  gaps = [gap for plan in plans for gap in plan.gaps]
  first_tasks, last_tasks = _places([len(plan.tasks) for plan in plans])
  first_gaps, last_gaps = _places([len(plan.gaps) for plan in plans])
  rows = await executor.fetch(
    _sql.plan_tasks,
    schedules=[plan.schedule_id for plan in plans],
    revisions=[plan.revision for plan in plans],
    expected=[plan.expected for plan in plans],
    cursors=[plan.cursor_at for plan in plans],
    next=[plan.next_plan_at for plan in plans],
    last_runs=[plan.tasks[-1].planned_at if plan.tasks else None for plan in plans],
    first_tasks=first_tasks,
    last_tasks=last_tasks,
    first_gaps=first_gaps,
    last_gaps=last_gaps,
    task_ids=[new_id() for _ in tasks],
    planned=[task.planned_at for task in tasks],
    scheduled=[task.scheduled_at for task in tasks],
    gap_ids=[new_id() for _ in gaps],
    gap_from=[gap.from_at for gap in gaps],
    gap_to=[gap.to_at for gap in gaps],
    gap_counts=[gap.count for gap in gaps],
    gap_outcomes=[gap.outcome for gap in gaps],
    gap_reasons=[gap.reason for gap in gaps],
  )
  return {row["namespace_id"]: row["tasks"] for row in rows}


def _places(lengths: Sequence[int]) -> tuple[list[int], list[int]]:
  """Find the first and last places, counted from 1, of parts laid end to end."""
  last = list(accumulate(lengths))
  first = [end - length + 1 for end, length in zip(last, lengths, strict=True)]
  return first, last
