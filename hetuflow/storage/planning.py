"""Planning: the statements that read what is due and carry plans out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import accumulate
from uuid import UUID

import attrs

from hetuflow.protocol.model import NamespaceId, ServerId, new_id
from hetuflow.storage.connect import Connection, Database, Record
from hetuflow.storage.lanes import reason_of
from hetuflow.storage.plan import Plan, cut_plan
from hetuflow.storage.sql import load_queries

__all__ = [
  "Fence",
  "draw_back_cursors",
  "list_behind",
  "list_due_schedules",
  "plan_tasks",
]

_sql = load_queries("planning")

LEAD_MARGIN = 10.0
"""Seconds that tasks are planned before they are handed out."""

AHEAD_TOLERANCE = 60.0
"""Seconds that a schedule may be planned too far ahead before that is taken for a mistake
of the clock."""

TASKS_PER_STATEMENT = 2_000
"""Tasks from which on plans wait for the next statement: one that takes longer than the
database allows would be tried again for ever."""


@attrs.frozen(kw_only=True)
class Fence:
  """On whose word is planned: a server, and the epochs of its bindings as it knows them."""

  server_id: ServerId
  epochs: Mapping[NamespaceId, int]


async def list_due_schedules(
  executor: Database | Connection,
  *,
  horizon: float,
  limit: int,
  namespaces: Iterable[NamespaceId],
) -> list[Record]:
  """Read schedules that have planned times to turn into tasks.

  Args:
    executor: where to read.
    horizon: how many seconds ahead tasks are planned at least; a namespace whose lead
      is longer looks further.
    limit: how many schedules at most.
    namespaces: whose.

  Returns:
    The columns of a schedule with revision, cursor_at, next_plan_at, taken, read_at (the
    database's time), until_at (up to when to plan), and what its job and namespace say of
    late times and limits.
  """
  return await executor.fetch(
    _sql.list_due_schedules,
    horizon=horizon,
    margin=LEAD_MARGIN,
    limit=limit,
    namespaces=list(namespaces),
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
  executor: Database | Connection,
  *,
  horizon: float,
  limit: int,
  namespaces: Iterable[NamespaceId],
) -> list[UUID]:
  """Let schedules begin anew that were planned by a clock that was ahead.

  They would be silent until then. Those of servers that look further ahead than this one
  begin anew as well, to no effect: what they have planned is not planned again.

  Args:
    executor: where to run.
    horizon: that of ``list_due_schedules``, in seconds.
    limit: how many schedules at most.
    namespaces: whose.

  Returns:
    Which ones did.
  """
  rows = await executor.fetch(
    _sql.draw_back_cursors,
    horizon=horizon,
    margin=LEAD_MARGIN,
    tolerance=AHEAD_TOLERANCE,
    limit=limit,
    namespaces=list(namespaces),
  )
  return [row["id"] for row in rows]


async def plan_tasks(
  executor: Database | Connection,
  plans: Sequence[Plan],
  *,
  fence: Fence | None = None,
) -> dict[NamespaceId, int]:
  """Carry out plans; those of schedules that changed meanwhile come to nothing.

  Args:
    executor: where to run; as many statements as keep each of them short.
    plans: at most one for each schedule.
    fence: those of namespaces that are bound otherwise by now come to nothing; None: the
      caller holds the schedules, and whose they are does not matter.

  Returns:
    How many tasks were made in each namespace of which anything was planned.
  """
  made: dict[NamespaceId, int] = {}
  for part in _parts(plans):
    for row in await _plan_part(executor, part, fence):
      made[row["namespace_id"]] = made.get(row["namespace_id"], 0) + row["tasks"]
  return made


def _parts(plans: Sequence[Plan]) -> Iterator[list[Plan]]:
  """Cut plans into what one statement carries out well."""
  part: list[Plan] = []
  tasks = 0
  for plan in plans:
    for number, piece in enumerate(cut_plan(plan, TASKS_PER_STATEMENT)):
      # One statement moves each cursor once.
      if part and (number or tasks + len(piece.tasks) > TASKS_PER_STATEMENT):
        yield part
        part, tasks = [], 0
      part.append(piece)
      tasks += len(piece.tasks)
  if part:
    yield part


async def _plan_part(
  executor: Database | Connection, plans: Sequence[Plan], fence: Fence | None
) -> list[Record]:
  """Carry out some plans in one statement."""
  plans = sorted(plans, key=lambda plan: plan.schedule_id)
  tasks = [task for plan in plans for task in plan.tasks]
  gaps = [gap for plan in plans for gap in plan.gaps]
  first_tasks, last_tasks = _places([len(plan.tasks) for plan in plans])
  first_gaps, last_gaps = _places([len(plan.gaps) for plan in plans])
  epochs = _epochs(plans, fence)
  return await executor.fetch(
    _sql.plan_tasks,
    server_id=None if fence is None else fence.server_id,
    namespaces=list(epochs),
    epochs=list(epochs.values()),
    schedules=[plan.schedule_id for plan in plans],
    revisions=[plan.revision for plan in plans],
    versions=[plan.job_version for plan in plans],
    expected=[plan.expected for plan in plans],
    cursors=[plan.cursor_at for plan in plans],
    next=[plan.next_plan_at for plan in plans],
    last_runs=[plan.tasks[-1].planned_at if plan.tasks else None for plan in plans],
    lanes=[plan.lane for plan in plans],
    reasons=[None if plan.lane is None else reason_of(plan.lane) for plan in plans],
    first_tasks=first_tasks,
    last_tasks=last_tasks,
    first_gaps=first_gaps,
    last_gaps=last_gaps,
    task_ids=[new_id() for _ in tasks],
    planned=[task.planned_at for task in tasks],
    scheduled=[task.scheduled_at for task in tasks],
    due=[task.due_at for task in tasks],
    causes=[task.cause for task in tasks],
    gap_ids=[new_id() for _ in gaps],
    gap_from=[gap.from_at for gap in gaps],
    gap_to=[gap.to_at for gap in gaps],
    gap_counts=[gap.count for gap in gaps],
    gap_outcomes=[gap.outcome for gap in gaps],
    gap_reasons=[gap.reason for gap in gaps],
  )


def _epochs(plans: Sequence[Plan], fence: Fence | None) -> dict[NamespaceId, int]:
  """Return the epochs of the bindings that some plans depend on."""
  if fence is None:
    return {}
  wanted = {plan.namespace_id for plan in plans}
  return {name: epoch for name, epoch in fence.epochs.items() if name in wanted}


def _places(lengths: Sequence[int]) -> tuple[list[int], list[int]]:
  """Find the first and last places, counted from 1, of parts laid end to end."""
  last = list(accumulate(lengths))
  first = [end - length + 1 for end, length in zip(last, lengths, strict=True)]
  return first, last
