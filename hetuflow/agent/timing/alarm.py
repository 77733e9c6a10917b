"""An alarm clock for one Trio task, with the full precision of the kernel's timers.

Who runs it: the task that entered it and waits; `set` may be called by any other. It owns
a timerfd, closed at the end of the block.
"""

import ctypes
import math
import os
import time

import trio

__all__ = ["Alarm"]


class _TimerSpec(ctypes.Structure):
  """`struct itimerspec` of timerfd_settime(2), as used for a single shot."""

  _fields_ = (
    ("interval_seconds", ctypes.c_long),
    ("interval_nanoseconds", ctypes.c_long),
    ("seconds", ctypes.c_long),
    ("nanoseconds", ctypes.c_long),
  )


class Alarm:
  """A timerfd: wakes one Trio task after a delay with the kernel's full precision.

  Python has these calls from 3.13 on; before, they are in the C library all the same.
  """

  def __init__(self) -> None:
    self._library = ctypes.CDLL(None, use_errno=True)
    flags = os.O_CLOEXEC | os.O_NONBLOCK  # TFD_CLOEXEC and TFD_NONBLOCK are these
    self._fd = self._library.timerfd_create(time.CLOCK_MONOTONIC, flags)
    if self._fd < 0:
      raise OSError(ctypes.get_errno(), "timerfd_create failed")

  def __enter__(self) -> "Alarm":
    return self

  def __exit__(self, *_: object) -> None:
    trio.lowlevel.notify_closing(self._fd)
    os.close(self._fd)

  def set(self, delay: float) -> None:
    """Ring once after `delay` seconds; replaces what was set before."""
    # Zero would disarm the timer instead of ringing at once.
    seconds, rest = divmod(max(1, math.ceil(delay * 1e9)), 1_000_000_000)
    spec = _TimerSpec(0, 0, seconds, rest)
    if self._library.timerfd_settime(self._fd, 0, ctypes.byref(spec), None):
      raise OSError(ctypes.get_errno(), "timerfd_settime failed")

  async def wait(self) -> None:
    """Return when it has rung."""
    await trio.lowlevel.wait_readable(self._fd)
    try:
      os.read(self._fd, 8)
    except BlockingIOError:  # set anew between ringing and reading
      return
