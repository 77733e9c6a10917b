"""How much was said on a connection, or on many."""

from collections import Counter

import attrs

__all__ = ["Traffic"]


@attrs.define(kw_only=True)
class Traffic:
  """Frames and bytes in both directions, and messages by kind."""

  frames_received: int = 0
  frames_sent: int = 0
  bytes_received: int = 0
  bytes_sent: int = 0
  received: Counter[str] = attrs.field(factory=Counter)
  sent: Counter[str] = attrs.field(factory=Counter)

  def note_received(self, size: int) -> None:
    """Count a frame of so many bytes that came."""
    self.frames_received += 1
    self.bytes_received += size

  def note_sent(self, size: int) -> None:
    """Count a frame of so many bytes that went."""
    self.frames_sent += 1
    self.bytes_sent += size

  def add(self, other: "Traffic") -> None:
    """Take what another has counted in."""
    self.frames_received += other.frames_received
    self.frames_sent += other.frames_sent
    self.bytes_received += other.bytes_received
    self.bytes_sent += other.bytes_sent
    self.received += other.received
    self.sent += other.sent
