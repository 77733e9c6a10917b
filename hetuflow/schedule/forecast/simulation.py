"""Tasks that come, wait for a place, run and end: a simulation from event to event.

The rules are those by which a server gives places: within a lane the order of rank is
strict, a task that must wait holds up those behind it, only ``skip`` does not wait and
``replace`` ends what is under way; over the lanes of a namespace places are given in order
of rank; starts of a rate are spaced evenly. What ends and what comes in one instant have
both happened before a place is given. Idealised are the agents (there is always room on
one), the way of a task to them (no time) and the end of what is replaced (at once).

A simulation is advanced in slices, so that whoever drives it can do other things between.
"""

import math
from collections.abc import Hashable, Sequence
from heapq import heappop, heappush

from hetuflow.protocol.states import OverlapPolicy
from hetuflow.schedule.forecast.lanes import Lane, Limits, Room, Stream, Tally, Task
from hetuflow.schedule.forecast.load import Load

__all__ = ["Simulation"]

RANK_STEP = 60_000_000
"""By how many microseconds one step of priority comes earlier."""

# What happens in one instant, in this order.
_END, _LATE, _DUE, _RATE = range(4)


class Simulation:
  """Tasks of some streams from one instant to another; nothing is under way before.

  Args:
    streams: whose tasks.
    start: the first instant, in microseconds since the epoch; nothing is due before.
    end: what is due at it or later does not come.
  """

  def __init__(self, streams: Sequence[Stream], *, start: int, end: int) -> None:
    self.tallies = [Tally() for _ in streams]
    self.load = Load(start=start, end=end)
    self._streams = streams
    self._end = end
    self._lanes: dict[tuple[Hashable, Hashable], Lane] = {}
    self._rooms: dict[Hashable, Room] = {}
    self._arrivals: dict[Hashable, float] = {}
    self._next = [iter(stream.times) for stream in streams]
    self._number = 0
    # By instant, what it is, and a number that keeps the order total: of what is due in
    # one instant the first stream's comes first.
    self._events: list[tuple[int, int, int, int | Task | Lane]] = []
    # What this instant has changed, in order.
    self._touched: dict[Lane, None] = {}
    self._queued: dict[int, None] = {}
    for number in range(len(streams)):
      self._await_next(number)

  def advance(self, events: int) -> bool:
    """Let some events happen; tell whether there are more."""
    for _ in range(events):
      if not self._events or self._events[0][0] >= self._end:
        self.load.move_to(self._end)
        return False
      at, kind, _, subject = heappop(self._events)
      self.load.move_to(at)
      self._happen(at, kind, subject)
      if not self._events or self._events[0][0] > at:
        self._settle(at)
    return True

  def _push(self, at: float, kind: int, subject: int | Task | Lane) -> None:
    """Let something happen later."""
    self._number += 1
    heappush(self._events, (math.ceil(at), kind, self._number, subject))

  def _await_next(self, number: int) -> None:
    """Let the next task of a stream come when it is due."""
    at = next(self._next[number], None)
    if at is not None:
      heappush(self._events, (at, _DUE, number, number))

  def _happen(self, at: int, kind: int, subject: int | Task | Lane) -> None:
    """Let one event happen."""
    if isinstance(subject, int):
      self._come(at, subject)
    elif isinstance(subject, Lane):
      self._touched[subject] = None
    elif kind == _END:
      self._end_task(subject)
    elif subject.waits:
      self._drop(subject)
      self.tallies[subject.stream].missed += 1
      self._touched[self._lane_of(subject.limits)] = None

  def _come(self, at: int, number: int) -> None:
    """Let a task of a stream be due."""
    self._await_next(number)
    limits = self._streams[number].limits
    self._number += 1
    rank = at - limits.priority * RANK_STEP
    task = Task(rank, self._number, at, number, limits)
    self.tallies[number].due += 1
    self.load.count_fire()
    if limits.free:
      self._begin(task, at)
    else:
      self._wait(task)

  def _wait(self, task: Task) -> None:
    """Let a task wait in its lane."""
    limits, lane = task.limits, self._lane_of(task.limits)
    heappush(lane.waiting, task)
    self.tallies[task.stream].waiting += 1
    self._queued[task.stream] = None
    self._touched[lane] = None
    if limits.start_deadline < math.inf:
      # It may still start at the very instant.
      self._push(task.due_at + limits.start_deadline + 1, _LATE, task)
    if limits.overlap is OverlapPolicy.SKIP:
      lane.skippers += 1
    elif limits.overlap is OverlapPolicy.REPLACE:
      self._outrun(lane, task)

  def _outrun(self, lane: Lane, task: Task) -> None:
    """Let only as many of a job wait to replace others as there are places."""
    waiting = lane.replacing.get(task.limits.job, [])
    waiting = [*(each for each in waiting if each.waits), task]
    kept = int(min(task.limits.places, len(waiting)))
    for older in waiting[:-kept]:
      self._drop(older)
      self.tallies[older.stream].replaced += 1
    lane.replacing[task.limits.job] = waiting[-kept:]

  def _lane_of(self, limits: Limits) -> Lane:
    """Return the lane of tasks with some limits."""
    key = limits.namespace, limits.lane
    lane = self._lanes.get(key)
    if lane is None:
      room = self._rooms.setdefault(limits.namespace, Room(limits.room))
      lane = self._lanes[key] = Lane(room)
    return lane

  def _drop(self, task: Task) -> None:
    """Let a task wait no more."""
    task.waits = False
    self.tallies[task.stream].waiting -= 1
    if task.limits.overlap is OverlapPolicy.SKIP:
      self._lane_of(task.limits).skippers -= 1

  def _settle(self, at: int) -> None:
    """Give places to those who wait, when all of an instant has happened."""
    rooms: dict[Room, None] = {}
    for lane in self._touched:
      rooms[lane.room] = None
      self._ask(lane)
    self._touched = {}
    for room in rooms:
      self._fill(room, at)
    for number in self._queued:
      tally = self.tallies[number]
      tally.longest_queue = max(tally.longest_queue, tally.waiting)
    self._queued = {}
    self.load.settle()

  def _ask(self, lane: Lane) -> None:
    """Let the first one of a lane ask for room, if its lane has a place for it."""
    while (head := lane.head()) and lane.holders >= head.limits.places:
      oldest = lane.oldest()
      match head.limits.overlap:
        case OverlapPolicy.SKIP:
          self._skip(head)
        case OverlapPolicy.REPLACE if oldest:
          self.tallies[oldest.stream].replaced += 1
          self._end_task(oldest)
        case _:
          self._skip_behind(lane)
          return
    if head:
      heappush(lane.room.asking, (head, lane))

  def _skip(self, task: Task) -> None:
    """Leave a task out."""
    self._drop(task)
    self.tallies[task.stream].skipped += 1

  def _skip_behind(self, lane: Lane) -> None:
    """Leave out what does not wait, behind one that does, in a lane that is full."""
    if lane.skippers:
      for task in lane.waiting:
        if task.waits and task.limits.overlap is OverlapPolicy.SKIP:
          self._skip(task)

  def _fill(self, room: Room, at: int) -> None:
    """Give the room of a namespace, in order of rank over its lanes."""
    while room.left > 0 and room.asking:
      task, lane = heappop(room.asking)
      # It may have asked before, and have gone since.
      asks = task is lane.head() and lane.holders < task.limits.places
      if asks and self._pass_rate(task.limits, lane, at):
        self._give_place(task, lane, at)
        self._ask(lane)

  def _pass_rate(self, limits: Limits, lane: Lane, at: int) -> bool:
    """Take the next start of a job's rate, or look at the lane again when it is free."""
    if not limits.rate:
      return True
    free_at = self._arrivals.get(limits.job, at)
    if free_at > at:
      self._push(free_at, _RATE, lane)
      return False
    self._arrivals[limits.job] = at + limits.rate
    return True

  def _give_place(self, task: Task, lane: Lane, at: int) -> None:
    """Let a task that waits run."""
    self._drop(task)
    tally = self.tallies[task.stream]
    tally.longest_wait = max(tally.longest_wait, at - task.due_at)
    lane.holders += 1
    if task.limits.places < math.inf:
      lane.running.append(task)
    lane.room.left -= 1
    self._begin(task, at)

  def _begin(self, task: Task, at: int) -> None:
    """Let a task run from now on."""
    task.waits, task.runs = False, True
    self.tallies[task.stream].started += 1
    self.load.change(1)
    self._push(at + self._streams[task.stream].duration, _END, task)

  def _end_task(self, task: Task) -> None:
    """Let a task end, if it has not been ended before its time."""
    if not task.runs:
      return
    task.runs = False
    self.load.change(-1)
    if not task.limits.free:
      lane = self._lane_of(task.limits)
      lane.holders -= 1
      lane.room.left += 1
      self._touched[lane] = None
