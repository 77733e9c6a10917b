"""The wheel: what is due fires at its millisecond, never before.

Who runs it: `WheelDriver.run` is one supervised child; `schedule` and `cancel` are plain
calls from the Trio thread. It owns the timers and one timerfd. When the driver dies the
timers stay: its restart goes on where it stopped. When `fire` raises, that batch is gone
from the wheel and the child crashes; the owner re-reads the journal.

`TimingWheel` is the hierarchical hashed timing wheel of Varghese and Lauck, "Hashed and
Hierarchical Timing Wheels" (SOSP 1987), scheme 7, with 256 slots a level. A timer lives
on the level of the highest byte in which its due time differs from the wheel's time, so
each level holds only times behind those of the level below, and the next occupied slot is
the first set bit of the lowest level that has one.

The driver waits on a timerfd instead of a Trio timeout: epoll rounds timeouts up to whole
milliseconds, the kernel's high-resolution timer does not. Rejected: sleeping short and
spinning the rest, which burns up to a millisecond of a core for each fire.
"""

import math
from collections.abc import Callable
from typing import Generic, TypeVar

import trio
from attrs import define, field

from hetuflow.agent.timing.alarm import Alarm
from hetuflow.agent.timing.clock import DisciplinedClock

__all__ = ["Timer", "TimingWheel", "WheelDriver"]

ItemT = TypeVar("ItemT")

BITS = 8
SLOTS = 1 << BITS
LEVELS = 4  # 2**32 ms: 49 days before the overflow is used
LONGEST_SLEEP_SECONDS = 1.0


@define(eq=False)
class Timer(Generic[ItemT]):
  """A scheduled item; the handle by which it is cancelled.

  Args:
    due_ms: the millisecond at which it fires.
    item: what is handed out then.
  """

  due_ms: int
  item: ItemT
  _order: int = field(alias="order")
  _level: int = field(default=0, init=False)
  _slot: int = field(default=0, init=False)
  _home: "dict[int, Timer[ItemT]] | None" = field(default=None, init=False)

  @property
  def pending(self) -> bool:
    """Whether it is still to fire: neither fired nor cancelled."""
    return self._home is not None


@define(eq=False)
class _Level(Generic[ItemT]):
  """256 slots and a bitmap of the occupied ones."""

  slots: dict[int, dict[int, Timer[ItemT]]] = field(factory=dict)
  bitmap: int = 0

  def put(self, timer: Timer[ItemT], index: int) -> None:
    """Add a timer to slot `index`."""
    home = self.slots.get(index)
    if home is None:
      home = self.slots[index] = {}
      self.bitmap |= 1 << index
    home[timer._order] = timer
    timer._slot, timer._home = index, home

  def take(self, index: int) -> dict[int, Timer[ItemT]]:
    """Empty slot `index` and return what was in it."""
    self.bitmap &= ~(1 << index)
    return self.slots.pop(index)

  def first(self) -> int:
    """Return the index of the first occupied slot; only if there is one."""
    return (self.bitmap & -self.bitmap).bit_length() - 1


