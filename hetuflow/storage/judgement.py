"""Who may go: the decision over tasks that wait for a place, without a database.

Within a lane the order is strict: a task that must wait holds up those behind it, so that
of jobs with different limits that share a lane none starves. Only what is skipped holds
nobody up. Over the lanes of a namespace places are given in order of rank.

Rates are kept by the generic cell rate algorithm (ITU-T I.371) without bursts: "10 per
minute" is one every six seconds, never more than ten in any minute, and what was not used
is not made up. Places are given in passes, so tasks that follow each other closer than a
pass are given out by the pass; the interval is longer by as much, that the count of any
such span of time stays what it is.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import attrs

from hetuflow.protocol.states import OverlapPolicy

__all__ = ["Candidate", "Judgement", "Rate", "choose_replaced", "judge"]

QUANTUM_S = 0.1
"""Seconds within which starts of one rate are given out together, within a tenth of the
span that the rate is counted in."""


@attrs.frozen(kw_only=True)
class Rate:
  """At most ``count`` starts in any ``seconds``; ``arrival_at``: when the next is free."""

  count: int
  seconds: float
  arrival_at: datetime | None

  @property
  def tolerance(self) -> timedelta:
    """How much earlier than its time a start may be given out."""
    gap = self.seconds / self.count
    return timedelta(seconds=max(0.0, min(QUANTUM_S - gap, self.seconds / 10)))

  @property
  def interval(self) -> timedelta:
    """The time from one start to the next."""
    return (timedelta(seconds=self.seconds) + self.tolerance) / self.count


@attrs.frozen(kw_only=True)
class Candidate:
  """A due task that waits, and what its job says now.

  ``max`` is the number of places that the job lets its lane have, infinite where it says
  nothing.
  """

  id: UUID
  lane: str
  job_id: UUID
  due_at: datetime
  overlap: OverlapPolicy = OverlapPolicy.ALLOW
  max: float = math.inf
  rate: Rate | None = None


@attrs.define(kw_only=True)
class Judgement:
  """What is to become of the candidates.

  ``skipped`` are those that find no place and do not wait, ``outrun`` those that a newer
  one stands for, by that one's id, ``replacing`` those that wait for others to be ended.
  ``holders`` are those of each lane when ``promoted`` have their places, and ``room`` is
  what is left of that of the namespace. ``free_at`` is when the next start of a rate is
  free.
  """

  room: float

  promoted: list[Candidate] = attrs.field(factory=list)
  skipped: list[Candidate] = attrs.field(factory=list)
  outrun: dict[UUID, UUID] = attrs.field(factory=dict)
  replacing: dict[str, list[Candidate]] = attrs.field(factory=dict)
  holders: dict[str, int] = attrs.field(factory=dict)
  arrivals: dict[UUID, datetime] = attrs.field(factory=dict)
  free_at: datetime | None = None

  @property
  def settled(self) -> int:
    """How many candidates no longer wait."""
    return len(self.promoted) + len(self.skipped) + len(self.outrun)


def judge(
  candidates: Sequence[Candidate],
  holders: Mapping[str, int],
  *,
  room: float,
  now: datetime,
) -> Judgement:
  """Decide who gets a place, who waits, and who is left out.

  Args:
    candidates: due tasks in order of rank, of each lane the first ones.
    holders: how many places of each lane are taken.
    room: how many more tasks the namespace may have under way.
    now: the database's time.
  """
  judgement = Judgement(holders=dict(holders), room=room)
  judgement.outrun = _outrun(candidates)
  full: set[str] = set()
  later: set[str] = set()
  for candidate in candidates:
    lane = candidate.lane
    if candidate.id in judgement.outrun or lane in later:
      continue
    if lane in full or judgement.holders[lane] >= candidate.max:
      match candidate.overlap:
        case OverlapPolicy.SKIP:
          judgement.skipped.append(candidate)
          continue
        case OverlapPolicy.REPLACE:
          judgement.replacing.setdefault(lane, []).append(candidate)
      full.add(lane)
    elif judgement.room <= 0 or not _pass_rate(judgement, candidate, now):
      later.add(lane)
    else:
      judgement.promoted.append(candidate)
      judgement.holders[lane] += 1
      judgement.room -= 1
  return judgement


def choose_replaced(
  judgement: Judgement, lane: str, holders: Sequence[tuple[UUID, bool]]
) -> dict[UUID, UUID]:
  """Choose which holders of a lane must make place, the oldest first.

  Args:
    judgement: what was decided.
    lane: one that tasks wait in to replace others.
    holders: the ids of those that held a place before, the oldest first, and whether they
      are to end anyway.

  Returns:
    For each that is to be ended the id of the one that takes its place.
  """
  waiting = judgement.replacing[lane]
  excess = judgement.holders[lane] + len(waiting) - waiting[-1].max
  needed = int(excess) - sum(ending for _, ending in holders)
  others = [id for id, ending in holders if not ending]
  # Infinite limits never fill a lane, so that nobody waits to replace there.
  return {
    id: waiting[min(number, len(waiting) - 1)].id
    for number, id in enumerate(others[: max(0, needed)])
  }


def _outrun(candidates: Sequence[Candidate]) -> dict[UUID, UUID]:
  """Of tasks that replace others, find those for which a newer one stands.

  Of one job's in one lane only as many are of interest as can run at the same time.
  """
  groups: dict[tuple[str, UUID], list[Candidate]] = {}
  for candidate in candidates:
    if candidate.overlap is OverlapPolicy.REPLACE:
      groups.setdefault((candidate.lane, candidate.job_id), []).append(candidate)
  outrun: dict[UUID, UUID] = {}
  for group in groups.values():
    group.sort(key=lambda each: (each.due_at, each.id))
    kept = int(min(group[-1].max, len(group)))
    outrun |= {each.id: group[-1].id for each in group[:-kept]}
  return outrun


def _pass_rate(judgement: Judgement, candidate: Candidate, now: datetime) -> bool:
  """Tell whether a start of a rate is free, and take it."""
  rate = candidate.rate
  if rate is None:
    return True
  arrival = judgement.arrivals.get(candidate.job_id, rate.arrival_at or now)
  # Never later than the rate of now has it: it may have been a slower one, or the clock
  # may have been ahead.
  arrival = min(arrival, now + rate.interval + rate.tolerance)
  free_at = arrival - rate.tolerance
  if free_at > now:
    judgement.free_at = min(judgement.free_at or free_at, free_at)
    return False
  judgement.arrivals[candidate.job_id] = max(arrival, now) + rate.interval
  return True
