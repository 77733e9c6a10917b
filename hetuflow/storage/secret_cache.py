"""A small cache in front of the look-ups of secrets.

Plain state of the one Trio thread; what it tells may be ``CACHE_TTL`` old.
"""

from collections import OrderedDict
from typing import Generic, TypeVar
from uuid import UUID

import trio

__all__ = ["CACHE_SIZE", "CACHE_TTL", "SecretCache"]

T = TypeVar("T")

CACHE_TTL = 10.0
"""Seconds for which a look-up is believed."""
CACHE_SIZE = 10_000
"""Look-ups kept of each kind; the oldest goes first."""


class SecretCache(Generic[T]):
  """What was found lately, by hash."""

  def __init__(self) -> None:
    self._entries: OrderedDict[bytes, tuple[float, UUID, T]] = OrderedDict()
    self.drops = 0
    """How many were revoked; what was looked up before the last one is not believed."""

  def get(self, hash: bytes) -> T | None:
    """Return what was found less than ``CACHE_TTL`` ago."""
    entry = self._entries.get(hash)
    if entry is None or trio.current_time() >= entry[0]:
      return None
    return entry[2]

  def put(self, hash: bytes, id: UUID, value: T, *, drops: int) -> None:
    """Keep what was found, at the cost of the oldest.

    Args:
      hash: of the secret.
      id: by which it is revoked.
      value: what was found.
      drops: what ``drops`` was before the look-up: the answer may be older than a
        revocation that came meanwhile.
    """
    if drops != self.drops:
      return
    self._entries.pop(hash, None)
    self._entries[hash] = (trio.current_time() + CACHE_TTL, id, value)
    if len(self._entries) > CACHE_SIZE:
      self._entries.popitem(last=False)

  def drop(self, id: UUID) -> None:
    """Forget one that was revoked."""
    self.drops += 1
    for hash in [key for key, entry in self._entries.items() if entry[1] == id]:
      del self._entries[hash]
