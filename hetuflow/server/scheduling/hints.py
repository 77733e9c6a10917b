"""Who is to be woken by which notification.

A hint is a kind, or a kind and what it is about: ``schedules``, ``tasks:default``. It says
where to look, never what is there; whoever misses one finds it by looking again.
"""

from collections import defaultdict
from collections.abc import Callable

from hetuflow.nursery import Wakeup

__all__ = ["Hints"]

Listener = Callable[[str | None], None]


class Hints:
  """The listeners to notifications, by kind."""

  def __init__(self) -> None:
    self._listeners: defaultdict[str, list[Listener]] = defaultdict(list)

  def tell(self, listener: Listener, *kinds: str) -> None:
    """Hand a listener every hint of some kinds, whole.

    It also gets None, when hints may have been missed and anything may have happened.
    """
    for kind in kinds:
      self._listeners[kind].append(listener)

  def wake(self, wakeup: Wakeup, *kinds: str) -> None:
    """Set a wake-up at every hint of some kinds, and when hints may have been missed."""
    self.tell(lambda _: wakeup.set(), *kinds)

  def hear(self, hint: str | None) -> None:
    """Pass a hint on; None goes to everybody."""
    if hint is None:
      known = dict.fromkeys(one for some in self._listeners.values() for one in some)
    else:
      known = dict.fromkeys(self._listeners.get(hint.partition(":")[0], ()))
    for listener in known:
      listener(hint)
