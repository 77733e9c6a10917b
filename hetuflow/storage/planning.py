"""Planning: moving the cursors of schedules and making the tasks, in one statement."""

from collections.abc import Sequence
from datetime import datetime
from itertools import accumulate
from uuid import UUID

import attrs

from hetuflow.protocol.model import new_id
from hetuflow.protocol.states import LedgerOutcome
from hetuflow.storage.connect import Connection, Database, Record
from hetuflow.storage.sql import load_queries

__all__ = ["Gap", "Plan", "PlannedTask", "list_due_schedules", "plan_tasks"]

_sql = load_queries("planning")

LEAD_MARGIN = 10.0
"""Seconds that tasks are planned before they are handed out."""


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
    The columns of a schedule with revision, cursor_at, read_at (the database's time) and
    until_at (up to when to plan).
  """
  return await executor.fetch(
    _sql.list_due_schedules, horizon=horizon, margin=LEAD_MARGIN, limit=limit
  )


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
