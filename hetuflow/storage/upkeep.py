"""What is to be kept going: pure judgement of one schedule as it was read.

A daemon keeps ``replicas`` tasks running. One that has ended is started anew: at once
after it was cancelled or has lived for a while, else after a pause that doubles, as the
job's ``retry_interval`` and ``retry_backoff`` say, up to a minute. One that waits on an
agent which cannot take it, or runs on one that drains, is moved. A new version of the job
or new parameters replace one replica at a time, the next only when all others run and
those replaced have settled: of a version that does not run, one replica is lost at most.

A schedule with ``fixed_delay`` keeps one task planned: an interval after the last one has
ended, whatever that end was.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from attrs import frozen

from hetuflow.protocol.states import AgentStatus, TaskStatus

__all__ = ["Keeping", "Replica", "Upkeep", "first_start", "judge", "pause_after"]

SETTLED = timedelta(seconds=10)
"""How long a replica lives at least before its end counts as a change, not a failure."""
PATIENCE = timedelta(seconds=5)
"""How long a task waits for an agent whose connection is gone."""
FULL_PATIENCE = timedelta(seconds=10)
"""How long a task waits for an agent that has no free place."""
SHORTEST_PAUSE = 1.0
LONGEST_PAUSE = 60.0

_UNCLAIMED = (TaskStatus.PENDING, TaskStatus.WAITING_RETRY)
_READY = (AgentStatus.ONLINE, AgentStatus.BUSY)


@frozen(kw_only=True)
class Replica:
  """One replica: its last task and, while that is live, how it is.

  ``status`` is None once the task has ended; ``agent_id`` is where it is or is meant for;
  ``leased``: its agent's word still holds, though it may not be ``connected``.
  """

  number: int
  task_id: UUID | None = None
  failures: int = 0
  next_at: datetime | None = None
  status: TaskStatus | None = None
  due_at: datetime | None = None
  ending: bool = False
  stale: bool = False
  started_at: datetime | None = None
  agent_id: UUID | None = None
  agent_status: AgentStatus | None = None
  connected: bool = False
  leased: bool = False

  @property
  def live(self) -> bool:
    """Whether its task has not ended."""
    return self.status is not None

  @property
  def ended(self) -> bool:
    """Whether it has a task that has ended since it was looked at last."""
    return self.task_id is not None and self.status is None

  @property
  def reachable(self) -> bool:
    """Whether its agent can take a task."""
    return self.connected and self.agent_status in _READY


@frozen(kw_only=True)
class Keeping:
  """One schedule as it was read at ``read_at``, with its replicas in order.

  ``wanted`` replicas are to be kept going now: none while it, its job or its time is off.
  """

  schedule_id: UUID
  namespace_id: str
  daemon: bool
  wanted: int
  interval: timedelta
  start_at: datetime | None = None
  end_at: datetime | None = None
  read_at: datetime
  replicas: Sequence[Replica] = ()


@frozen(kw_only=True)
class Upkeep:
  """What is to be done.

  ``missing`` replicas are to be made, ``ended`` ones to be seen to have ended; ``waits``
  sets them waiting, for their next start or (None) for nothing; ``due`` ones start;
  ``stops`` names tasks and why; ``moves`` are for when another agent can take them.
  """

  missing: Sequence[int] = ()
  ended: Sequence[Replica] = ()
  waits: Sequence[tuple[Replica, datetime | None]] = ()
  due: Sequence[Replica] = ()
  stops: Sequence[tuple[UUID, str]] = ()
  moves: Sequence[Replica] = ()

  def __bool__(self) -> bool:
    """Whether there is anything to do."""
    return any((self.missing, self.ended, self.waits, self.due, self.stops, self.moves))


def judge(keeping: Keeping, *, horizon: timedelta) -> Upkeep:
  """Decide what is to be done for one schedule.

  Args:
    keeping: as it was read.
    horizon: how far ahead the task of an interval is planned; a daemon's starts when it
      is time.
  """
  present = {replica.number for replica in keeping.replicas}
  idle = [replica for replica in keeping.replicas if replica.task_id is None]
  return Upkeep(
    missing=[number for number in range(keeping.wanted) if number not in present],
    ended=[replica for replica in keeping.replicas if replica.ended],
    waits=list(_waits(keeping, idle)),
    due=[each for each in idle if _is_due(keeping, each, horizon)],
    stops=_stops(keeping) if keeping.daemon else (),
    moves=[each for each in keeping.replicas if keeping.daemon and _drains(each)],
  )


def first_start(keeping: Keeping) -> datetime:
  """Say when a replica starts that has not run yet, or has been off."""
  return max(keeping.read_at, keeping.start_at or keeping.read_at)


def pause_after(
  keeping: Keeping, replica: Replica, end: Mapping[str, Any] | None
) -> tuple[int, datetime | None]:
  """Say what an end means for what follows.

  Args:
    keeping: the schedule.
    replica: whose task has ended.
    end: its ``status``, ``started_at``, ``completed_at`` and ``config``; None when it is
      gone without a trace, as a planned one is after an edit.

  Returns:
    The failures in a row, and when the next one starts; None for never.
  """
  if replica.number >= keeping.wanted:
    return 0, None
  if not keeping.daemon:
    return 0, (
      keeping.read_at if end is None else end["completed_at"]
    ) + keeping.interval
  if end is None or end["status"] == TaskStatus.CANCELLED:
    return replica.failures, keeping.read_at
  begun = end["started_at"]
  if begun is not None and end["completed_at"] - begun >= SETTLED:
    return 0, keeping.read_at
  failures = replica.failures + 1
  pause = _growing_pause(end["config"], failures)
  return failures, end["completed_at"] + timedelta(seconds=pause)


def _growing_pause(config: Mapping[str, Any], failures: int) -> float:
  """Say for how many seconds to wait; long, where a configuration cannot be read."""
  try:
    growth = config["retry_backoff"] ** min(failures - 1, 60)
    pause: float = config["retry_interval"] * growth
    return min(max(pause, SHORTEST_PAUSE), LONGEST_PAUSE)
  except (KeyError, TypeError, OverflowError):
    return LONGEST_PAUSE


def _waits(
  keeping: Keeping, idle: Sequence[Replica]
) -> list[tuple[Replica, datetime | None]]:
  """Find idle replicas that are to wait for a start, or no longer."""
  waits: list[tuple[Replica, datetime | None]] = []
  for replica in idle:
    wanted = replica.number < keeping.wanted
    if wanted != (replica.next_at is not None):
      waits.append((replica, first_start(keeping) if wanted else None))
  return waits


def _is_due(keeping: Keeping, replica: Replica, horizon: timedelta) -> bool:
  """Tell whether an idle replica is to be started."""
  at = replica.next_at
  if at is None or replica.number >= keeping.wanted:
    return False
  if keeping.end_at is not None and at > keeping.end_at:
    return False
  return at <= keeping.read_at + (timedelta() if keeping.daemon else horizon)


def _stops(keeping: Keeping) -> list[tuple[UUID, str]]:
  """Find the tasks of a daemon that are to be cancelled."""
  stops: list[tuple[UUID, str]] = []
  off = "its schedule is off" if keeping.wanted == 0 else "its schedule keeps fewer"
  for replica in keeping.replicas:
    if replica.task_id is None or not replica.live or replica.ending:
      continue
    if replica.number >= keeping.wanted:
      stops.append((replica.task_id, off))
    elif why := _misplaced(keeping, replica):
      stops.append((replica.task_id, why))
  return stops or _rolled(keeping)


def _misplaced(keeping: Keeping, replica: Replica) -> str | None:
  """Say why a task that no agent has should not wait any longer for the one it is for."""
  if replica.status not in _UNCLAIMED or replica.agent_id is None:
    return None
  waited = keeping.read_at - (replica.due_at or keeping.read_at)
  if not replica.reachable and (not replica.leased or waited > PATIENCE):
    return "its agent is gone"
  if replica.agent_status is AgentStatus.BUSY and waited > FULL_PATIENCE:
    return "its agent is full"
  return None


def _drains(replica: Replica) -> bool:
  """Tell whether a replica runs on an agent that will not run it much longer."""
  return (
    replica.status in (TaskStatus.DISPATCHED, TaskStatus.RUNNING)
    and not replica.ending
    and replica.agent_status is AgentStatus.DRAINING
  )


def _rolled(keeping: Keeping) -> list[tuple[UUID, str]]:
  """Find the one task that makes room for a new version next."""
  stale = [
    replica for replica in keeping.replicas if replica.stale and not replica.ending
  ]
  waiting = [replica for replica in stale if replica.status in _UNCLAIMED]
  running = [replica for replica in stale if replica.status is TaskStatus.RUNNING]
  if not waiting and not _all_settled(keeping):
    return []
  for replica in (*waiting, *running)[:1]:
    if replica.task_id is not None:
      return [(replica.task_id, "its job or schedule has changed")]
  return []


def _all_settled(keeping: Keeping) -> bool:
  """Tell whether every replica runs, those of the new version for a while."""
  wanted = [each for each in keeping.replicas if each.number < keeping.wanted]
  return len(wanted) == keeping.wanted and all(
    each.status is TaskStatus.RUNNING
    and not each.ending
    and (
      each.stale
      or (each.started_at is not None and each.started_at <= keeping.read_at - SETTLED)
    )
    for each in wanted
  )
