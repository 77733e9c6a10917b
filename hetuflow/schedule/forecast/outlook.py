"""The load of many schedules together, within a budget of fires.

Fires are simulated one by one as long as the budget lasts, beginning with the schedules
that fire least. What fires more often than that is *steady*: it is counted by hours, runs
as evenly as that, and has its lane to itself.
"""

import math
from collections import defaultdict
from collections.abc import Generator, Hashable, Iterator, Sequence

from attrs import field, frozen

from hetuflow.protocol.states import OverlapPolicy
from hetuflow.schedule.forecast.lanes import Limits, Stream, Tally
from hetuflow.schedule.forecast.load import HOUR, Hour
from hetuflow.schedule.forecast.simulation import Simulation
from hetuflow.schedule.instants import to_micros, to_moment
from hetuflow.schedule.timing import Timing, jitter

__all__ = ["Outlook", "Source", "foresee"]

SLICE = 100
"""Fires, or events, between two steps: about half a millisecond."""
MOST_COUNTS = 20_000
"""Spans in which steady schedules are counted, all of them together."""


@frozen(kw_only=True)
class Source:
  """A schedule, and how its tasks run.

  Args:
    timing: when they are due; None where ``replicas`` of them run all the time.
    key: spreads the jitter, such as the id of the schedule.
    duration: how long a task runs, in microseconds, at least 1.
    limits: of its job.
    delay: microseconds from the end of a task to the next one; None where the timing
      alone says when.
    most: how many runs are left; infinite where they are not counted.
    replicas: how many run all the time.
  """

  timing: Timing | None
  key: str
  duration: int
  limits: Limits = field(factory=Limits)
  delay: int | None = None
  most: float = math.inf
  replicas: int = 0


@frozen(kw_only=True)
class Outlook:
  """What is to be expected, for each source in order.

  ``steady`` says which ones were not simulated, ``growing`` which ones more is due of
  than can run, for as long as it goes on.
  """

  tallies: list[Tally]
  steady: list[bool]
  growing: list[bool]
  hours: list[Hour]


def foresee(
  sources: Sequence[Source], *, start: int, end: int, budget: int
) -> Generator[None, None, Outlook]:
  """Work out what is to be expected, in steps of a few milliseconds.

  Args:
    sources: the schedules.
    start: the first instant, in microseconds since the epoch.
    end: the instant behind the last one.
    budget: how many fires are simulated at most.

  Returns:
    When the steps are done, the outlook.
  """
  counts = []
  for source in sources:
    counts.append(_count(source, start, end))
    yield
  steady = _choose_steady(counts, budget)
  streams = []
  for source, even in zip(sources, steady, strict=True):
    times: list[int] = []
    if not even:
      yield from _collect(source, times, start, end)
    streams.append(Stream(times=times, duration=source.duration, limits=source.limits))
  simulation = Simulation(streams, start=start, end=end)
  while simulation.advance(SLICE):
    yield
  hours = simulation.load.hours
  tallies = simulation.tallies
  step = HOUR * max(1, math.ceil(sum(steady) * len(hours) / MOST_COUNTS))
  for number, source in enumerate(sources):
    if source.replicas:
      _add_evenly(hours, source.replicas, end)
    if steady[number]:
      tallies[number] = _estimate(source, counts[number], end - start)
      yield from _spread(source, hours, step, end)
  return Outlook(
    tallies=tallies,
    steady=steady,
    growing=_find_growing(sources, tallies, end - start),
    hours=hours,
  )


def _count(source: Source, start: int, end: int) -> int:
  """Count the fires of a source."""
  if source.timing is None:
    return 0
  if source.delay is None:
    found = source.timing.count_micros(start - 1, end - 1)
  else:
    first = source.timing.next_micros(start - 1, end - 1)
    period = source.delay + source.duration
    found = 0 if first is None else (end - 1 - first) // period + 1
  return int(min(found, source.most))


def _choose_steady(counts: Sequence[int], budget: int) -> list[bool]:
  """Say which sources fire too often for the budget, given to the rarest first."""
  steady = [False] * len(counts)
  for number in sorted(range(len(counts)), key=counts.__getitem__):
    budget -= counts[number]
    steady[number] = budget < 0
  return steady


