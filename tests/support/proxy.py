"""A TCP proxy between an agent and a server that misbehaves when it is told to.

Who runs it: a test starts ``run`` in a nursery of its own and turns the handles while
connections are open. Each connection has one task per direction. What has been read is
delivered, however late, though the one who sent it is gone: so does a network.
"""

import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

import trio

__all__ = ["Proxy", "Way"]

CHUNK_BYTES = 64 * 1024
RESET_AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER: close by a reset, whatever has not been sent."""


class Way(StrEnum):
  """A direction, seen from the client."""

  UP = "up"
  DOWN = "down"


class Proxy:
  """Forwards connections to a port or socket of this machine; ``port`` is its own.

  ``delay`` holds up each piece by so many seconds.
  """

  def __init__(self, target: int | Path) -> None:
    self.target = target
    self.port = 0
    self.delay = 0.0
    self._gates = {way: _open_gate() for way in Way}
    self._to_stall: dict[Way, int] = {}
    self._pairs: set[tuple[trio.SocketStream, trio.SocketStream]] = set()

  @property
  def gateway(self) -> str:
    """The address by which an agent reaches the server behind it."""
    return f"ws://127.0.0.1:{self.port}/ws"

  def __len__(self) -> int:
    return len(self._pairs)

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Forward until cancelled."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    self.port = listener.socket.getsockname()[1]
    task_status.started()
    await trio.serve_listeners(self._forward, [listener])

  def stall(self, ways: Iterable[Way] = Way, *, after: int = 0) -> None:
    """Let nothing more through in some directions, until ``heal``.

    Args:
      ways: the directions.
      after: pieces that still pass before.
    """
    for way in ways:
      if after:
        self._to_stall[way] = after
      elif self._gates[way].is_set():
        self._gates[way] = trio.Event()

  def is_stalled(self, way: Way) -> bool:
    """Tell whether nothing passes in a direction."""
    return not self._gates[way].is_set()

  def heal(self) -> None:
    """Let everything through again, first of all what was held up."""
    self.delay = 0.0
    self._to_stall.clear()
    for gate in self._gates.values():
      gate.set()

  def reset(self) -> None:
    """Break every connection off, in the middle of whatever it carries."""
    for pair in list(self._pairs):
      for stream in pair:
        with suppress(OSError):
          stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_ONCE)
      _close(pair)

  async def _forward(self, client: trio.SocketStream) -> None:
    """Serve one connection; where nobody listens it is closed at once."""
    try:
      upstream = await _connect(self.target)
    except OSError:
      _close([client])
      return
    pair = (client, upstream)
    self._pairs.add(pair)
    try:
      async with trio.open_nursery() as nursery:
        nursery.start_soon(self._pump, client, upstream, Way.UP)
        nursery.start_soon(self._pump, upstream, client, Way.DOWN)
    finally:
      self._pairs.discard(pair)
      _close(pair)

  async def _pump(
    self, source: trio.SocketStream, sink: trio.SocketStream, way: Way
  ) -> None:
    """Carry one direction to its end; if it breaks, so does the other."""
    try:
      while data := await source.receive_some(CHUNK_BYTES):
        await self._pass(way)
        await sink.send_all(data)
      await self._pass(way)
      await sink.send_eof()
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
      _close((source, sink))

  async def _pass(self, way: Way) -> None:
    """Wait until the next piece may go on."""
    await trio.sleep(self.delay)
    await self._gates[way].wait()
    if way in self._to_stall:
      self._to_stall[way] -= 1
      if not self._to_stall[way]:
        del self._to_stall[way]
        self.stall([way])


async def _connect(target: int | Path) -> trio.SocketStream:
  """Open a connection to whoever is behind the proxy."""
  if isinstance(target, Path):
    return await trio.open_unix_socket(target)
  return await trio.open_tcp_stream("127.0.0.1", target)


def _close(streams: Iterable[trio.SocketStream]) -> None:
  """Close connections at once; whoever waits for one of them finds it closed."""
  for stream in streams:
    stream.socket.close()


def _open_gate() -> trio.Event:
  """Make a gate that lets through."""
  gate = trio.Event()
  gate.set()
  return gate
