"""Starting a process: which way, and what to say when it fails.

Measured on a 2-core machine that others used as well, `/bin/true` with both streams
captured, eight at once, as a multiple of the bare `os.posix_spawn` + pipe + `wait4` rate
of two threads: `posix_spawn` by ctypes in Trio's worker threads 1.9, in two threads of our
own 1.6, in the Trio thread 0.9, `os.posix_spawn` in worker threads 0.4, `trio.run_process`
1.5. A start waits until the child has executed; Python's own binding keeps the interpreter
lock meanwhile, ctypes gives it away, so that starts overlap and the Trio thread goes on,
also when a program lies on a hung network mount.

Working directory: an action of `posix_spawn`, free; `sh -c 'cd "$1"…'` costs a second
exec, 0.5 ms, and hides errors. User and limits: a small helper program forks our child
(`process/helper.py`), 1 ms. Rejected: `Popen(user=)`, which forks the whole agent while
the interpreter lock is held; `setpriv` and `prlimit`, which are not everywhere and turn
errors into output of the task; setting limits from outside, which comes too late.
"""

import errno
import os
import resource
import time
from collections.abc import Callable
from functools import partial

import trio
from attrs import frozen

from hetuflow.agent.process import registry
from hetuflow.agent.process.runas import Helper, HelperFailure, open_helper
from hetuflow.agent.process.running import Running
from hetuflow.agent.process.spawn import open_memory, spawn
from hetuflow.agent.process.spec import LaunchSpec
from hetuflow.errors import LaunchError

__all__ = ["start_process"]

THREADS = 8
NO_ROOM = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)

_threads = trio.CapacityLimiter(THREADS)


async def start_process(
  spec: LaunchSpec,
  *,
  helper: Helper | None = None,
  wall: Callable[[], float] = time.time,
) -> Running:
  """Start a process in a session of its own; its program executes when this returns.

  Cancellation never loses a process: either this raises and there is none, or it returns.

  Args:
    spec: what to start.
    helper: the shared helper for users and limits; without it one is started for just
      this process, which takes some 20 ms.
    wall: epoch seconds for `started_at` and `ended_at`; called in a thread, too.

  Raises:
    LaunchError: it could not be started, and why. No process and no descriptor is left.
  """
  _check(spec)
  registry.become_subreaper()
  streams = _Streams.open(spec)
  try:
    if spec.needs_helper:
      floor = 0
      pid = await _start_by_helper(spec, helper, streams.theirs)
      started_at = wall()
    else:
      floor = _own_peak_bytes()
      start = partial(_start_directly, spec, streams.theirs, wall)
      pid, started_at = await trio.to_thread.run_sync(start, limiter=_threads)
    return Running(
      pid=pid,
      instance_id=spec.instance_id,
      stdout=streams.stdout,
      stderr=streams.stderr,
      memory_floor_bytes=floor,
      started_at=started_at,
      wall=wall,
    )
  except OSError as error:
    streams.close_ours()
    raise LaunchError(f"cannot start {spec.argv[0]!r}: {_words(error)}") from error
  except UnicodeEncodeError as error:  # such as one that the machine's locale lacks
    streams.close_ours()
    raise LaunchError(
      f"cannot start {spec.argv[0]!r}: a character in its words cannot be passed on"
    ) from error
  except BaseException:
    streams.close_ours()
    raise
  finally:
    streams.close_theirs()