def _collect(source: Source, times: list[int], start: int, end: int) -> Iterator[None]:
  """Find when the tasks of a source are due, in steps."""
  for number, at in enumerate(_fires(source, start, end), 1):
    times.append(at)
    if number % SLICE == 0:
      yield
  timing = source.timing
  if timing is not None and timing.jitter_seconds:
    for number, at in enumerate(times):
      later = to_micros(to_moment(at) + jitter(timing, to_moment(at), source.key))
      times[number] = later
      if number % SLICE == 0:
        yield
    times.sort()


def _fires(source: Source, start: int, end: int) -> Iterator[int]:
  """Yield when a source fires, without jitter."""
  if source.timing is None:
    return
  at = source.timing.next_micros(start - 1, end - 1)
  left = source.most
  while at is not None and at < end and left > 0:
    yield at
    left -= 1
    if source.delay is None:
      at = source.timing.next_micros(at, end - 1)
    else:
      at += source.duration + source.delay


def _add_evenly(hours: Sequence[Hour], replicas: int, end: int) -> None:
  """Let some run all the time."""
  for hour in hours:
    hour.busy += replicas * min(HOUR, end - hour.start)
    hour.peak += replicas


def _estimate(source: Source, count: int, span: int) -> Tally:
  """Say what becomes of tasks that come evenly and have their lane to themselves."""
  limits = source.limits
  fit = float(count)
  if not limits.free:
    fit = min(fit, min(limits.places, limits.room) * span / source.duration)
    fit = min(fit, span / limits.rate) if limits.rate else fit
  surplus = count - math.floor(fit)
  match limits.overlap:
    case OverlapPolicy.SKIP:
      return Tally(due=count, started=count - surplus, skipped=surplus)
    case OverlapPolicy.REPLACE:
      return Tally(due=count, started=count, replaced=surplus)
  if limits.start_deadline < math.inf:
    return Tally(due=count, started=count - surplus, missed=surplus)
  return Tally(
    due=count, started=count - surplus, waiting=surplus, longest_queue=surplus
  )


def _spread(
  source: Source, hours: Sequence[Hour], step: int, end: int
) -> Iterator[None]:
  """Add a steady source to the hours, counted in spans of some hours, in steps."""
  if source.timing is None:
    return
  places = math.inf if source.limits.free else source.limits.places
  left = source.most
  for first in range(0, len(hours), step // HOUR):
    some = hours[first : first + step // HOUR]
    until = min(some[0].start + step, end)
    span = until - some[0].start
    if source.delay is None:
      count: float = source.timing.count_micros(some[0].start - 1, until - 1)
    else:
      count = span / (source.delay + source.duration)
    count = min(count, left)
    left -= count
    running = min(count * source.duration / span, places)
    for hour in some:
      hour.fires += count / len(some)
      hour.busy += running * min(HOUR, end - hour.start)
      hour.peak += math.ceil(running)
    yield


def _find_growing(
  sources: Sequence[Source], tallies: Sequence[Tally], span: int
) -> list[bool]:
  """Find those that wait, and of which more is due than their limits let run."""
  lanes: dict[Hashable, int] = defaultdict(int)
  rooms: dict[Hashable, int] = defaultdict(int)
  rates: dict[Hashable, float] = defaultdict(float)
  places: dict[Hashable, float] = {}
  for source, tally in zip(sources, tallies, strict=True):
    limits = source.limits
    lane = limits.namespace, limits.lane
    work = (tally.due - tally.skipped - tally.replaced) * source.duration
    lanes[lane] += work
    rooms[limits.namespace] += work
    rates[limits.job] += (tally.due - tally.skipped - tally.replaced) * limits.rate
    places[lane] = max(places.get(lane, 0), limits.places)
  growing = []
  for source, tally in zip(sources, tallies, strict=True):
    limits = source.limits
    lane = limits.namespace, limits.lane
    beyond = (
      lanes[lane] > places[lane] * span
      or rooms[limits.namespace] > limits.room * span
      or rates[limits.job] > span
    )
    growing.append(bool(tally.waiting) and limits.start_deadline == math.inf and beyond)
  return growing
