"""Namespaces onto servers, by weight: a pure function.

A server's fill is the size of what it has divided by its weight; all should be as full.
Namespaces that have no server that may have them go to whoever is least full, the largest
first. Only where there are none of these, some are moved from the fullest to the least
full server, each the one that comes nearest to making the two even, as long as the giver
stays the fuller one: every such move makes the fullest less full, so that they end.

All is counted in whole numbers and ordered by size, fill and id, so that the same question
has the same answer everywhere.
"""

import math
from collections.abc import Iterable, Mapping

import attrs

from hetuflow.protocol.model import NamespaceId, ServerId

__all__ = ["Place", "Portion", "assign"]

UNIT = 100
"""What one unit of a namespace's weight counts; a weight of 0 counts 1."""
CAPACITY, STRAINED_CAPACITY = 4, 3
"""What a unit of a server's weight counts, and that of a server under strain: it gives a
quarter away."""
SLACK_PERCENT = 2
"""By how much fuller the giver must be than the taker becomes: less is not worth a move."""


@attrs.frozen(kw_only=True)
class Place:
  """A server that is alive.

  Args:
    id: of the server.
    weight: its share; 0 takes none, unless no server has more.
    strained: whether it has been near its limit for long.
  """

  id: ServerId
  weight: int
  strained: bool = False


@attrs.frozen(kw_only=True)
class Portion:
  """A namespace to be planned for.

  Args:
    id: of the namespace.
    weight: its size.
    wish: the server that is to have it as long as that is alive.
  """

  id: NamespaceId
  weight: int
  wish: ServerId | None = None

  @property
  def size(self) -> int:
    """What it counts."""
    return self.weight * UNIT or 1


@attrs.define(kw_only=True)
class _Bin:
  """A server: the size of what it has, and of that, by size, what may move on."""

  id: ServerId
  capacity: int
  size: int = 0
  movable: dict[int, list[NamespaceId]] = attrs.field(factory=dict)

  def keep(self, portion: Portion) -> None:
    """Let it have what it had; what was wished here is not to move."""
    self.size += portion.size
    if portion.wish != self.id:
      self.movable.setdefault(portion.size, []).append(portion.id)

  def take(self, size: int) -> NamespaceId:
    """Take one of a size away from it."""
    self.size -= size
    names = self.movable[size]
    name = names.pop()
    if not names:
      del self.movable[size]
    return name

  def fill(self, more: int = 0) -> tuple[float, str]:
    """Say how full it is, or would be with more; its id decides between equals."""
    size = self.size + more
    if self.capacity:
      return size / self.capacity, str(self.id)
    return (math.inf if size else 0.0), str(self.id)


def assign(
  servers: Iterable[Place],
  namespaces: Iterable[Portion],
  current: Mapping[NamespaceId, ServerId],
  max_moves: int,
) -> dict[NamespaceId, ServerId]:
  """Decide which namespaces move where.

  Args:
    servers: those that are alive.
    namespaces: all.
    current: which server has which namespace; it may be one that is gone.
    max_moves: how many may move though they could stay. Those that have no server that is
      alive, or are not where they are wished, move all at once, and then only they.

  Returns:
    The server of each namespace that moves; nothing where nobody is alive.
  """
  bins = _make_bins(servers)
  if not bins:
    return {}
  homeless = []
  moves: dict[NamespaceId, ServerId] = {}
  for portion in sorted(namespaces, key=lambda each: (-each.size, each.id)):
    home = bins.get(current[portion.id]) if portion.id in current else None
    wished = None if portion.wish is None else bins.get(portion.wish)
    if wished is not None and wished is not home:
      moves[portion.id] = wished.id
      home = wished
    if home is None:
      homeless.append(portion)
    else:
      home.keep(portion)
  takers = [each for each in bins.values() if each.capacity]
  for portion in homeless:
    taker = min(takers, key=lambda each: each.fill(portion.size))
    taker.size += portion.size
    moves[portion.id] = taker.id
  return moves or _even_out(bins, max_moves)


def _make_bins(servers: Iterable[Place]) -> dict[ServerId, _Bin]:
  """Make an empty bin of each server, in order of their ids."""
  places = sorted(servers, key=lambda each: each.id)
  nobody_wants = not any(place.weight for place in places)
  return {
    place.id: _Bin(
      id=place.id,
      capacity=(1 if nobody_wants else place.weight)
      * (STRAINED_CAPACITY if place.strained else CAPACITY),
    )
    for place in places
  }


def _even_out(
  bins: Mapping[ServerId, _Bin], max_moves: int
) -> dict[NamespaceId, ServerId]:
  """Move from the fullest to the least full, a few at most."""
  moves: dict[NamespaceId, ServerId] = {}
  while len(moves) < max_moves:
    move = _find_move(bins.values())
    if move is None:
      break
    giver, taker, size = move
    moves[giver.take(size)] = taker.id
    taker.size += size
  return moves


def _find_move(bins: Iterable[_Bin]) -> tuple[_Bin, _Bin, int] | None:
  """Find the fullest server that can give something away, to whom, and of what size."""
  ordered = sorted(bins, key=_Bin.fill, reverse=True)
  for giver in ordered:
    takers = [each for each in ordered if each.capacity and each is not giver]
    if not (takers and giver.movable):
      continue
    least = min(giver.movable)
    # Not who is least full now: a small server may be fuller than others with one more.
    taker = min(takers, key=lambda each: each.fill(least))
    size = min(giver.movable, key=lambda each: _misfit(giver, taker, each))
    if taker.fill(size)[0] * (100 + SLACK_PERCENT) < giver.fill()[0] * 100:
      return giver, taker, size
  return None


def _misfit(giver: _Bin, taker: _Bin, size: int) -> tuple[bool, int]:
  """Rank what could be given: the largest that does not turn the scales comes first."""
  given = (giver.size - size) * taker.capacity
  taken = (taker.size + size) * giver.capacity
  return taken > given, size if taken > given else -size
