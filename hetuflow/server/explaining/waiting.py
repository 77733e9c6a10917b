"""Why a task that nobody has is not run: its time, a pause, a failure before, its server."""

from collections.abc import Sequence

from hetuflow.protocol.model.explain import Reason, ReasonCode
from hetuflow.protocol.states import JobStatus, TaskInstanceStatus, TaskStatus
from hetuflow.server.explaining.attempts import attempt_details, how_it_ended
from hetuflow.server.explaining.words import agent_of, moment, reason
from hetuflow.storage.explain import Attempt, Circumstances

__all__ = ["deadlines", "paused", "planner", "postponed", "remarks"]


def paused(facts: Circumstances) -> Reason:
  """Say that somebody paused it."""
  since = facts.task.updated_at
  return reason(
    ReasonCode.PAUSED,
    f"it was paused {moment(since, facts.now)} and waits to be resumed",
    since=since,
  )


def postponed(facts: Circumstances, attempts: Sequence[Attempt]) -> list[Reason]:
  """Say that it is not due yet, and of one that failed, how it did."""
  if facts.task.status is TaskStatus.WAITING_RETRY:
    return [_waiting_retry(facts, attempts)]
  if facts.task.due_at <= facts.now:
    return []
  due_in = (facts.task.due_at - facts.now).total_seconds()
  lead = facts.lead if facts.lane is None else 0.0
  handed = (
    f", and handed to an agent {lead:g} s before" if lead else ", its limit judged then"
  )
  return [
    reason(
      ReasonCode.NOT_DUE,
      f"it is due {moment(facts.task.due_at, facts.now)}{handed}",
      due_at=facts.task.due_at,
      due_in=due_in,
      lead=lead,
    )
  ]


def _waiting_retry(facts: Circumstances, attempts: Sequence[Attempt]) -> Reason:
  """Say how the last attempt failed and when the next one is due."""
  task = facts.task
  counted = task.attempts - facts.lost_attempts
  last = attempts[0] if attempts else None
  how = "the last attempt failed" if last is None else how_it_ended(last)
  next_at = moment(task.due_at, facts.now) if task.due_at > facts.now else "due now"
  return reason(
    ReasonCode.WAITING_RETRY,
    f"attempt {task.attempts} of at most {task.max_retries + 1 + facts.lost_attempts}"
    f" did not succeed: {how}; the next one is {next_at}",
    next_at=task.due_at,
    attempts=task.attempts,
    failed_attempts=counted,
    lost_attempts=facts.lost_attempts,
    max_retries=task.max_retries,
    last=None if last is None else attempt_details(last),
  )


def planner(facts: Circumstances) -> list[Reason]:
  """Say that nobody gives places in its namespace, if that is so."""
  name = facts.task.namespace_id
  if facts.server_id is None:
    message = f"no server plans for the namespace {name}, so that nobody gives places"
    return [reason(ReasonCode.NAMESPACE_UNBOUND, message, namespace_id=name)]
  if facts.server_alive:
    return []
  seen = facts.server_seen_at
  server = facts.server_name or facts.server_id
  when = f"has been away since {moment(seen, facts.now)}" if seen else "is unknown"
  return [
    reason(
      ReasonCode.SERVER_AWAY,
      f"the server {server} that plans for the namespace {name} {when}",
      namespace_id=name,
      server_id=facts.server_id,
      server=facts.server_name,
      seen_at=seen,
    )
  ]


def remarks(facts: Circumstances, attempts: Sequence[Attempt]) -> list[Reason]:
  """Add what is worth knowing of a waiting task, though it does not stand in its way."""
  found = []
  last = attempts[0] if attempts else None
  if last is not None and last.status is TaskInstanceStatus.RELEASED:
    on = agent_of(last.agent_name, last.agent_id)
    message = (
      f"{on} gave it back without having started it: {last.reason or 'no reason'}"
    )
    found.append(reason(ReasonCode.GIVEN_BACK, message, last=attempt_details(last)))
  if facts.job_status is not JobStatus.ENABLED:
    message = (
      f"the job {facts.job_name} is {facts.job_status}: nothing more is planned of it,"
      " what was asked for is run"
    )
    found.append(reason(ReasonCode.JOB_DISABLED, message, job_status=facts.job_status))
  return found


def deadlines(facts: Circumstances) -> list[Reason]:
  """Say until when a task that has not ended must have started, and ended."""
  task, found = facts.task, []
  if task.start_by is not None and not task.attempts:
    message = (
      f"unless it starts by then, it is missed {moment(task.start_by, facts.now)}"
    )
    found.append(reason(ReasonCode.MISSED_AFTER, message, start_by=task.start_by))
  if task.end_by is not None:
    message = f"unless it ends by then, it fails {moment(task.end_by, facts.now)}"
    found.append(reason(ReasonCode.FAILS_AFTER, message, end_by=task.end_by))
  return found
