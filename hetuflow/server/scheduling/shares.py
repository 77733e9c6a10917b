"""Who is served next, and with how much: namespaces share agents by weight.

Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): each namespace has a tag,
which is moved on by what it got over its weight; the lowest is served first. One that had
nothing to ask for saves nothing up: its tag begins at that of whoever was served last.
Pure: nothing is read and nobody is awaited here; the poller owns it.
"""

from collections.abc import Iterable, Mapping
from math import floor

from hetuflow.protocol.model import NamespaceId

__all__ = ["Shares"]

ROUNDING = 1e-6
LEAST_WEIGHT = 0.01
"""What weight 0 counts as: it is served last, and never not at all."""


class Shares:
  """The tags of the namespaces that agents are shared by."""

  def __init__(self) -> None:
    self._weights: Mapping[NamespaceId, int] = {}
    self._tags: dict[NamespaceId, float] = {}
    self._served = 0.0
    self._waiting: set[NamespaceId] = set()

  def weigh(self, weights: Mapping[NamespaceId, int]) -> None:
    """Take the weights of now, and forget namespaces that have none."""
    self._weights = weights
    self._tags = {name: tag for name, tag in self._tags.items() if name in weights}
    self._waiting &= weights.keys()

  def order(self, names: Iterable[NamespaceId]) -> list[NamespaceId]:
    """Put namespaces in the order in which they are to be served."""
    return sorted(names, key=lambda name: (self._tag(name), name))

  def portion(
    self, name: NamespaceId, places: int, rivals: Iterable[NamespaceId]
  ) -> int:
    """Return how many of some free places a namespace may take in this round.

    All of them, unless rivals for the same places are known to wait: then what brings it to the tag that
    all who wait reach together. That may be none, but not for the one served first.
    """
    waiting = {name, *self._waiting.intersection(rivals)}
    if len(waiting) == 1:
      return places
    tags = sorted((self._tag(each), self._weight(each)) for each in waiting)
    weight = spent = 0.0
    level = tags[0][0]
    for tag, own in tags:
      if weight and (places + spent) / weight <= tag:
        break
      weight += own
      spent += tag * own
      level = (places + spent) / weight
    part = (level - self._tag(name)) * self._weight(name)
    least = 1 if self._tag(name) <= tags[0][0] else 0
    return min(places, max(least, floor(part + ROUNDING)))

  def charge(self, name: NamespaceId, count: int) -> None:
    """Note how many places a namespace took."""
    if count:
      self._served = start = self._tag(name)
      self._tags[name] = start + count / self._weight(name)

  def waits(self, name: NamespaceId, waiting: bool) -> None:
    """Note whether a namespace took all that it was offered, and may have more to do."""
    (self._waiting.add if waiting else self._waiting.discard)(name)

  def _tag(self, name: NamespaceId) -> float:
    """Return where the next service of a namespace starts."""
    tag = self._tags.get(name, 0.0)
    return tag if name in self._waiting else max(tag, self._served)

  def _weight(self, name: NamespaceId) -> float:
    """Return what a namespace counts for."""
    return max(self._weights.get(name, 1), LEAST_WEIGHT)
