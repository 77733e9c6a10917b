"""What becomes of planned times: the pure decision, by the job's misfire policy.

Late are planned times that lie more than the policy's grace before now. However many they
are, they cost a few lines: those that run are listed, the others are booked as gaps, and
what is in between is counted, not walked through.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, assert_never
from uuid import UUID

import attrs

from hetuflow.errors import ProtocolError
from hetuflow.protocol import wire
from hetuflow.protocol.model import Misfire, NamespaceId
from hetuflow.protocol.states import LedgerOutcome, MisfirePolicy, TaskCause
from hetuflow.schedule import (
  Timing,
  count_fires,
  fire_times,
  jitter,
  last_fires,
  next_fire,
)
from hetuflow.storage.connect import Record
from hetuflow.storage.lanes import lane_of

__all__ = [
  "Gap",
  "Plan",
  "PlannedTask",
  "book_times",
  "cut_plan",
  "plan_schedule",
  "spread_tasks",
]

_MICROSECOND = timedelta(microseconds=1)
_DEFAULT = Misfire()


@attrs.frozen(kw_only=True)
class PlannedTask:
  """One planned time that will run: nominal, with jitter, and when it is due."""

  planned_at: datetime
  scheduled_at: datetime
  due_at: datetime
  cause: TaskCause = TaskCause.SCHEDULE


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
  """What is to become of one schedule that was read at ``revision`` and ``expected``.

  ``job_version`` is the one whose limits and policy it heeds; ``lane`` is that of its
  tasks.
  """

  schedule_id: UUID
  namespace_id: NamespaceId
  revision: int
  job_version: int
  expected: datetime
  cursor_at: datetime
  next_plan_at: datetime | None
  lane: str | None = None
  tasks: Sequence[PlannedTask] = ()
  gaps: Sequence[Gap] = ()


def plan_schedule(
  row: Record | Mapping[str, Any], timing: Timing, *, limit: int
) -> Plan:
  """Decide what becomes of the planned times between the cursor and the horizon.

  Args:
    row: a row of ``list_due_schedules``.
    timing: its parsed definition.
    limit: how many planned times that are not late to look at; the others are left to a
      later plan.

  Returns:
    The plan. Every planned time between the old and the new cursor either has a task
    already, or is one of the plan's tasks or inside one of its gaps; or it lies behind
    the last run that ``max_runs`` allows, and is none.

  Raises:
    ProtocolError: the job's misfire policy cannot be read.
  """
  # Behind the cursor when a lead was made shorter.
  until: datetime = max(row["until_at"], row["cursor_at"])
  left = math.inf if row["max_runs"] is None else row["max_runs"] - row["run_count"]
  late_until = _late_until(row, until)
  late, gaps = _plan_late(row, timing, late_until, left)
  start = max(row["cursor_at"], late_until)
  times = fire_times(timing, after=start, until=until, limit=limit)
  cursor = times[-1] if len(times) == limit else until
  taken = set(row["taken"])
  free = [at for at in times if at not in taken]
  tasks = [*late, *(_on_time(row, timing, at) for at in free)]
  if left < len(tasks):
    tasks = tasks[: max(0, int(left))]
  exhausted = left <= len(tasks)
  return Plan(
    schedule_id=row["id"],
    namespace_id=row["namespace_id"],
    revision=row["revision"],
    job_version=row["job_version"],
    expected=row["cursor_at"],
    cursor_at=cursor,
    next_plan_at=None if exhausted else next_fire(timing, after=cursor),
    lane=_lane(row) if tasks else None,
    tasks=tasks,
    gaps=gaps,
  )


def _late_until(row: Record | Mapping[str, Any], until: datetime) -> datetime:
  """Return the last moment that is late, and not after ``until``."""
  grace = row["misfire"].get("grace", _DEFAULT.grace)
  try:
    late: datetime = row["read_at"] - timedelta(seconds=grace) - _MICROSECOND
  except (TypeError, OverflowError) as error:
    raise ProtocolError(
      [("$.misfire.grace", "expected a number of seconds")]
    ) from error
  return min(late, until)


def _on_time(
  row: Record | Mapping[str, Any], timing: Timing, at: datetime
) -> PlannedTask:
  """Plan a time that is not late."""
  scheduled_at = at + jitter(timing, at, str(row["id"]))
  return PlannedTask(planned_at=at, scheduled_at=scheduled_at, due_at=scheduled_at)


def _plan_late(
  row: Record | Mapping[str, Any],
  timing: Timing,
  until: datetime,
  left: float,
) -> tuple[list[PlannedTask], list[Gap]]:
  """Decide what becomes of the late times: which run, and what is booked."""
  cursor: datetime = row["cursor_at"]
  first = row["next_plan_at"]
  # That no planned time lies before the next one makes a look at the times unnecessary.
  if first is None or first > until or left <= 0:
    return [], []
  misfire = wire.load(Misfire, row["misfire"])
  taken = sorted(at for at in row["taken"] if cursor < at <= until)
  kept = _kept(misfire, timing, row, until, taken, left)
  tasks = spread_tasks(
    timing,
    kept,
    row["id"],
    cause=TaskCause.CATCH_UP,
    start=row["read_at"],
    interval=misfire.interval,
  )
  outcome, reason = _booked_as(misfire)
  end = kept[0] - _MICROSECOND if kept else until
  gaps = book_times(timing, cursor, end, taken, outcome=outcome, reason=reason)
  return tasks, gaps


def _kept(
  misfire: Misfire,
  timing: Timing,
  row: Record | Mapping[str, Any],
  until: datetime,
  taken: Sequence[datetime],
  left: float,
) -> list[datetime]:
  """Choose the late times that run: the newest ones that the policy allows."""
  after: datetime = row["cursor_at"]
  match misfire.policy:
    case MisfirePolicy.SKIP:
      return []
    case MisfirePolicy.RUN_ONCE:
      count = 1
    case MisfirePolicy.RUN_ALL:
      count = int(min(misfire.limit, left))
      if misfire.window is not None:
        window = timedelta(seconds=misfire.window) + _MICROSECOND
        after = max(after, row["read_at"] - window)
    case _:
      assert_never(misfire.policy)
  if after >= until:
    return []
  # As many more as have a task at the most.
  newest = last_fires(timing, after=after, until=until, count=count + len(taken))
  known = set(taken)
  return [at for at in newest if at not in known][-count:]


def _booked_as(misfire: Misfire) -> tuple[LedgerOutcome, str]:
  """Say what becomes of late times that do not run, and why."""
  match misfire.policy:
    case MisfirePolicy.RUN_ONCE:
      return LedgerOutcome.MERGED, "caught up by one later run"
    case MisfirePolicy.SKIP:
      return LedgerOutcome.MISSED, f"misfire policy skip: {misfire.grace:g} s are over"
    case MisfirePolicy.RUN_ALL:
      return LedgerOutcome.MISSED, "misfire policy run_all: beyond its limit or window"
    case _:
      assert_never(misfire.policy)


def spread_tasks(
  timing: Timing,
  times: Sequence[datetime],
  schedule_id: UUID,
  *,
  cause: TaskCause,
  start: datetime,
  interval: float = 0.0,
) -> list[PlannedTask]:
  """Let planned times that have passed run in their order.

  Args:
    timing: gives the jitter, which says what time they are told they run for.
    times: the planned times.
    schedule_id: of the schedule, as ``jitter`` wants it.
    cause: why they run now.
    start: when the first one is due; the others follow by a microsecond at least, so
      that their rank keeps the order.
    interval: seconds from one to the next.
  """
  pause = timedelta(seconds=interval) + _MICROSECOND
  return [
    PlannedTask(
      planned_at=at,
      scheduled_at=at + jitter(timing, at, str(schedule_id)),
      due_at=start + number * pause,
      cause=cause,
    )
    for number, at in enumerate(times)
  ]


def book_times(
  timing: Timing,
  after: datetime,
  until: datetime,
  taken: Sequence[datetime],
  *,
  outcome: LedgerOutcome,
  reason: str,
) -> list[Gap]:
  """Book the planned times of a span that have no task, in one gap where none has.

  Args:
    timing: the definition.
    after: they lie strictly behind it.
    until: the last moment that counts.
    taken: times that are not to be booked, in order; those that the definition does not
      have are of no account.
    outcome: what became of the others.
    reason: why.
  """
  gaps = []
  for low, high in _spans(timing, after, until, taken):
    first = next_fire(timing, after=low)
    if first is not None and first <= high:
      [last] = last_fires(timing, after=low, until=high, count=1)
      count = count_fires(timing, after=low, until=high)
      gaps.append(
        Gap(from_at=first, to_at=last, count=count, outcome=outcome, reason=reason)
      )
  return gaps


def _spans(
  timing: Timing, after: datetime, until: datetime, taken: Sequence[datetime]
) -> Iterator[tuple[datetime, datetime]]:
  """Cut a span (after, until] around those of its times that are taken."""
  for at in taken:
    if after < at <= until and next_fire(timing, after=at - _MICROSECOND) == at:
      yield after, at - _MICROSECOND
      after = at
  yield after, until


def _lane(row: Record | Mapping[str, Any]) -> str | None:
  """Say in which lane the tasks of a schedule wait; their parameters are its own."""
  job = {
    "id": row["job_id"],
    "overlap": row["overlap"],
    "max_concurrent": row["max_concurrent"],
    "concurrency_key": row["concurrency_key"],
    "rate_count": row["rate_count"],
  }
  return lane_of(job, row["max_running"], row["parameters"])


def cut_plan(plan: Plan, size: int) -> Iterator[Plan]:
  """Cut a plan into plans of at most ``size`` tasks, each expecting the one before."""
  while len(plan.tasks) > size:
    done, rest = plan.tasks[:size], plan.tasks[size:]
    at = done[-1].planned_at
    yield attrs.evolve(plan, tasks=done, cursor_at=at, next_plan_at=rest[0].planned_at)
    plan = attrs.evolve(plan, expected=at, tasks=rest, gaps=())
  yield plan
