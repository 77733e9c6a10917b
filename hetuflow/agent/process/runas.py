"""The agent's side of the helper program: one packet for each process to start.

Who runs it: `open_helper` is entered by the agent's tree; `launch` is called by the
instances' children, any number at once. It owns the helper's socket and process. If the
helper dies, the launches under way fail with `LaunchError` and the next one starts
another; if the agent dies, the helper ends with its socket.
"""

import errno
import json
import math
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import trio
from attrs import asdict

from hetuflow.agent.process import registry
from hetuflow.agent.process.spawn import open_memory, spawn
from hetuflow.agent.process.spec import LaunchSpec

__all__ = ["Helper", "HelperFailure", "open_helper"]

PROGRAM = str(Path(__file__).with_name("helper.py"))
ANSWER_SECONDS = 15.0
GOODBYE_SECONDS = 2.0
STATUS_BYTES = 4096
# The last: another launch has noticed and closed the socket in the meantime.
HELPER_GONE = (errno.EPIPE, errno.ECONNRESET, errno.EBADF)


class HelperFailure(Exception):
  """The process did not come to execute its program.

  Args:
    stage: what failed: `user`, `limit`, `identity`, `cwd`, `program`, `clone`, `helper`.
    number: the errno that says why.
  """

  def __init__(self, stage: str, number: int) -> None:
    super().__init__(stage, number)
    self.stage = stage
    self.errno = number


class Helper:
  """Starts processes as another user or with limits, as children of ours."""

  def __init__(self) -> None:
    self._socket: trio.socket.SocketType | None = None
    self._pid = 0
    self._turn = trio.Lock()

  async def launch(
    self, spec: LaunchSpec, programs: list[str], streams: tuple[int, int, int]
  ) -> int:
    """Start `spec`; return the pid when its program executes.

    Args:
      spec: what to start.
      programs: paths to try in order.
      streams: descriptors for the standard streams.

    Raises:
      HelperFailure: it could not be started; nothing is left of it.
    """
    connection = self._connect()
    try:
      return await self._launch_once(connection, spec, programs, streams)
    except HelperFailure as failure:
      if (failure.stage, failure.errno) != ("helper", errno.EPIPE):
        raise
    # The helper died before it made the child, which says its pid before anything else.
    if self._socket is connection:
      await self.aclose()
    return await self._launch_once(self._connect(), spec, programs, streams)

  async def _launch_once(
    self,
    connection: "trio.socket.SocketType",
    spec: LaunchSpec,
    programs: list[str],
    streams: tuple[int, int, int],
  ) -> int:
    """Ask once; return the pid when the program executes."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
      try:
        # Only one may wait until a socket takes more.
        async with self._turn:
          await _request(connection, _pack(spec, programs), streams, writer)
      finally:
        os.close(writer)
      return await _answer(reader)
    finally:
      os.close(reader)

  def _connect(self) -> "trio.socket.SocketType":
    """Return the helper's socket; start a helper if there is none."""
    if self._socket is None:
      self._socket = self._open()
    return self._socket

  def _open(self) -> "trio.socket.SocketType":
    """Start the helper program; return our end of its socket."""
    with ExitStack() as ours, ExitStack() as theirs:
      near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
      ours.callback(near.close)
      theirs.callback(far.close)
      null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
      theirs.callback(os.close, null)
      argv = (sys.executable, "-I", "-S", PROGRAM)
      streams = (far.fileno(), null, null)
      self._pid = spawn(sys.executable, argv, {}, cwd="/", streams=streams)
      registry.known.add(self._pid)
      connection = trio.socket.from_stdlib_socket(near)
      ours.pop_all()
      return connection

  async def aclose(self) -> None:
    """End the helper; what it has started goes on."""
    if self._socket is None:
      return
    self._socket.close()
    self._socket = None
    await _reap(self._pid, patience=GOODBYE_SECONDS)


@asynccontextmanager
async def open_helper() -> AsyncIterator[Helper]:
  """Offer a helper for the block; its program starts with the first launch."""
  helper = Helper()
  try:
    yield helper
  finally:
    await helper.aclose()


def _pack(spec: LaunchSpec, programs: list[str]) -> int:
  """Write the request into a file in memory; return its descriptor."""
  request = {
    "programs": programs,
    "argv": spec.argv,
    "environment": dict(spec.environment),
    "cwd": spec.cwd,
    "user": spec.user,
    "limits": asdict(spec.limits),
  }
  return open_memory(json.dumps(request).encode())


async def _request(
  connection: "trio.socket.SocketType",
  request: int,
  streams: tuple[int, int, int],
  status: int,
) -> None:
  """Send one packet with descriptors, and close that of the request."""
  fds = [request, *streams, status]
  packed = b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds)
  try:
    await connection.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)])
  except trio.ClosedResourceError as error:
    raise HelperFailure("helper", errno.EPIPE) from error
  except OSError as error:
    if error.errno not in HELPER_GONE:
      raise
    raise HelperFailure("helper", errno.EPIPE) from error
  finally:
    os.close(request)


async def _answer(reader: int) -> int:
  """Read the status pipe to its end; return the pid, or reap it and say what failed."""
  said = b""
  # Once asked for, a process must not be forgotten: cancellation has to wait.
  with trio.move_on_after(ANSWER_SECONDS, shield=True) as patience:
    while part := await _read(reader):
      said += part
  pid, _, failure = said.decode("ascii").partition(" ")
  if patience.cancelled_caught:
    failure = f"helper {errno.ETIMEDOUT}"
  elif not said:
    failure = f"helper {errno.EPIPE}"
  if not failure:
    return int(pid)
  if int(pid or 0):
    registry.known.add(int(pid))
    await _reap(int(pid), patience=0 if patience.cancelled_caught else math.inf)
  stage, _, number = failure.partition(" ")
  raise HelperFailure(stage, int(number))


async def _read(fd: int) -> bytes:
  """Read what is there, waiting for it; empty at the end."""
  while True:
    try:
      return os.read(fd, STATUS_BYTES)
    except BlockingIOError:
      await trio.lowlevel.wait_readable(fd)


async def _reap(pid: int, *, patience: float) -> None:
  """Wait for a child of ours to end, at most `patience` seconds, then kill it."""
  try:
    pidfd = os.pidfd_open(pid)
  except OSError:  # no descriptor left to wait with, and it is of no use any more
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)  # noqa: ASYNC222 - SIGKILL does not take long
    registry.known.discard(pid)
    return
  try:
    with trio.CancelScope(shield=True):
      with trio.move_on_after(patience):
        await trio.lowlevel.wait_readable(pidfd)
        return
      signal.pidfd_send_signal(pidfd, signal.SIGKILL)
      with trio.move_on_after(GOODBYE_SECONDS):
        await trio.lowlevel.wait_readable(pidfd)
  finally:
    os.close(pidfd)
    os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 - WNOHANG does not wait
    registry.known.discard(pid)
