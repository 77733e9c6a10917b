"""Why a task that an agent has does not start, or does not end."""

from collections.abc import Sequence

from hetuflow.protocol.model.explain import Reason, ReasonCode
from hetuflow.server.explaining.attempts import attempt_details
from hetuflow.server.explaining.ended import history
from hetuflow.server.explaining.words import agent_of, duration, join, moment, reason
from hetuflow.storage.explain import Attempt, Child, Circumstances

__all__ = ["held", "under_way"]

MAX_NAMED = 3
START_PATIENCE = 1.0
"""Seconds after its time from which on it is strange that an attempt has not started."""


def held(facts: Circumstances, attempts: Sequence[Attempt]) -> list[Reason]:
  """Say which agent has a task that it has not started, and why not."""
  if not attempts:
    message = (
      "an agent is said to have it, but there is no attempt; see hetuflow doctor"
    )
    return [reason(ReasonCode.DISPATCHED_NOT_STARTED, message)]
  last = attempts[0]
  return [*_cancel(facts, last), _not_started(facts, last)]


def _not_started(facts: Circumstances, last: Attempt) -> Reason:
  """Say how an agent stands to what it has and has not started."""
  on = agent_of(last.agent_name, last.agent_id)
  late = (facts.now - last.due_at).total_seconds()
  if late < 0:
    message = f"{on} has it, and starts it {moment(last.due_at, facts.now)}"
  elif late < START_PATIENCE:
    message = f"{on} has it, and starts it now"
  else:
    message = f"{on} has it, and should have started it {duration(late)} ago"
  if not last.connected:
    message += f"; {_away(facts, last)}"
  return reason(
    ReasonCode.DISPATCHED_NOT_STARTED,
    message,
    **attempt_details(last),
    due_at=last.due_at,
    dispatched_at=last.dispatched_at,
    connected=last.connected,
    lease_until=last.lease_until,
    clock_offset_ms=last.clock_offset_ms,
  )


def _away(facts: Circumstances, last: Attempt) -> str:
  """Say since when an agent is away, and when it is given up."""
  seen, until = last.last_heartbeat_at, last.lease_until
  if seen is None or until is None:
    return "it has not been heard of"
  gone = f"it was last heard of {moment(seen, facts.now)}, and its lease"
  over = "ends" if until > facts.now else "ended"
  return f"{gone} {over} {moment(until, facts.now)}"


def _cancel(facts: Circumstances, last: Attempt) -> list[Reason]:
  """Say that the task is to end, and whether its agent can be told."""
  asked = facts.task.cancel_requested_at
  if asked is None:
    return []
  on = agent_of(last.agent_name, last.agent_id)
  if last.connected:
    how = f"{on} is told until it answers"
  else:
    how = f"{on} cannot be told: {_away(facts, last)}"
  message = f"it was asked to end {moment(asked, facts.now)}; {how}"
  return [
    reason(
      ReasonCode.CANCEL_REQUESTED,
      message,
      cancel_requested_at=asked,
      why=facts.task.reason,
      agent_id=last.agent_id,
      connected=last.connected,
      lease_until=last.lease_until,
    )
  ]


def under_way(
  facts: Circumstances, attempts: Sequence[Attempt], children: Sequence[Child]
) -> list[Reason]:
  """Say where a task runs since when, or for which parts it waits."""
  if children and (not attempts or attempts[0].completed_at is not None):
    return [_children(children), *history(facts, attempts)]
  if not attempts:
    message = "it is said to run, but there is no attempt; see hetuflow doctor"
    return [reason(ReasonCode.RUNNING, message)]
  last = attempts[0]
  on = agent_of(last.agent_name, last.agent_id)
  since = last.started_at or last.dispatched_at
  message = f"it runs on {on} since {moment(since, facts.now)}"
  if not last.connected:
    message += f"; {_away(facts, last)}"
  running = reason(ReasonCode.RUNNING, message, **attempt_details(last))
  return [*_cancel(facts, last), running, *history(facts, attempts)]


def _children(children: Sequence[Child]) -> Reason:
  """Say which parts of a broadcast have not ended."""
  live = [child for child in children if child.completed_at is None]
  total, count = children[0].children, children[0].live
  named = [agent_of(child.agent_name, child.agent_id) for child in live[:MAX_NAMED]]
  more = [f"{count - len(named)} more"] if count > len(named) else []
  waits = f"waits for {join([*named, *more])}" if count else "ends in a moment"
  return reason(
    ReasonCode.WAITING_FOR_CHILDREN,
    f"{total - count} of {total} agents are done with it; it {waits}",
    children=total,
    live=count,
    waiting_for=[
      {
        "task_id": child.id,
        "status": child.status,
        "agent_id": child.agent_id,
        "agent": child.agent_name,
      }
      for child in live
    ],
  )
