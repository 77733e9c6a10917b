"""What to start: a command line with everything its process is given."""

import os
from collections.abc import Mapping

from attrs import evolve, field, frozen

__all__ = ["LaunchSpec", "Limits"]


def _positive(_: object, attribute: object, value: int | None) -> None:
  """Refuse a limit that no process could live with."""
  if value is not None and value < 1:
    name = getattr(attribute, "name", "limit")
    raise ValueError(f"{name} must be at least 1, not {value}")


@frozen(kw_only=True)
class Limits:
  """Limits of the one process and what it inherits to its children; None is no limit.

  Args:
    max_memory_bytes: address space of each process.
    max_cpu_seconds: CPU time of each process; SIGXCPU at it, SIGKILL 5 s later.
    max_processes: processes of the whole user, as the kernel counts them.
    max_open_files: file descriptors of each process.
  """

  max_memory_bytes: int | None = field(default=None, validator=_positive)
  max_cpu_seconds: int | None = field(default=None, validator=_positive)
  max_processes: int | None = field(default=None, validator=_positive)
  max_open_files: int | None = field(default=None, validator=_positive)


@frozen(kw_only=True)
class LaunchSpec:
  """One process to start.

  Args:
    argv: program and arguments; the program is looked up in `environment`'s PATH.
    environment: the whole environment, nothing is added.
    cwd: working directory; None is the agent's own.
    fallback_cwd: taken where `cwd` is no folder; None makes that an error.
    user: name of the user to run as; None is the agent's own.
    stdin: bytes on standard input; None is `/dev/null`.
    capture: whether standard output and error are read; otherwise `/dev/null`.
    limits: limits set before the program starts.
  """

  argv: tuple[str, ...]
  environment: Mapping[str, str]
  cwd: str | None = None
  fallback_cwd: str | None = None
  user: str | None = None
  stdin: bytes | None = None
  capture: bool = True
  limits: Limits = Limits()

  @property
  def instance_id(self) -> str | None:
    """The task instance it runs for, by which its descendants are known."""
    return self.environment.get("HETUFLOW_INSTANCE_ID")

  def settled(self) -> "LaunchSpec":
    """Decide on the working directory; may block for as long as a file system does."""
    if self.fallback_cwd is None or (self.cwd and os.path.isdir(self.cwd)):
      return self
    return evolve(self, cwd=self.fallback_cwd)

  @property
  def needs_helper(self) -> bool:
    """Whether it asks for what `posix_spawn` cannot do."""
    return self.user is not None or self.limits != Limits()
