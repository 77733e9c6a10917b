"""What a process writes: read, bounded, delivered live; and the end of the process.

Who runs it: one instance's child calls `collect`, which owns the `Running` from then on
until it and its tree are gone. One Trio task waits for both streams and the end of the
process at once, on an epoll of its own, so a task that prints nothing costs one wake-up.
If the consumer is slow, its channel fills, reading stops and the pipe stops the process;
if the consumer is gone, output is read on and dropped. If `collect` is cancelled or
fails, the whole tree is killed before it raises.
"""

import math
import os
import select
from collections.abc import Callable
from contextlib import closing

import trio
from attrs import evolve, field, frozen

from hetuflow.agent.process.chunks import Chunker, Sink
from hetuflow.agent.process.running import Exit, Running
from hetuflow.agent.process.tree import has_leftovers, terminate_tree

__all__ = ["Collected", "collect"]

READ_BYTES = 64 * 1024
SILENCE_SECONDS = 0.25
DRAIN_SECONDS = 2.0
CLEANUP_SECONDS = 10.0


@frozen(kw_only=True)
class Collected:
  """How the process ended and what it wrote.

  Args:
    exit: how it ended.
    tail: the last 4 KiB of both streams in the order they were read.
    written: bytes written to each stream.
    missing: bytes that were not delivered: beyond the limit, or nobody took them.
    cut: something held a stream open when the process had ended, so that what it may
      have written afterwards is unknown.
    leftovers: whether the process left others behind, which were ended.
    gone: whether the whole tree is verified to be gone.
  """

  exit: Exit
  tail: bytes = b""
  written: dict[str, int] = field(factory=dict)
  missing: int = 0
  cut: bool = False
  leftovers: bool = False
  gone: bool = True


async def collect(
  running: Running,
  *,
  send: Sink | None = None,
  limit: int = 10 * 1024 * 1024,
  grace: float = 10.0,
  interrupted: Callable[[Collected], None] = lambda _: None,
) -> Collected:
  """Read a process to its end, end what it leaves behind, close its descriptors.

  The task ends when its main process ends. Then its streams are read on until they end,
  for a quarter of a second of silence or two seconds at most; whatever of its tree still
  lives is ended.

  Args:
    running: the process; owned and closed by this call.
    send: takes the chunks, at the latest 200 ms or 64 KiB after they were written; a
      full channel holds the process up. Not closed by this call.
    limit: the most bytes to deliver of both streams: the first half live, the last half
      at the end.
    grace: seconds that leftovers have between SIGTERM and SIGKILL.
    interrupted: told, if this is cancelled or fails, of a process that had ended by then.
  """
  output = Chunker(running, send, limit)
  try:
    with closing(_Reader(running, output)) as reader:
      return await reader.run(grace)
  except BaseException:
    if (ended := running.poll()) is not None:
      interrupted(_sum_up(output, ended))
    # Frees what ending a tree takes, should it be descriptors that we ran out of.
    running.close_streams()
    with trio.move_on_after(CLEANUP_SECONDS, shield=True):
      await terminate_tree(running, grace=0)
    raise
  finally:
    running.close()


class _Reader:
  """Waits for two streams and one process in one place."""

  def __init__(self, running: Running, output: Chunker) -> None:
    self._running = running
    self._output = output
    self._epoll = select.epoll(3)
    self._streams: dict[int, str] = {}
    # Once for each news: one that is traced has ended for a while before it can be reaped.
    self._epoll.register(running.pidfd, select.EPOLLIN | select.EPOLLET)
    for fd, name in ((running.stdout, "stdout"), (running.stderr, "stderr")):
      if fd is not None:
        self._streams[fd] = name
        self._epoll.register(fd, select.EPOLLIN)

  def close(self) -> None:
    """Close the epoll."""
    self._epoll.close()

  async def run(self, grace: float) -> Collected:
    """Do all that `collect` promises but the cleaning up."""
    while self._running.poll() is None:
      await self._wait(self._output.flush_at)
      await self._read_once()
    self._epoll.unregister(self._running.pidfd)
    await self._drain()
    cut = bool(self._streams)
    leftovers = cut or has_leftovers(self._running)
    gone = not leftovers or await self._end_leftovers(grace)
    if cut:
      await self._read_once()
    await self._output.finish()
    ended = self._running.poll()
    assert ended is not None  # noqa: S101 - the loop above ended by it
    done = _sum_up(self._output, ended)
    return evolve(done, cut=cut, leftovers=leftovers, gone=gone)

  async def _end_leftovers(self, grace: float) -> bool:
    """End what is left of the tree, and deliver meanwhile what was written."""
    async with trio.open_nursery() as nursery:
      nursery.start_soon(self._output.flush)
      return await terminate_tree(self._running, grace=grace)

  async def _wait(self, deadline: float) -> None:
    """Wait until a stream has something, the process has ended, or the deadline."""
    if deadline == math.inf:
      await trio.lowlevel.wait_readable(self._epoll.fileno())
      return
    with trio.move_on_at(deadline):
      await trio.lowlevel.wait_readable(self._epoll.fileno())

  async def _read_once(self) -> bool:
    """Read what is there, once from each stream; return whether that was anything."""
    anything = False
    for fd, _ in self._epoll.poll(0):
      if fd in self._streams:
        anything = True
        await self._read(fd)
    await self._output.flush_due()
    return anything

  async def _read(self, fd: int) -> None:
    """Read once from one stream; forget it at its end."""
    try:
      data = os.read(fd, READ_BYTES)
    except BlockingIOError:
      return
    if data:
      await self._output.add(self._streams[fd], data)
    else:
      self._epoll.unregister(fd)
      del self._streams[fd]

  async def _drain(self) -> None:
    """Read what an ended process has left in its pipes, within bounds."""
    end = trio.current_time() + DRAIN_SECONDS
    while self._streams and trio.current_time() < end:
      if await self._read_once():
        await trio.lowlevel.checkpoint()
      elif self._streams:
        quiet = trio.current_time() + SILENCE_SECONDS
        await self._wait(min(end, quiet))
        if not self._epoll.poll(0):
          return


def _sum_up(output: Chunker, ended: Exit) -> Collected:
  """Say how a process ended and what it wrote."""
  total = sum(output.written.values())
  return Collected(
    exit=ended,
    tail=output.tail,
    written=output.written,
    missing=total - output.delivered,
  )
