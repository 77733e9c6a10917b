"""The program that starts processes as another user or with limits.

Run as `python -I -S helper.py` with a sequenced-packet socket as standard input, by the
agent, which owns it; it imports the standard library only, so that it stays small: what
makes a fork cheap. Each packet carries five descriptors: the request as JSON in a file,
the three standard streams, and a status pipe. The child is made with CLONE_PARENT, so it
is the agent's child as if the agent had started it, wait status, resources and all. The
child writes its pid to the status pipe and, if it fails before exec, ` stage errno`; exec
closes the pipe. When the agent dies the socket ends, and so does this program.
"""

import ctypes
import errno
import json
import os
import platform
import pwd
import resource
import signal
import socket
import sys

CLONE_PARENT = 0x8000
# The kernel's number of clone(2); other machines order its arguments differently.
CLONE_NUMBERS = {"x86_64": 56, "aarch64": 220, "riscv64": 220, "loongarch64": 220}
LIMITS = {
  "max_memory_bytes": resource.RLIMIT_AS,
  "max_cpu_seconds": resource.RLIMIT_CPU,
  "max_processes": resource.RLIMIT_NPROC,
  "max_open_files": resource.RLIMIT_NOFILE,
}
CPU_REPRIEVE_SECONDS = 5


def main() -> None:
  """Serve requests until the socket ends."""
  with socket.socket(fileno=0) as requests:
    while True:
      data, fds, _, _ = socket.recv_fds(requests, 1, 5)
      if not data:
        return
      # `recv_fds` of many versions of Python heeds no flags, MSG_CMSG_CLOEXEC neither.
      for fd in fds:
        os.set_inheritable(fd, False)
      start(fds)
      for fd in fds:
        os.close(fd)


def start(fds: list[int]) -> None:
  """Make the child for one request; a failure goes to its status pipe."""
  request, stdin, stdout, stderr, status = fds
  try:
    if clone() == 0:
      become(request, (stdin, stdout, stderr), status)
  except OSError as error:
    os.write(status, b"0 clone %d" % (error.errno or 0))


def clone() -> int:
  """Fork a child of our parent; return 0 in it."""
  number = CLONE_NUMBERS.get(platform.machine())
  if number is None:
    raise OSError(errno.ENOSYS, "clone")
  library = ctypes.CDLL(None, use_errno=True)
  pid = int(library.syscall(number, CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0))
  if pid < 0:
    raise OSError(ctypes.get_errno(), "clone")
  return pid


def become(request: int, streams: tuple[int, int, int], status: int) -> None:
  """Turn this process into the requested program; never returns."""
  stage = "request"
  os.write(status, b"%d" % os.getpid())
  try:
    with os.fdopen(request, "rb", closefd=False) as file:
      wanted = json.load(file)
    stage = "session"
    os.setsid()
    for target, fd in enumerate(streams):
      os.dup2(fd, target)
    # Those that Python ignores; everything else is as the helper was started with.
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
      signal.signal(number, signal.SIG_DFL)
    stage = "user"
    identity = find_user(wanted["user"])
    stage = "limit"
    set_limits(wanted["limits"])
    stage = "identity"
    take_identity(identity)
    stage = "cwd"
    if wanted["cwd"] is not None:
      os.chdir(wanted["cwd"])
    stage = "program"
    execute(wanted["programs"], wanted["argv"], wanted["environment"])
  except KeyError:
    os.write(status, b" %s %d" % (stage.encode(), errno.ENOENT))
  except OSError as error:
    os.write(status, b" %s %d" % (stage.encode(), error.errno or 0))
  except BaseException:
    os.write(status, b" %s %d" % (stage.encode(), errno.EINVAL))
  finally:
    os._exit(127)


def find_user(name: str | None) -> pwd.struct_passwd | None:
  """Find the user to become, None if we are it already; KeyError if there is none."""
  if name is None:
    return None
  user = pwd.getpwnam(name)
  return None if user.pw_uid == os.geteuid() else user


def take_identity(user: pwd.struct_passwd | None) -> None:
  """Become the user, with its groups."""
  if user is not None:
    os.initgroups(user.pw_name, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)


def set_limits(limits: dict[str, int | None]) -> None:
  """Set the limits for this process and what it starts."""
  for name, value in limits.items():
    if value is not None:
      extra = CPU_REPRIEVE_SECONDS if name == "max_cpu_seconds" else 0
      resource.setrlimit(LIMITS[name], (value, value + extra))


def execute(programs: list[str], argv: list[str], environment: dict[str, str]) -> None:
  """Execute the first of `programs` that can be; the most telling error is raised."""
  failure: OSError = FileNotFoundError(errno.ENOENT, "no candidate")
  for program in programs:
    try:
      os.execve(program, argv, environment)  # noqa: S606 - its very purpose
    except (FileNotFoundError, NotADirectoryError):
      continue
    except PermissionError as error:
      failure = error
  raise failure


if __name__ == "__main__":
  try:
    main()
  except (ConnectionError, KeyboardInterrupt):
    sys.exit(0)
