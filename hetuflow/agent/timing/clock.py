"""The clock of the agent: database time on a base that no one can set, and leases.

Who runs it: plain objects, called from the Trio thread; no I/O of their own. The
connection feeds `DisciplinedClock.observe` with each exchange that carries database
time. When the other side goes silent, the clock runs on and its error bound grows with
age; a lease simply runs out.

The base is boot time (`CLOCK_BOOTTIME`): like the monotonic clock it never steps when
somebody sets the wall clock, and unlike it goes on while the machine is suspended, so
after a resume the time is right before the first exchange.
"""

import math
import time
from collections.abc import Callable

from attrs import frozen

__all__ = ["Anchor", "DisciplinedClock", "Lease", "boot_time"]

DRIFT_PER_SECOND = 50e-6  # a cheap crystal; NTP assumes 15e-6 for a disciplined one
MARGIN_SECONDS = 1.0
ENDING_SHARE = 0.1


def boot_time() -> float:
  """Seconds since boot, suspended time included; never steps."""
  return time.clock_gettime(time.CLOCK_BOOTTIME)


@frozen(kw_only=True)
class _Bounds:
  """Base + offset is database time for an offset from ``low`` to ``high``."""

  low: float
  high: float

  def contain(self, offset: float) -> bool:
    """Tell whether an offset may be the true one."""
    return self.low <= offset <= self.high

  def widened(self, seconds: float) -> "_Bounds":
    """Return what is still known after so much time."""
    drift = DRIFT_PER_SECOND * max(0.0, seconds)
    return _Bounds(low=self.low - drift, high=self.high + drift)

  def agreed(self, other: "_Bounds") -> "_Bounds | None":
    """Return what both allow; None if they contradict each other."""
    low, high = max(self.low, other.low), min(self.high, other.high)
    return _Bounds(low=low, high=high) if low <= high else None


class DisciplinedClock:
  """Database time, estimated from exchanges and carried on by boot time between them.

  Each exchange bounds the offset: the answer was read between question and receipt. What
  all of them agree on counts, each widened by the drift since (an intersection as in
  Marzullo's algorithm, RFC 5905 section 11.2.1); so a line that has become slow makes
  nothing worse. An exchange that contradicts the others means that database time itself
  was stepped: they are forgotten at once.

  Within the bounds the machine's own wall clock is believed, where it lies in them: most
  machines keep their clocks right by better means than ours, and a line that is slow in
  one direction would mislead the middle, and let tasks start early.

  Args:
    base: steady local seconds; `boot_time` unless a test says otherwise.
    wall: local epoch seconds, used until the first exchange and for `offset_ms`.
  """

  def __init__(
    self,
    *,
    base: Callable[[], float] = boot_time,
    wall: Callable[[], float] = time.time,
  ) -> None:
    self._base = base
    self._wall = wall
    self._bounds: _Bounds | None = None
    self._taken_at = 0.0
    self._offset = wall() - base()

  def local(self) -> float:
    """Read the base in seconds: before a request and after its response."""
    return self._base()

  def observe(
    self, *, t_sent: float, t_server: float, t_received: float, error: float = 0.0
  ) -> None:
    """Take in one exchange.

    Args:
      t_sent: `local()` immediately before the request left.
      t_server: database time in epoch seconds, read between the two others.
      t_received: `local()` as soon as the response was there.
      error: by how many seconds `t_server` may be wrong itself.

    Raises:
      ValueError: `t_received` lies before `t_sent`.
    """
    if t_received < t_sent:
      raise ValueError("an exchange cannot be received before it was sent")
    said = _Bounds(low=t_server - t_received - error, high=t_server - t_sent + error)
    known = self._bounds_at(t_received)
    self._bounds = (said.agreed(known) if known is not None else None) or said
    self._taken_at = t_received
    own = self._wall() - self._base()
    middle = (self._bounds.low + self._bounds.high) / 2
    self._offset = own if self._bounds.contain(own) else middle

  def now(self) -> float:
    """Database time in epoch seconds; before the first exchange, local time."""
    return self._base() + self._offset

  @property
  def synchronised(self) -> bool:
    """Whether any exchange was seen; how good it is says `error_ms`."""
    return self._bounds is not None

  @property
  def offset_ms(self) -> float:
    """Milliseconds by which this machine's wall clock is ahead of database time."""
    return (self._wall() - self.now()) * 1000

  @property
  def error_ms(self) -> float:
    """The bound of the error of `now()` in milliseconds; infinite when unknown."""
    bounds = self._bounds_at(self._base())
    if bounds is None:
      return math.inf
    return max(self._offset - bounds.low, bounds.high - self._offset) * 1000

  def _bounds_at(self, at: float) -> _Bounds | None:
    """Return what is known of the offset at base time `at`."""
    return self._bounds and self._bounds.widened(at - self._taken_at)


@frozen
class Anchor:
  """The moment a renewal was asked for, on both clocks that count for trust."""

  monotonic: float
  boot: float


@frozen(kw_only=True)
class _Term:
  """A granted time of trust: from its anchor on for `seconds`."""

  anchor: Anchor
  seconds: float


class Lease:
  """Time-bound trust: good while both the monotonic and the boot-time clock say so.

  A suspended machine stops the first, so the second is asked as well. The time counts
  from when the renewal was *asked for*, the latest moment at which the other side can
  have started to count.

  Args:
    margin: seconds by which we stop trusting earlier than granted.
    monotonic: seconds of the monotonic clock.
    boot: seconds of the boot-time clock.
  """

  def __init__(
    self,
    *,
    margin: float = MARGIN_SECONDS,
    monotonic: Callable[[], float] = time.monotonic,
    boot: Callable[[], float] = boot_time,
  ) -> None:
    self._margin = margin
    self._monotonic = monotonic
    self._boot = boot
    self._term: _Term | None = None

  def anchor(self) -> Anchor:
    """Take this immediately before a renewal is sent and give it to `renew`."""
    return Anchor(self._monotonic(), self._boot())

  def renew(self, seconds: float, anchored_at: Anchor) -> None:
    """Trust for `seconds` from `anchored_at`; an answer to an older request is ignored.

    The newest request wins even when it grants less than the one before.
    """
    if self._term is None or anchored_at.boot >= self._term.anchor.boot:
      self._term = _Term(anchor=anchored_at, seconds=seconds)

  def remaining(self) -> float:
    """Seconds of trust left, margin taken off; zero or less means none."""
    if self._term is None:
      return 0.0
    used = max(
      self._monotonic() - self._term.anchor.monotonic,
      self._boot() - self._term.anchor.boot,
    )
    return self._term.seconds - self._margin - used

  def until_ending(self) -> float:
    """Seconds until only the part of it is left in which things are brought to an end."""
    granted = self._term.seconds if self._term is not None else 0.0
    return self.remaining() - granted * ENDING_SHARE

  def held(self) -> bool:
    """Whether the lease may be acted upon at this moment."""
    return self.remaining() > 0