@frozen
class _Streams:
  """The descriptors of one process: its three and our two."""

  theirs: tuple[int, int, int]
  stdout: int | None
  stderr: int | None

  @classmethod
  def open(cls, spec: LaunchSpec) -> "_Streams":
    """Open them all, or raise `LaunchError` with none left open."""
    opened: list[int] = []
    try:
      opened.append(_stdin(spec.stdin))
      if not spec.capture:
        opened.append(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
        opened.append(os.dup(opened[1]))
        return cls((opened[0], opened[1], opened[2]), None, None)
      for _ in ("stdout", "stderr"):
        opened.extend(os.pipe2(os.O_CLOEXEC))
      _, out, out_end, err, err_end = opened
      os.set_blocking(out, False)
      os.set_blocking(err, False)
      return cls((opened[0], out_end, err_end), out, err)
    except OSError as error:
      for fd in opened:
        os.close(fd)
      raise LaunchError(f"cannot start {spec.argv[0]!r}: {_words(error)}") from error

  def close_theirs(self) -> None:
    """Close what belongs to the child."""
    for fd in self.theirs:
      os.close(fd)

  def close_ours(self) -> None:
    """Close the ends that we would have read."""
    for fd in (self.stdout, self.stderr):
      if fd is not None:
        os.close(fd)


def _stdin(content: bytes | None) -> int:
  """Open standard input: a file in memory needs nobody to feed it, however long."""
  if content is None:
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
  return open_memory(content)


def _check(spec: LaunchSpec) -> None:
  """Refuse what the operating system has no way to express."""
  if not spec.argv or not spec.argv[0]:
    raise LaunchError("there is no command to start")
  texts = [*spec.argv, *spec.environment, *spec.environment.values(), spec.cwd or ""]
  if any("\0" in text for text in texts):
    raise LaunchError(f"cannot start {spec.argv[0]!r}: a NUL character is in its words")
  for name in spec.environment:
    if not name or "=" in name:
      raise LaunchError(f"{name!r} cannot be the name of an environment variable")


def _start_directly(
  spec: LaunchSpec, streams: tuple[int, int, int], wall: Callable[[], float]
) -> tuple[int, float]:
  """Start by `posix_spawn`, in a thread; return the pid and when its program executed."""
  spec = spec.settled()
  program = _find(spec) or _candidates(spec)[0]
  try:
    pid = spawn(program, spec.argv, spec.environment, cwd=spec.cwd, streams=streams)
    # Until here it is a child of this very thread, which nobody takes for a stranger.
    registry.known.add(pid)
    return pid, wall()
  except OSError as error:
    # The child tells one error for both: whether it was chdir can be seen from here.
    cwd = spec.cwd
    entered = cwd is None or (os.path.isdir(cwd) and os.access(cwd, os.X_OK))
    raise _launch_error(spec, "program" if entered else "cwd", error) from error


async def _start_by_helper(
  spec: LaunchSpec, helper: Helper | None, streams: tuple[int, int, int]
) -> int:
  """Start by the helper program; return the pid, which is known by then."""
  spec = await trio.to_thread.run_sync(spec.settled, limiter=_threads)
  try:
    with registry.launching():
      if helper is not None:
        pid = await helper.launch(spec, _candidates(spec), streams)
      else:
        async with open_helper() as own:
          pid = await own.launch(spec, _candidates(spec), streams)
      registry.known.add(pid)
      return pid
  except HelperFailure as failure:
    error = OSError(failure.errno, os.strerror(failure.errno))
    raise _launch_error(spec, failure.stage, error) from failure


def _candidates(spec: LaunchSpec) -> list[str]:
  """List the paths at which the program may be, as execvp(3) would try them."""
  name = spec.argv[0]
  if "/" in name:
    return [name]
  path = spec.environment.get("PATH", os.defpath)
  return [os.path.join(folder or ".", name) for folder in path.split(os.pathsep)]


def _find(spec: LaunchSpec) -> str | None:
  """Find the program on the PATH of its own environment, None if it is not there."""
  candidates = _candidates(spec)
  if len(candidates) == 1:
    return candidates[0]
  for candidate in candidates:
    seen = os.path.join(spec.cwd or "", candidate)
    if os.access(seen, os.X_OK) and os.path.isfile(seen):
      return candidate
  return None


def _launch_error(spec: LaunchSpec, stage: str, error: OSError) -> LaunchError:
  """Say in words what kept the process from starting."""
  words = _words(error)
  program = spec.argv[0]
  match stage:
    case "cwd" if error.errno == errno.ENOENT:
      return LaunchError(f"working directory {spec.cwd!r} does not exist")
    case "cwd":
      return LaunchError(f"cannot enter working directory {spec.cwd!r}: {words}")
    case "user" if error.errno == errno.ENOENT:
      return LaunchError(f"user {spec.user!r} does not exist on this machine")
    case "user" | "identity":
      return LaunchError(f"cannot run as user {spec.user!r}: {words}")
    case "limit":
      return LaunchError(f"cannot set the limits of {program!r}: {words}")
    case "program" if error.errno == errno.ENOENT and "/" not in program:
      return LaunchError(f"cannot start {program!r}: not found in PATH")
    case "program" if error.errno == errno.ENOENT and os.path.exists(
      os.path.join(spec.cwd or "", program)
    ):
      return LaunchError(f"cannot start {program!r}: its interpreter does not exist")
    case "program":
      return LaunchError(f"cannot start {program!r}: {words}")
  return LaunchError(
    f"cannot start {program!r}: the launcher failed ({stage}: {words})"
  )


def _words(error: OSError) -> str:
  """Say an operating system error in words that fit a sentence."""
  if error.errno in NO_ROOM:
    return f"the machine has no room for another process ({os.strerror(error.errno)})"
  if error.errno == errno.ENOEXEC:
    return "not an executable format (a script needs a #! line)"
  if error.errno == errno.E2BIG:
    return "its arguments and environment are too long"
  return (error.strerror or str(error)).lower()


def _own_peak_bytes() -> int:
  """Return our own peak memory, below which the kernel hides that of a child."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
