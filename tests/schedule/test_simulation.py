"""Tasks that come, wait, run and end, against a search second by second.

The search takes one second after the other and asks the very function by which servers
give places.
"""

import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

import attrs
from hypothesis import given
from hypothesis import strategies as st
from schedule_oracle import examples

from hetuflow.protocol.states import OverlapPolicy
from hetuflow.schedule.forecast import Limits, Simulation, Stream, Tally
from hetuflow.storage.judgement import Candidate, Rate, choose_replaced, judge

SECOND = 1_000_000
HOUR = 3600
ALLOW, SKIP, QUEUE, REPLACE = (
  OverlapPolicy.ALLOW,
  OverlapPolicy.SKIP,
  OverlapPolicy.QUEUE,
  OverlapPolicy.REPLACE,
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def stream(times: list[int], duration: int, **limits) -> Stream:
  """A stream in seconds; ``rate`` and ``start_deadline`` too."""
  for name in ("rate", "start_deadline"):
    if name in limits:
      limits[name] = round(limits[name] * SECOND)
  return Stream(
    times=[at * SECOND for at in times],
    duration=duration * SECOND,
    limits=Limits(**limits),
  )


def simulate(streams: list[Stream], end: int, *, slices: int = 7) -> Simulation:
  """Let everything happen until a second."""
  simulation = Simulation(streams, start=0, end=end * SECOND)
  while simulation.advance(slices):
    pass
  return simulation


def tally_of(one: Stream, end: int = HOUR) -> Tally:
  """What becomes of a stream that is alone."""
  return simulate([one], end).tallies[0]


def test_tasks_without_limits_start_when_they_are_due():
  found = simulate([stream([0, 10, 20], 15)], HOUR)
  assert found.tallies == [Tally(due=3, started=3)]
  [hour] = found.load.hours
  assert (hour.fires, hour.busy, hour.peak) == (3, 45 * SECOND, 2)
  assert hour.peak_at == 10 * SECOND


def test_what_ends_makes_place_for_what_comes_in_the_same_instant():
  lane = {"lane": "x", "places": 1, "overlap": SKIP}
  assert tally_of(stream([0, 10, 20], 10, **lane)).skipped == 0
  assert tally_of(stream([0, 10, 20], 11, **lane)) == Tally(due=3, started=2, skipped=1)


def test_a_queue_waits_and_grows_when_it_cannot_drain():
  lane = {"lane": "x", "places": 1, "overlap": QUEUE}
  found = tally_of(stream(list(range(0, HOUR, 60)), 90, **lane))
  assert (found.started, found.waiting) == (40, 20)
  assert found.longest_queue == 20
  assert found.longest_wait == 39 * 30 * SECOND


def test_a_replacement_ends_what_is_under_way():
  lane = {"lane": "x", "places": 1, "overlap": REPLACE}
  found = simulate([stream([0, 60, 120], 90, **lane)], HOUR)
  assert found.tallies == [Tally(due=3, started=3, replaced=2, longest_queue=0)]
  assert found.load.hours[0].busy == (60 + 60 + 90) * SECOND
  assert found.load.hours[0].peak == 1


def test_what_waits_beyond_its_deadline_is_missed():
  lane = {"lane": "x", "places": 1, "overlap": QUEUE, "start_deadline": 50}
  found = tally_of(stream([0, 10, 50, 60], 100, **lane))
  # At 100 the one of 50 starts at the last moment; that of 10 is gone by then, and that
  # of 60 before the next place is free.
  assert found == Tally(
    due=4, started=2, missed=2, longest_queue=3, longest_wait=50 * SECOND
  )


def test_a_rate_spaces_starts():
  found = tally_of(stream([0, 0, 0, 30], 1, lane="x", rate=20))
  assert (found.started, found.longest_wait) == (4, 40 * SECOND)


def test_higher_priority_goes_first_through_the_room_of_a_namespace():
  room = {"namespace": "n", "room": 1}
  low = stream([0, 1], 10, **room)
  high = stream([2], 10, priority=1, **room)
  found = simulate([low, high], HOUR)
  assert found.tallies[1].longest_wait == 8 * SECOND
  assert found.tallies[0].longest_wait == 19 * SECOND
  assert found.load.hours[0].peak == 1


def test_hours_add_up_to_all_that_is_under_way():
  found = simulate([stream([HOUR - 10], HOUR + 20), stream([0], 5 * HOUR)], 3 * HOUR)
  assert [hour.busy for hour in found.load.hours] == [
    (HOUR + 10) * SECOND,
    2 * HOUR * SECOND,
    (HOUR + 10) * SECOND,
  ]
  assert [hour.peak for hour in found.load.hours] == [2, 2, 2]
  assert [hour.fires for hour in found.load.hours] == [2, 0, 0]


def test_a_last_hour_that_is_cut_off_is_counted_to_its_end():
  found = simulate([stream([0], 9 * HOUR)], HOUR + 600)
  assert [hour.busy for hour in found.load.hours] == [HOUR * SECOND, 600 * SECOND]


@attrs.define
class Running:
  """A task of the search that is under way."""

  id: UUID
  number: int
  ends_at: int


class Search:
  """The same, second by second, with the judgement of servers."""

  def __init__(self, streams: list[Stream], end: int) -> None:
    self.streams = streams
    self.tallies = [Tally() for _ in streams]
    self.waiting: list[tuple[int, int, Candidate, int]] = []
    self.running: list[Running] = []
    self.arrivals: dict[UUID, datetime] = {}
    self.peak, self.busy = 0, 0
    self.made = 0
    for second in range(end):
      self._pass(second)
    queues = Counter(entry[3] for entry in self.waiting)
    for number, tally in enumerate(self.tallies):
      tally.waiting = queues[number]

  def _pass(self, second: int) -> None:
    """Let one second happen."""
    self.running = [each for each in self.running if each.ends_at > second]
    for number, one in enumerate(self.streams):
      for at in one.times:
        if at == second * SECOND:
          self._come(number, second)
    self._miss(second)
    while self._judge(second):
      pass
    queues = Counter(entry[3] for entry in self.waiting)
    for number, tally in enumerate(self.tallies):
      tally.longest_queue = max(tally.longest_queue, queues[number])
    self.peak = max(self.peak, len(self.running))
    self.busy += len(self.running)

  def _miss(self, second: int) -> None:
    """Let go what waits beyond its deadline."""
    for entry in list(self.waiting):
      limits = self.streams[entry[3]].limits
      if entry[2].due_at + self._span(limits.start_deadline) < self._moment(second):
        self.tallies[entry[3]].missed += 1
        self.waiting.remove(entry)

  def _moment(self, second: int) -> datetime:
    """Return a second as a time."""
    return EPOCH + timedelta(seconds=second)

  def _span(self, micros: float) -> timedelta:
    """Return a duration, a very long one where there is no bound."""
    return timedelta(days=999) if micros == math.inf else timedelta(microseconds=micros)

  def _come(self, number: int, second: int) -> None:
    """Let a task be due."""
    limits = self.streams[number].limits
    self.tallies[number].due += 1
    self.made += 1
    job = UUID(int=limits.job)
    rate = Rate(count=1, seconds=limits.rate / SECOND, arrival_at=None)
    candidate = Candidate(
      id=UUID(int=self.made),
      lane=str(limits.lane),
      job_id=job,
      due_at=self._moment(second),
      overlap=limits.overlap,
      max=limits.places,
      rate=rate if limits.rate else None,
    )
    self.waiting.append((second - 60 * limits.priority, self.made, candidate, number))
    self.waiting.sort(key=lambda entry: entry[:2])

  def _judge(self, second: int) -> bool:
    """Judge once; tell whether anything has changed."""
    now = self._moment(second)
    candidates = [
      attrs.evolve(
        each,
        rate=each.rate
        and attrs.evolve(each.rate, arrival_at=self.arrivals.get(each.job_id)),
      )
      for _, _, each, _ in self.waiting
    ]
    lanes = Counter(
      {str(each.limits.lane): 0 for each in self.streams}
      | Counter(str(self.streams[each.number].limits.lane) for each in self.running)
    )
    room = min(each.limits.room for each in self.streams) - len(self.running)
    found = judge(candidates, lanes, room=room, now=now)
    self.arrivals |= found.arrivals
    numbers = {entry[2].id: entry[3] for entry in self.waiting}
    ended = self._replace(found)
    for task in found.promoted:
      number = numbers[task.id]
      tally = self.tallies[number]
      tally.started += 1
      waited = (now - task.due_at) // timedelta(microseconds=1)
      tally.longest_wait = max(tally.longest_wait, waited)
      duration = self.streams[number].duration // SECOND
      self.running.append(Running(task.id, number, second + duration))
    for task in found.skipped:
      self.tallies[numbers[task.id]].skipped += 1
    for id in found.outrun:
      self.tallies[numbers[id]].replaced += 1
    gone = {each.id for each in (*found.promoted, *found.skipped)} | set(found.outrun)
    self.waiting = [entry for entry in self.waiting if entry[2].id not in gone]
    return bool(gone) or ended

  def _replace(self, found) -> bool:
    """End what makes place for others, at once; tell whether anything did."""
    ended: set[UUID] = set()
    for lane in found.replacing:
      held = [
        (each.id, False)
        for each in self.running
        if str(self.streams[each.number].limits.lane) == lane
      ]
      ended |= set(choose_replaced(found, lane, held))
    for each in self.running:
      if each.id in ended:
        self.tallies[each.number].replaced += 1
    self.running = [each for each in self.running if each.id not in ended]
    return bool(ended)


@st.composite
def loads(draw) -> tuple[list[Stream], int]:
  """Some jobs with a schedule each, in lanes of their own, in one namespace."""
  end = draw(st.integers(10, 120))
  room = draw(st.sampled_from([math.inf, math.inf, 1, 2, 4]))
  found = []
  for number in range(draw(st.integers(1, 4))):
    times = draw(st.lists(st.integers(0, end - 1), max_size=12, unique=True))
    limits = {
      "overlap": draw(st.sampled_from([ALLOW, SKIP, QUEUE, REPLACE])),
      "places": draw(st.sampled_from([1, 1, 2, 3])),
      "priority": draw(st.sampled_from([0, 0, 1, -1])),
    }
    if draw(st.booleans()):
      # Just before a second: the search sees only those.
      limits["start_deadline"] = draw(st.integers(1, 20)) - 1e-6
    if limits["overlap"] in (ALLOW, QUEUE) and draw(st.booleans()):
      limits["rate"] = draw(st.integers(1, 15))
    found.append(
      stream(
        sorted(times),
        draw(st.integers(1, 30)),
        lane=number,
        job=number,
        room=room,
        **limits,
      )
    )
  return found, end


@given(load=loads(), slices=st.integers(1, 50))
@examples(300)
def test_it_comes_out_as_the_judgement_of_servers_second_by_second(load, slices):
  streams, end = load
  found = simulate(streams, end, slices=slices)
  search = Search(streams, end)
  assert found.tallies == search.tallies
  assert found.load.hours[0].peak == search.peak
  assert found.load.hours[0].busy == search.busy * SECOND


@st.composite
def shared_lanes(draw) -> tuple[list[Stream], int]:
  """Some jobs that share one lane, with limits of their own."""
  end = draw(st.integers(10, 90))
  found = []
  for number in range(draw(st.integers(2, 4))):
    times = draw(st.lists(st.integers(0, end - 1), max_size=10, unique=True))
    limits = {
      "overlap": draw(st.sampled_from([SKIP, QUEUE, QUEUE])),
      "places": draw(st.sampled_from([1, 2, 3])),
      "start_deadline": draw(st.sampled_from([5, 1_000])) - 1e-6,
    }
    duration = draw(st.integers(1, 20))
    found.append(stream(sorted(times), duration, lane="key", job=number, **limits))
  return found, end


@given(load=shared_lanes())
@examples(300)
def test_jobs_that_share_a_lane_wait_for_each_other(load):
  streams, end = load
  search = Search(streams, end)
  assert simulate(streams, end).tallies == search.tallies
