"""How busy this server is."""

import math
import time
from collections.abc import Callable

__all__ = ["LoadMeter"]

SPAN = 30.0
"""Seconds over which the load is averaged, the older ones counting ever less."""


class LoadMeter:
  """The share of one core that the process has used of late; it can use no more.

  Args:
    cpu: seconds of CPU that the process has used.
    clock: steady seconds.
  """

  def __init__(
    self,
    cpu: Callable[[], float] = time.process_time,
    clock: Callable[[], float] = time.monotonic,
  ) -> None:
    self._cpu, self._clock = cpu, clock
    self._used, self._at = cpu(), clock()
    self._load = 0.0

  def read(self) -> float:
    """Return the load, from 0 to 1, averaged up to now."""
    used, at = self._cpu(), self._clock()
    elapsed = at - self._at
    if elapsed > 0:
      share = min(1.0, max(0.0, (used - self._used) / elapsed))
      self._load += (share - self._load) * (1 - math.exp(-elapsed / SPAN))
      self._used, self._at = used, at
    return self._load
