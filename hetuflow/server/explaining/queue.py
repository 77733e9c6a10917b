"""Who is before a task: for a place in its lane, and for a slot of an agent."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import attrs

from hetuflow.protocol.model import AgentId, JobId
from hetuflow.protocol.model.explain import Reason, ReasonCode
from hetuflow.protocol.states import AgentStatus, OverlapPolicy
from hetuflow.server.explaining.outlook import expect_start, spread_ends
from hetuflow.server.explaining.words import agent_of, join, moment, reason
from hetuflow.storage.explain import COUNTED, AgentFact, Circumstances, Holder, Place

__all__ = ["Outlook", "full_lane", "is_lasting", "judge_agents", "judge_limits"]

_SERVING = (AgentStatus.ONLINE, AgentStatus.BUSY)
MAX_NAMED = 3
"""Agents and holders that a sentence names; the details have more."""


@attrs.frozen(kw_only=True)
class Outlook:
  """When a task may start, as far as that can be told."""

  start_at: datetime | None = None
  estimated: bool = False


def is_lasting(found: Reason) -> bool:
  """Tell whether a reason will not go away by itself."""
  return found.code is ReasonCode.NO_AGENT


def full_lane(facts: Circumstances, place: Place) -> bool:
  """Tell whether all places of the task's own lane are taken."""
  places = _places(facts)
  return places is not None and place.holders >= places


def _places(facts: Circumstances) -> int | None:
  """Say how many places its job gives the lane now; None: any number.

  As the limiter has it: without ``max_concurrent``, a key and any policy but allow mean
  one.
  """
  if facts.max_concurrent is not None:
    return facts.max_concurrent
  strict = facts.concurrency_key is not None or facts.overlap is not OverlapPolicy.ALLOW
  return 1 if strict else None


def judge_limits(
  facts: Circumstances,
  place: Place,
  holders: Sequence[Holder],
  durations: Mapping[JobId, Sequence[float]],
) -> tuple[list[Reason], Outlook]:
  """Say which limit a due task waits for.

  Args:
    facts: the task.
    place: how many come before it.
    holders: who has the places it waits for.
    durations: how long attempts of the holders' jobs took lately.
  """
  places = _places(facts)
  if full_lane(facts, place) and places is not None:
    name = _lane_name(facts, places)
    return _full(facts, place, holders, durations, name, places)
  if facts.max_running is not None and place.running >= facts.max_running:
    name = f"max_running {facts.max_running} of the namespace {facts.task.namespace_id}"
    return _full(facts, place, holders, durations, name, facts.max_running)
  if facts.arrival_at is not None and facts.arrival_at > facts.now:
    return _rate_limited(facts, place, facts.arrival_at)
  if place.blocked:
    message = f"{_many(place.blocked)} of its lane come before it"
    found = reason(
      ReasonCode.BLOCKED_BY_LIMIT, message, lane=facts.lane, position=place.blocked + 1
    )
    return [found], Outlook()
  message = "a place is free, and it gets it in a moment"
  return [reason(ReasonCode.CLAIMABLE, message, lane=facts.lane)], Outlook()


def _lane_name(facts: Circumstances, places: int) -> str:
  """Name the limit that stands behind the task's lane."""
  kind, _, value = (facts.lane or "").partition(":")
  if kind == "key":
    return f"the {_places_of(places)} of concurrency_key {value!r}"
  if facts.overlap is not OverlapPolicy.ALLOW and facts.max_concurrent is None:
    return f"overlap {facts.overlap} of the job {facts.job_name}"
  return f"max_concurrent {places} of the job {facts.job_name}"


def _places_of(count: int) -> str:
  """Write a number of places."""
  return "one place" if count == 1 else f"{count} places"


def _full(
  facts: Circumstances,
  place: Place,
  holders: Sequence[Holder],
  durations: Mapping[JobId, Sequence[float]],
  limit: str,
  places: int,
) -> tuple[list[Reason], Outlook]:
  """Say that all places are taken, by whom, and when one may be free."""
  named = [_holder_name(holder, facts.now) for holder in holders[:MAX_NAMED]]
  more = max(len(holders), place.holders) - len(named)
  by = join([*named, f"{more} more"] if more > 0 else named)
  ahead = f", and {_many(place.blocked)} before it" if place.blocked else ""
  found = reason(
    ReasonCode.BLOCKED_BY_LIMIT,
    f"{limit} is used up by {by or 'tasks that have just ended'}{ahead}",
    limit=limit,
    lane=facts.lane,
    max=places,
    holders=[attrs.asdict(holder) for holder in holders],
    position=place.blocked + 1,
  )
  ends = [_end_of(holder, durations, facts.now) for holder in holders]
  known = [end for end in ends if end is not None]
  own = durations.get(facts.task.job_id, [])
  start_at = expect_start(known if len(known) == len(ends) else [], place.blocked, own)
  return [found], Outlook(start_at=start_at, estimated=start_at is not None)


def _holder_name(holder: Holder, now: datetime) -> str:
  """Name a holder, where it is and since when."""
  if holder.agent_id is None:
    return f"task {holder.task_id} ({holder.status} since {moment(holder.since, now)})"
  since = holder.started_at or holder.since
  on = agent_of(holder.agent_name, holder.agent_id)
  return f"task {holder.task_id} ({holder.status} on {on}, since {moment(since, now)})"


def _end_of(
  holder: Holder, durations: Mapping[JobId, Sequence[float]], now: datetime
) -> datetime | None:
  """Guess when a holder gives its place back; None where nothing is known of its job."""
  own = durations.get(holder.job_id)
  if not own:
    return None
  end = expect_start([holder.started_at or now], 1, own)
  return None if end is None else max(end, now)


