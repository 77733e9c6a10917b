"""Why a task ended as it did, and why it ran when and where it did."""

from collections.abc import Sequence

from hetuflow.protocol.model.explain import Reason, ReasonCode
from hetuflow.protocol.states import TaskCause, TaskInstanceStatus, TaskStatus
from hetuflow.server.explaining.attempts import attempt_details, how_it_ended
from hetuflow.server.explaining.words import agent_of, duration, reason
from hetuflow.storage.explain import Attempt, Circumstances

__all__ = ["ended", "history"]

NOTED_WAIT = 1.0
"""Seconds of waiting beyond its time from which on that is worth saying."""

_FAILURES = (
  TaskInstanceStatus.FAILED,
  TaskInstanceStatus.TIMEOUT,
  TaskInstanceStatus.LOST,
)
_CAUSES = {
  TaskCause.REQUEST: "somebody asked for it",
  TaskCause.SCHEDULE: "the schedule {schedule} planned it",
  TaskCause.CATCH_UP: "the schedule {schedule} caught it up",
  TaskCause.BACKFILL: "a backfill of the schedule {schedule} made it",
  TaskCause.DAEMON: "the daemon {schedule} is to be kept running",
  TaskCause.BROADCAST: "it is one agent's part of a broadcast",
  TaskCause.EVENT: "an event matched the schedule {schedule}",
  TaskCause.FLOW: "a flow came to it",
}


def ended(facts: Circumstances, attempts: Sequence[Attempt]) -> list[Reason]:
  """Say why a task ended so, then why it ran when it did."""
  return [_end(facts, attempts), *history(facts, attempts)]


def _end(facts: Circumstances, attempts: Sequence[Attempt]) -> Reason:
  """Say how the task ended, and what that came from."""
  task = facts.task
  last = attempts[0] if attempts else None
  message = f"it {_verb(task.status)}"
  if task.status is TaskStatus.FAILED and last is not None and last.status in _FAILURES:
    message += f" after {_attempts(task.attempts)}: the last one {how_it_ended(last)}"
  elif task.reason is not None:
    message += f": {_why(facts, task.reason)}"
  return reason(
    ReasonCode.ENDED,
    message,
    why=task.reason,
    attempts=task.attempts,
    cancel_requested_at=task.cancel_requested_at,
    last=None if last is None else attempt_details(last),
  )


def _verb(status: TaskStatus) -> str:
  """Write an end as a sentence has it."""
  if status in (TaskStatus.SUCCEEDED, TaskStatus.FAILED):
    return status
  return f"was {status}"


def _why(facts: Circumstances, why: str) -> str:
  """Write out what stands in the row for programs."""
  if why != "start_deadline":
    return why
  return f"it had not started in time ({facts.task.start_by or 'start_deadline'})"


def _attempts(count: int) -> str:
  """Write a number of attempts."""
  return "one attempt" if count == 1 else f"{count} attempts"


def history(facts: Circumstances, attempts: Sequence[Attempt]) -> list[Reason]:
  """Say why there is the task, what it waited for, and who started it when."""
  found = [_cause(facts)]
  first = next((each for each in reversed(attempts) if each.started_at), None)
  if first is None:
    return found
  return [*found, *_waited(facts, first), _started(facts, first)]


def _cause(facts: Circumstances) -> Reason:
  """Say why there is the task, and for when it was planned."""
  task = facts.task
  message = _CAUSES[task.cause].format(schedule=facts.schedule_name or task.schedule_id)
  jitter = (task.scheduled_at - task.planned_at).total_seconds()
  message += f" for {task.planned_at.isoformat(timespec='seconds')}"
  if jitter > 0:
    message += f", and jitter moved it by {duration(jitter)}"
  return reason(
    ReasonCode.CAUSE,
    message,
    cause=task.cause,
    schedule_id=task.schedule_id,
    parent_id=task.parent_id,
    planned_at=task.planned_at,
    scheduled_at=task.scheduled_at,
    jitter=jitter,
  )


def _waited(facts: Circumstances, first: Attempt) -> list[Reason]:
  """Say for how long nobody took it after its time."""
  seconds = (first.dispatched_at - facts.task.scheduled_at).total_seconds()
  if seconds < NOTED_WAIT:
    return []
  why = "for a place of its limit or a free slot" if facts.lane else "for a free slot"
  message = f"it waited {duration(seconds)} beyond its time {why}"
  return [reason(ReasonCode.WAITED, message, seconds=seconds, lane=facts.lane)]


def _started(facts: Circumstances, first: Attempt) -> Reason:
  """Say who started it first and how late."""
  on = agent_of(first.agent_name, first.agent_id)
  error = first.start_error_ms or 0.0
  message = f"{on} took it, as one that has what it asks for, and started it"
  message += f" {error:.1f} ms after its time"
  return reason(
    ReasonCode.STARTED,
    message,
    agent_id=first.agent_id,
    agent=first.agent_name,
    instance_id=first.id,
    dispatched_at=first.dispatched_at,
    started_at=first.started_at,
    start_error_ms=first.start_error_ms,
    selector=facts.selector,
  )
