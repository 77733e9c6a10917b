"""How long something that was heard may be believed, on two clocks.

Trio's clock stops while the machine sleeps, boot time does not; both go on while the
process is frozen. What either says is over is over. Trust begins when the question was
asked, not when its answer came: the answer was true at some time in between.
"""

import math
import time

import attrs
import trio

__all__ = ["Moment", "Trust"]


def _boot_time() -> float:
  """Seconds since boot, those asleep included; never steps."""
  return time.clock_gettime(time.CLOCK_BOOTTIME)


@attrs.frozen(kw_only=True)
class Moment:
  """One moment, in seconds of both clocks."""

  trio: float = attrs.field(factory=trio.current_time)
  boot: float = attrs.field(factory=_boot_time)


class Trust:
  """Until when something may be believed; at first not at all."""

  def __init__(self) -> None:
    self._until = Moment(trio=-math.inf, boot=-math.inf)

  def extend(self, since: Moment, seconds: float) -> None:
    """Believe it for so many seconds from the moment at which it was asked for."""
    self._until = Moment(trio=since.trio + seconds, boot=since.boot + seconds)

  def end(self) -> None:
    """Believe it no longer."""
    self._until = Moment(trio=-math.inf, boot=-math.inf)

  @property
  def deadline(self) -> float:
    """When it ends on Trio's clock, for a cancel scope."""
    return self._until.trio

  @property
  def left(self) -> float:
    """The seconds that are left by the clock that says less; not above 0 at the end."""
    now = Moment()
    return min(self._until.trio - now.trio, self._until.boot - now.boot)

  @property
  def holds(self) -> bool:
    """Whether it may still be believed."""
    return self.left > 0