def _rate_limited(
  facts: Circumstances, place: Place, free_at: datetime
) -> tuple[list[Reason], Outlook]:
  """Say when the next start of its job's rate is free."""
  count, seconds = facts.rate_count or 1, facts.rate_seconds or 0.0
  ahead = timedelta(seconds=place.blocked * seconds / count)
  found = reason(
    ReasonCode.RATE_LIMITED,
    f"the job {facts.job_name} may start {count} times in {seconds:g} s, and the next"
    f" start is free {moment(free_at, facts.now)}",
    rate_limit={"count": count, "seconds": seconds},
    free_at=free_at,
    position=place.blocked + 1,
  )
  return [found], Outlook(start_at=free_at + ahead, estimated=bool(place.blocked))


def judge_agents(
  facts: Circumstances,
  agents: Sequence[AgentFact],
  place: Place,
  free: Mapping[AgentId, int],
  durations: Sequence[float],
) -> tuple[list[Reason], Outlook]:
  """Say who could take a task, and whether somebody can at once.

  Args:
    facts: the task.
    agents: those of its namespace, the nearest first.
    place: how many come before it.
    free: free slots of agents that are connected here.
    durations: how long attempts of its job took lately.
  """
  if facts.selector is None:
    message = "what it asks of an agent is not known any more; see hetuflow doctor"
    return [reason(ReasonCode.NO_AGENT, message, agents=[])], Outlook()
  serving = [each for each in agents if not each.lacking and each.status in _SERVING]
  if not serving:
    return [_no_agent(facts, agents)], Outlook()
  slots = sum(free.get(each.id, max(0, _rest(each))) for each in serving)
  if facts.selector.get("broadcast") or slots > place.claimable:
    names = join([each.name for each in serving[:MAX_NAMED]])
    message = f"it is due, and gets to an agent in a moment: {names} can take it"
    return [reason(ReasonCode.CLAIMABLE, message, agents=_busy(serving))], Outlook(
      start_at=facts.now
    )
  total = min(serving[0].slots or 1, COUNTED)
  message = f"all {total} slots of {_agents(serving[0].serving)} that match are in use"
  if place.claimable:
    message += f", and {_many(place.claimable)} before it"
  found = reason(
    ReasonCode.NO_FREE_SLOT,
    message,
    agents=_busy(serving),
    position=place.claimable + 1,
  )
  ends = spread_ends(facts.now, total, _middle(durations)) if durations else []
  start_at = expect_start(ends, place.claimable, durations)
  return [found], Outlook(start_at=start_at, estimated=start_at is not None)


def _middle(durations: Sequence[float]) -> float:
  """Return the middle duration."""
  return sorted(durations)[len(durations) // 2]


def _rest(agent: AgentFact) -> int:
  """Count the slots that an agent had free at its last heartbeat."""
  return agent.max_concurrent - agent.running


def _busy(agents: Sequence[AgentFact]) -> list[dict[str, object]]:
  """Describe agents that could take the task."""
  return [
    {
      "agent_id": each.id,
      "agent": each.name,
      "status": each.status,
      "running": each.running,
      "max_concurrent": each.max_concurrent,
    }
    for each in agents
  ]


def _no_agent(facts: Circumstances, agents: Sequence[AgentFact]) -> Reason:
  """Say that nobody can take the task, and what those lack that come nearest."""
  asked = facts.selector or {}
  lacks = [(each, _lacks(each, asked, facts.now)) for each in agents]
  if not agents:
    message = f"the namespace {facts.task.namespace_id} has no agent"
  else:
    nearest = [f"{each.name} {join(what)}" for each, what in lacks[:MAX_NAMED]]
    message = f"no connected agent can take it: {'; '.join(nearest)}"
  return reason(
    ReasonCode.NO_AGENT,
    message,
    selector=asked,
    agents=[
      {
        "agent_id": each.id,
        "agent": each.name,
        "status": each.status,
        "lacks": what,
        "last_heartbeat_at": each.last_heartbeat_at,
      }
      for each, what in lacks
    ],
  )


def _lacks(agent: AgentFact, asked: Mapping[str, object], now: datetime) -> list[str]:
  """Say what keeps an agent from taking what is asked for."""
  what = []
  if agent.lacks_identity:
    what.append("is not the agent that it is meant for")
  if agent.lacks_executor:
    what.append(f"lacks the executor {asked.get('executor')}")
  if agent.lacks_function:
    what.append(f"lacks the function {asked.get('function')}")
  labels = asked.get("labels")
  if agent.lacks_labels and isinstance(labels, dict):
    missing = [f"{name}={labels.get(name)}" for name in agent.lacks_labels]
    what.append(f"lacks the labels {join(missing)}")
  if agent.status not in _SERVING:
    what.append(_absence(agent, now))
  return what


def _absence(agent: AgentFact, now: datetime) -> str:
  """Say that an agent is not there for work."""
  seen = agent.last_heartbeat_at
  if agent.status is not AgentStatus.OFFLINE:
    return f"is {agent.status}"
  return (
    "has never connected" if seen is None else f"is offline since {moment(seen, now)}"
  )


def _agents(count: int) -> str:
  """Write a number of agents."""
  return "the one agent" if count == 1 else f"the {count} agents"


def _many(count: int) -> str:
  """Write a number of tasks, as far as they were counted."""
  if count >= COUNTED:
    return f"{COUNTED} tasks or more"
  return "one task" if count == 1 else f"{count} tasks"
