"""What must be called so that a job is as it is wanted: a pure comparison."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import attrs

from hetuflow.client import Call
from hetuflow.client.calls import jobs, schedules
from hetuflow.protocol.model import (
  Job,
  JobForCreate,
  JobForUpdate,
  Schedule,
  ScheduleForCreate,
  ScheduleForUpdate,
)

__all__ = ["Outcome", "Plan", "plan_job"]


class Outcome(StrEnum):
  """What becomes of one job."""

  MADE = "made"
  CHANGED = "changed"
  UNCHANGED = "unchanged"


@attrs.frozen(kw_only=True)
class Plan:
  """The calls that lead to the wanted job, and in words what they change."""

  outcome: Outcome
  changes: list[str] = attrs.field(factory=list)
  calls: list[Call[Any]] = attrs.field(factory=list)


def plan_job(
  wanted: JobForCreate, there: Job | None, due: Sequence[Schedule] = ()
) -> Plan:
  """Compare a wanted job with the one of its name.

  Whether job and schedules are enabled is left as it is: somebody may have meant it.
  Schedules of other names are left alone too.

  Args:
    wanted: the job with its schedules, each with a name of its own.
    there: the job that has the name, or None.
    due: the schedules of that job.
  """
  if there is None:
    return Plan(outcome=Outcome.MADE, calls=[jobs.create_job(wanted)])
  changed = _changed(wanted, there, ("description", "config"))
  calls: list[Call[Any]] = []
  if changed:
    calls.append(jobs.update_job(there.id, JobForUpdate(**changed)))
  changes = sorted(changed)
  by_name = {schedule.name: schedule for schedule in due}
  for schedule in wanted.schedules:
    more, words = _plan_schedule(schedule, by_name.get(schedule.name), there)
    calls += more
    changes += words
  outcome = Outcome.CHANGED if calls else Outcome.UNCHANGED
  return Plan(outcome=outcome, changes=changes, calls=calls)


def _plan_schedule(
  wanted: ScheduleForCreate, there: Schedule | None, job: Job
) -> tuple[list[Call[Any]], list[str]]:
  """Compare a wanted schedule with the one of its name."""
  fresh = schedules.create_schedule(attrs.evolve(wanted, job_id=job.id))
  if there is None:
    return [fresh], ["schedule"]
  if there.kind is not wanted.kind:
    return [schedules.delete_schedule(there.id), fresh], ["kind"]
  names = [field.name for field in attrs.fields(ScheduleForUpdate)]
  changed = _changed(wanted, there, names)
  if any(
    value is None and name not in ("start_at", "end_at", "max_runs")
    for name, value in changed.items()
  ):
    # An interval became a time or the other way about, which no PATCH can say.
    return [schedules.delete_schedule(there.id), fresh], sorted(changed)
  if not changed:
    return [], []
  update = schedules.update_schedule(there.id, ScheduleForUpdate(**changed))
  return [update], sorted(changed)


def _changed(wanted: Any, there: Any, names: Sequence[str]) -> dict[str, Any]:
  """Return the wanted values of the fields that differ."""
  return {
    name: getattr(wanted, name)
    for name in names
    if getattr(wanted, name) != getattr(there, name)
  }
