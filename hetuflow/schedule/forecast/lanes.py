"""What a simulation is made of: tasks with their limits, lanes, and room in namespaces."""

import math
from collections import deque
from collections.abc import Hashable, Sequence
from heapq import heappop

from attrs import define, field, frozen

from hetuflow.protocol.states import OverlapPolicy

__all__ = ["Lane", "Limits", "Room", "Stream", "Tally", "Task"]


@frozen(kw_only=True)
class Limits:
  """What a job says of how its tasks may run.

  Args:
    lane: tasks with the same one share places; None where nothing is limited.
    places: how many of the lane may be under way; infinite where nothing is said.
    overlap: what a task does that finds none.
    rate: microseconds between two starts of ``job``; 0 for none.
    job: whose rate it is.
    start_deadline: microseconds after its time at which a task is missed; infinite where
      it may always start.
    priority: from -10 to 10.
    namespace: where ``room`` is shared.
    room: how many tasks of the namespace may be under way.
  """

  lane: Hashable = None
  places: float = math.inf
  overlap: OverlapPolicy = OverlapPolicy.ALLOW
  rate: float = 0
  job: Hashable = None
  start_deadline: float = math.inf
  priority: int = 0
  namespace: Hashable = None
  room: float = math.inf

  @property
  def free(self) -> bool:
    """Whether tasks start as soon as they are due."""
    return self.lane is None and self.room == math.inf


@frozen(kw_only=True)
class Stream:
  """The tasks of one schedule.

  Args:
    times: when they are due, in order, in microseconds since the epoch.
    duration: how long each runs, in microseconds, at least 1.
    limits: of its job.
  """

  times: Sequence[int]
  duration: int
  limits: Limits = field(factory=Limits)


@define
class Tally:
  """What became of the tasks of a stream; durations are microseconds.

  ``replaced`` counts those that a newer one ended, or stood for before they started;
  ``waiting`` those that wait at the end of the span; ``longest_queue`` is how many waited
  at most when an instant was over, ``longest_wait`` how long one that started had waited.
  """

  due: int = 0
  started: int = 0
  skipped: int = 0
  replaced: int = 0
  missed: int = 0
  waiting: int = 0
  longest_queue: int = 0
  longest_wait: int = 0


@define(eq=False)
class Task:
  """One task that is due: it waits, then it runs, then it is over."""

  rank: int
  number: int
  due_at: int
  stream: int
  limits: Limits
  waits: bool = True
  runs: bool = False

  def __lt__(self, other: "Task") -> bool:
    """Order by rank, then as they came."""
    return (self.rank, self.number) < (other.rank, other.number)


@define(eq=False)
class Room:
  """What a namespace lets be under way, and the first ones of lanes that ask for it."""

  left: float
  asking: list[tuple[Task, "Lane"]] = field(factory=list)


@define(eq=False)
class Lane:
  """Tasks that share places: those that wait, and those that are under way."""

  room: Room
  waiting: list[Task] = field(factory=list)
  running: deque[Task] = field(factory=deque)
  replacing: dict[Hashable, list[Task]] = field(factory=dict)
  holders: int = 0
  skippers: int = 0

  def head(self) -> Task | None:
    """Return who is next."""
    while self.waiting and not self.waiting[0].waits:
      heappop(self.waiting)
    return self.waiting[0] if self.waiting else None

  def oldest(self) -> Task | None:
    """Return what has been under way for the longest time."""
    while self.running and not self.running[0].runs:
      self.running.popleft()
    return self.running[0] if self.running else None
