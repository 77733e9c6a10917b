"""What a process writes, cut into pieces: bounded, the first half live, the last at the end.

Who runs it: whoever reads the process. It owns the bytes that nobody has taken yet: some
128 KiB of each stream, and half the limit of what is kept for the end. Where there is
no room for a piece it waits, but sees to it that the end of the process is noted.
"""

import math
from typing import Protocol

import trio
from attrs import frozen

from hetuflow.agent.process.running import Running

__all__ = ["FLUSH_BYTES", "Chunk", "Chunker", "Sink"]

FLUSH_BYTES = 64 * 1024
FLUSH_SECONDS = 0.2
TAIL_BYTES = 4096


@frozen
class Chunk:
  """A piece of one stream, byte exact.

  Args:
    stream: `stdout` or `stderr`.
    offset: how many bytes the stream had before it, those left out included.
    data: the bytes.
  """

  stream: str
  offset: int
  data: bytes


class Sink(Protocol):
  """What takes chunks: a memory channel, or anything that says in time that it is full."""

  def send_nowait(self, value: Chunk, /) -> None:
    """Take a chunk, or raise `trio.WouldBlock` or `trio.BrokenResourceError`."""

  async def send(self, value: Chunk, /) -> None:
    """Take a chunk when there is room, or raise `trio.BrokenResourceError`."""


class Chunker:
  """Collects bytes into chunks: a head delivered live, a tail kept for the end.

  ``tail`` is the last of both streams, ``written`` the bytes of each, ``delivered`` how
  many were taken; ``flush_at`` is when to flush at the latest, in trio time.

  Args:
    running: the process that writes.
    send: takes the chunks, if anybody does.
    limit: the most bytes to deliver of both streams, half of them at the end.
  """

  def __init__(self, running: Running, send: Sink | None, limit: int) -> None:
    self._running = running
    self._send = send
    self._head_left = limit - limit // 2
    self._late_size = limit // 2
    self._late: dict[str, bytearray] = {}
    self._pending: dict[str, bytearray] = {}
    self.tail = b""
    self.written: dict[str, int] = {}
    self._flushed: dict[str, int] = {}
    self.delivered = 0
    self.flush_at = math.inf

  async def add(self, stream: str, data: bytes) -> None:
    """Take in what was read."""
    self.tail = (self.tail + data[-TAIL_BYTES:])[-TAIL_BYTES:]
    self.written[stream] = self.written.get(stream, 0) + len(data)
    if self._send is None:
      return
    head = data[: self._head_left]
    self._head_left -= len(head)
    if head:
      await self._add_head(stream, head)
    if len(head) < len(data):
      self._keep(stream, data[len(head) :])

  async def flush_due(self) -> None:
    """Deliver what has waited long enough."""
    if trio.current_time() >= self.flush_at:
      await self.flush()

  async def flush(self) -> None:
    """Deliver what is pending of both streams."""
    self.flush_at = math.inf
    pending, self._pending = self._pending, {}
    for stream, data in pending.items():
      start = self._flushed.get(stream, 0)
      self._flushed[stream] = start + len(data)
      await self._deliver(stream, start, data)

  async def finish(self) -> None:
    """Deliver all that is left: the rest of the head, then the tail."""
    await self.flush()
    late, self._late = self._late, {}
    for stream, data in late.items():
      await self._deliver(stream, self.written[stream] - len(data), data)

  async def _add_head(self, stream: str, data: bytes) -> None:
    """Let bytes wait for more, but not for long."""
    pending = self._pending.setdefault(stream, bytearray())
    pending += data
    if self.flush_at == math.inf:
      self.flush_at = trio.current_time() + FLUSH_SECONDS
    if len(pending) >= FLUSH_BYTES or not self._head_left:
      await self.flush()

  def _keep(self, stream: str, data: bytes) -> None:
    """Keep bytes for the end; of what no longer fits the oldest of the longer falls off."""
    self._late.setdefault(stream, bytearray()).extend(data)
    while (excess := sum(map(len, self._late.values())) - self._late_size) > 0:
      longest = max(self._late.values(), key=len)
      del longest[:excess]

  async def _deliver(self, stream: str, start: int, data: bytearray) -> None:
    """Hand over bytes that begin at offset `start`, in chunks."""
    for at in range(0, len(data), FLUSH_BYTES):
      chunk = Chunk(stream, start + at, bytes(data[at : at + FLUSH_BYTES]))
      if self._send is not None and await self._hand_over(self._send, chunk):
        self.delivered += len(chunk.data)
      else:
        self._send = None

  async def _hand_over(self, send: Sink, chunk: Chunk) -> bool:
    """Send one chunk, waiting for room; False if nobody is there to take it."""
    try:
      send.send_nowait(chunk)
    except trio.BrokenResourceError:
      return False
    except trio.WouldBlock:
      return await self._wait_for_room(send, chunk)
    return True

  async def _wait_for_room(self, send: Sink, chunk: Chunk) -> bool:
    """Send when there is room; the end of the process is noted while we wait."""
    taken = True
    async with trio.open_nursery() as nursery:
      nursery.start_soon(self._running.wait)
      try:
        await send.send(chunk)
      except trio.BrokenResourceError:
        taken = False
      nursery.cancel_scope.cancel()
    return taken