class TimingWheel(Generic[ItemT]):
  """Timers in milliseconds: O(1) to schedule and to cancel, never early, in due order.

  Args:
    start_ms: the wheel's time at the beginning.
    levels: levels of 256 slots; what lies beyond them waits in an overflow that is
      dealt out again each time the top level has turned once.
  """

  def __init__(self, start_ms: int, *, levels: int = LEVELS) -> None:
    self._time = start_ms
    self._order = 0
    self._count = 0
    self._levels: list[_Level[ItemT]] = [_Level() for _ in range(levels)]
    self._overflow: dict[int, Timer[ItemT]] = {}
    # Scheduled at or before the wheel's time. Not simply due: time may have been set back.
    self._behind: dict[int, Timer[ItemT]] = {}

  def __len__(self) -> int:
    return self._count

  def schedule(self, due_ms: int, item: ItemT) -> Timer[ItemT]:
    """Add an item that fires at `due_ms`; a time that has passed fires at once."""
    self._order += 1
    timer = Timer(due_ms, item, order=self._order)
    self._count += 1
    if due_ms <= self._time:
      self._keep(timer, self._behind)
    else:
      self._place(timer)
    return timer

  def cancel(self, timer: Timer[ItemT]) -> bool:
    """Take a timer out; False if it has fired or was cancelled before."""
    home = timer._home
    if home is None:
      return False
    del home[timer._order]
    timer._home = None
    self._count -= 1
    if not home and home is not self._behind and home is not self._overflow:
      self._levels[timer._level].take(timer._slot)
    return True

  def next_due_ms(self) -> int | None:
    """Return the time to call `advance` next, None if nothing is scheduled.

    Exact when the next timer lies within the current 256 ms; otherwise a lower bound,
    the moment its slot is dealt out to the finer levels.
    """
    ahead = self._next_slot()
    behind = min((timer.due_ms for timer in self._behind.values()), default=None)
    if ahead is None or behind is None:
      return ahead if behind is None else behind
    return min(ahead, behind)

  def advance(self, now_ms: int) -> list[ItemT]:
    """Turn to `now_ms` and return what is due by then, by due time, then by order.

    A time before the wheel's own only hands out what is due by it.
    """
    due = [timer for timer in self._behind.values() if timer.due_ms <= now_ms]
    for timer in due:
      del self._behind[timer._order]
    while (at := self._next_slot()) is not None and at <= now_ms:
      due.extend(self._turn(at))
    self._time = max(self._time, now_ms)
    for timer in due:
      timer._home = None
    self._count -= len(due)
    due.sort(key=lambda timer: (timer.due_ms, timer._order))
    return [timer.item for timer in due]

  def _next_slot(self) -> int | None:
    """Return the time at which the next occupied slot begins."""
    for number, level in enumerate(self._levels):
      if level.bitmap:
        rotation = self._time >> BITS * (number + 1) << BITS * (number + 1)
        return rotation | level.first() << BITS * number
    if self._overflow:
      return (self._time >> self._span) + 1 << self._span
    return None

  def _turn(self, at: int) -> list[Timer[ItemT]]:
    """Set the time to `at`, the next occupied slot; return what is due at just that."""
    taken = self._take_next()
    self._time = at
    due = []
    for timer in taken.values():
      if timer.due_ms == at:
        due.append(timer)
      else:
        self._place(timer)
    return due

  def _take_next(self) -> dict[int, Timer[ItemT]]:
    """Empty the next occupied slot, or the overflow."""
    for level in self._levels:
      if level.bitmap:
        return level.take(level.first())
    taken, self._overflow = self._overflow, {}
    return taken

  def _place(self, timer: Timer[ItemT]) -> None:
    """Put a timer where it belongs, seen from the wheel's time, which is before it."""
    number = ((timer.due_ms ^ self._time).bit_length() - 1) // BITS
    if number >= len(self._levels):
      self._keep(timer, self._overflow)
      return
    timer._level = number
    self._levels[number].put(timer, timer.due_ms >> BITS * number & SLOTS - 1)

  def _keep(self, timer: Timer[ItemT], home: dict[int, Timer[ItemT]]) -> None:
    """Put a timer into a home that has no slots."""
    home[timer._order] = timer
    timer._home = home

  @property
  def _span(self) -> int:
    """The number of low bits that the levels cover."""
    return BITS * len(self._levels)


class WheelDriver(Generic[ItemT]):
  """Fires what is due on the disciplined clock: at its time or later, never before.

  Args:
    clock: database time.
    fire: takes a batch in due order; must not block and must not raise.
  """

  def __init__(
    self, clock: DisciplinedClock, fire: Callable[[list[ItemT]], None]
  ) -> None:
    self._clock = clock
    self._fire = fire
    self._wheel: TimingWheel[ItemT] = TimingWheel(self._now_ms())
    self._alarm: Alarm | None = None
    self._sleeps_until_ms: float = -math.inf

  def __len__(self) -> int:
    return len(self._wheel)

  def schedule(self, due_at: float, item: ItemT) -> Timer[ItemT]:
    """Fire `item` at database time `due_at` (epoch seconds), rounded up to 1 ms."""
    timer = self._wheel.schedule(math.ceil(due_at * 1000), item)
    if timer.due_ms < self._sleeps_until_ms and self._alarm is not None:
      self._sleeps_until_ms = timer.due_ms
      self._set_alarm(self._alarm)
    return timer

  def cancel(self, timer: Timer[ItemT]) -> bool:
    """Take a timer out; False if it has fired or was cancelled before."""
    return self._wheel.cancel(timer)

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Fire what is due for ever; started when the first alarm is set."""
    with Alarm() as self._alarm:
      task_status.started()
      try:
        while True:
          self.fire_once()
          self._set_alarm(self._alarm)
          await self._alarm.wait()
      finally:
        self._alarm, self._sleeps_until_ms = None, -math.inf

  def fire_once(self) -> int:
    """Fire what is due now; return how many items that were."""
    items = self._wheel.advance(self._now_ms())
    if items:
      self._fire(items)
    due = self._wheel.next_due_ms()
    self._sleeps_until_ms = math.inf if due is None else due
    return len(items)

  def _now_ms(self) -> int:
    """Database time in whole milliseconds, those that are over."""
    return math.floor(self._clock.now() * 1000)

  def _set_alarm(self, alarm: Alarm) -> None:
    """Wake at the next occupied slot, at the latest in a second."""
    delay = self._sleeps_until_ms / 1000 - self._clock.now()
    alarm.set(min(max(delay, 0.0), LONGEST_SLEEP_SECONDS))
