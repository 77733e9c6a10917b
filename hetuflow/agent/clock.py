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
from collections import deque
from collections.abc import Callable

from attrs import frozen

__all__ = ["Anchor", "DisciplinedClock", "Lease", "boot_time"]

DRIFT_PER_SECOND = 50e-6  # a cheap crystal; NTP assumes 15e-6 for a disciplined one
SAMPLES = 8
MARGIN_SECONDS = 1.0


def boot_time() -> float:
  """Seconds since boot, suspended time included; never steps."""
  return time.clock_gettime(time.CLOCK_BOOTTIME)


@frozen(kw_only=True)
class _Sample:
  """One exchange: base + offset is database time, wrong by at most half the trip."""

  offset: float
  half_trip: float
  taken_at: float

  def error(self, at: float) -> float:
    """Return the bound of the error in seconds at base time `at`, drift included."""
    return self.half_trip + DRIFT_PER_SECOND * max(0.0, at - self.taken_at)


class DisciplinedClock:
  """Database time, estimated from exchanges and carried on by boot time between them.

  Of the last eight exchanges the one with the smallest error bound counts: half its
  round trip plus the drift since (the minimum filter of NTP, RFC 5905 section 10). An
  exchange that contradicts it, the bounds disjoint, means that database time itself was
  stepped: the older ones are dropped at once.

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
    self._samples: deque[_Sample] = deque(maxlen=SAMPLES)
    self._offset = wall() - base()

  def local(self) -> float:
    """Read the base in seconds: before a request and after its response."""
    return self._base()

  def observe(self, *, t_sent: float, t_server: float, t_received: float) -> None:
    """Take in one exchange.

    Args:
      t_sent: `local()` immediately before the request left.
      t_server: database time in epoch seconds, read between the two others.
      t_received: `local()` as soon as the response was there.

    Raises:
      ValueError: `t_received` lies before `t_sent`.
    """
    if t_received < t_sent:
      raise ValueError("an exchange cannot be received before it was sent")
    sample = _Sample(
      offset=t_server - (t_sent + t_received) / 2,
      half_trip=(t_received - t_sent) / 2,
      taken_at=t_received,
    )
    if (best := self._best(t_received)) and _disjoint(best, sample, t_received):
      self._samples.clear()
    self._samples.append(sample)
    self._offset = min(self._samples, key=lambda each: each.error(t_received)).offset

  def now(self) -> float:
    """Database time in epoch seconds; before the first exchange, local time."""
    return self._base() + self._offset

  def local_at(self, epoch_seconds: float) -> float:
    """Return the reading of `local()` at which database time is `epoch_seconds`."""
    return epoch_seconds - self._offset

  @property
  def synchronised(self) -> bool:
    """Whether any exchange was seen; how good it is says `error_ms`."""
    return bool(self._samples)

  @property
  def offset_ms(self) -> float:
    """Milliseconds by which this machine's wall clock is ahead of database time."""
    return (self._wall() - self.now()) * 1000

  @property
  def error_ms(self) -> float:
    """The bound of the error of `now()` in milliseconds; infinite when unknown."""
    at = self._base()
    best = self._best(at)
    return math.inf if best is None else best.error(at) * 1000

  def _best(self, at: float) -> _Sample | None:
    """Return the sample with the smallest error bound at base time `at`."""
    return min(self._samples, key=lambda each: each.error(at), default=None)


def _disjoint(one: _Sample, other: _Sample, at: float) -> bool:
  """Whether no database time satisfies both samples."""
  return abs(one.offset - other.offset) > one.error(at) + other.error(at)


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

  def revoke(self) -> None:
    """End the trust now: the other side said so."""
    self._term = None

  def remaining(self) -> float:
    """Seconds of trust left, margin taken off; zero or less means none."""
    if self._term is None:
      return 0.0
    used = max(
      self._monotonic() - self._term.anchor.monotonic,
      self._boot() - self._term.anchor.boot,
    )
    return self._term.seconds - self._margin - used

  def held(self) -> bool:
    """Whether the lease may be acted upon at this moment."""
    return self.remaining() > 0
