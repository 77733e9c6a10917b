"""How a job is run: the configuration that each job version freezes."""

import attrs

from hetuflow.protocol.checks import (
  FieldError,
  between,
  check,
  length,
)
from hetuflow.protocol.states import ExecutorKind, OnLost

__all__ = ["ENVIRONMENT_NAME", "SLUG", "TaskConfig"]

SLUG = r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?"
ENVIRONMENT_NAME = r"[A-Za-z_][A-Za-z0-9_]*"

MAX_ARGUMENTS = 1_000
MAX_TEXT = 131_072
"""Linux refuses a single argument or environment string beyond 128 KiB."""
MAX_LABELS = 64
MAX_RETRIES = 1_000
MAX_SECONDS = 366 * 86_400.0
MAX_OUTPUT_SIZE = 1024**3

_environment = check(
  lambda names: (
    all(
      name.isascii() and name.replace("_", "a").isalnum() and not name[0].isdigit()
      for name in names
      if name
    )
    and "" not in names
  ),
  "names of letters, digits and '_' that do not begin with a digit",
)

_exit_codes = check(
  lambda codes: len(codes) <= 256 and all(0 <= code <= 255 for code in codes),
  "at most 256 exit codes, each from 0 to 255 (128 + n after signal n)",
)


@attrs.frozen(kw_only=True)
class TaskConfig:
  """What an agent needs to know to run a task of a job.

  Durations are seconds; ``timeout`` 0 means none. ``args`` and ``environment`` may hold
  ``{{ parameters.x }}``; ``cmd`` is taken as it is.

  Example:
    {"executor": "process", "cmd": "/usr/bin/rsync", "args": ["-a", "/a/", "/b/"],
     "environment": {"LANG": "C"}, "timeout": 60.0, "max_retries": 2,
     "retry_interval": 5.0, "labels": {"disk": "ssd"}}
  """

  executor: ExecutorKind = ExecutorKind.PROCESS
  cmd: str = attrs.field(validator=length(1, MAX_TEXT))
  args: list[str] = attrs.field(factory=list, validator=length(0, MAX_ARGUMENTS))
  environment: dict[str, str] = attrs.field(factory=dict, validator=_environment)
  cwd: str | None = attrs.field(default=None, validator=length(1, 4_096))
  user: str | None = attrs.field(default=None, validator=length(1, 256))
  stdin: str | None = None
  timeout: float = attrs.field(default=0.0, validator=between(0, MAX_SECONDS))
  start_deadline: float | None = attrs.field(
    default=None, validator=between(0, MAX_SECONDS)
  )
  kill_grace: float = attrs.field(default=10.0, validator=between(0, 3_600))
  max_retries: int = attrs.field(default=0, validator=between(0, MAX_RETRIES))
  retry_interval: float = attrs.field(default=1.0, validator=between(0, MAX_SECONDS))
  retry_backoff: float = attrs.field(default=2.0, validator=between(1, 100))
  retry_max_interval: float = attrs.field(
    default=3_600.0, validator=between(0, MAX_SECONDS)
  )
  retry_on_exit_codes: list[int] | None = attrs.field(
    default=None, validator=_exit_codes
  )
  capture_output: bool = True
  max_output_size: int = attrs.field(
    default=10 * 1024**2, validator=between(0, MAX_OUTPUT_SIZE)
  )
  labels: dict[str, str] = attrs.field(factory=dict, validator=length(0, MAX_LABELS))
  priority: int = attrs.field(default=0, validator=between(-10, 10))
  on_lost: OnLost = OnLost.RETRY
  max_lost: int = attrs.field(default=3, validator=between(0, MAX_RETRIES))

  def __attrs_post_init__(self) -> None:
    """Refuse combinations that no executor can honour."""
    if self.executor is ExecutorKind.PYTHON and (self.user or self.cwd or self.stdin):
      raise FieldError("executor", "python functions take no user, cwd or stdin")
