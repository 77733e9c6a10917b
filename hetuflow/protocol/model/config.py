"""How a job is run: the configuration that each job version freezes."""

import attrs

from hetuflow.protocol.checks import (
  FieldError,
  between,
  check,
  length,
)
from hetuflow.protocol.states import (
  ExecutorKind,
  MisfirePolicy,
  OnLost,
  OverlapPolicy,
)

__all__ = ["ENVIRONMENT_NAME", "SLUG", "Misfire", "RateLimit", "TaskConfig"]

SLUG = r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?"
ENVIRONMENT_NAME = r"[A-Za-z_][A-Za-z0-9_]*"

MAX_ARGUMENTS = 1_000
MAX_TEXT = 131_072
"""Linux refuses a single argument or environment string beyond 128 KiB."""
MAX_LABELS = 64
MAX_RETRIES = 1_000
MAX_SECONDS = 366 * 86_400.0
MAX_OUTPUT_SIZE = 1024**3
MAX_CAUGHT_UP = 10_000

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
class RateLimit:
  """At most ``count`` starts in ``seconds``, as evenly as they come.

  Example:
    {"count": 10, "seconds": 60.0}
  """

  count: int = attrs.field(validator=between(1, 1_000_000))
  seconds: float = attrs.field(default=1.0, validator=between(0.001, MAX_SECONDS))


@attrs.frozen(kw_only=True)
class Misfire:
  """What becomes of planned times that are more than ``grace`` seconds late.

  ``run_once`` runs the last one, and the others are merged into it; ``skip`` runs none;
  ``run_all`` runs the newest ``limit`` of those that are at most ``window`` seconds late
  (null: however late), one every ``interval`` seconds, and misses the others.

  Example:
    {"policy": "run_all", "grace": 60.0, "window": 86400.0, "limit": 100, "interval": 1.0}
  """

  policy: MisfirePolicy = MisfirePolicy.RUN_ONCE
  grace: float = attrs.field(default=60.0, validator=between(0, MAX_SECONDS))
  window: float | None = attrs.field(default=None, validator=between(0, MAX_SECONDS))
  limit: int = attrs.field(default=1_000, validator=between(1, MAX_CAUGHT_UP))
  interval: float = attrs.field(default=0.0, validator=between(0, 86_400))


@attrs.frozen(kw_only=True)
class TaskConfig:
  """How a job is planned, and what an agent needs to know to run a task of it.

  Durations are seconds; ``timeout`` 0 means none. ``args`` and ``environment`` may hold
  ``{{ parameters.x }}``; ``cmd`` is taken as it is. ``timeout`` is that of one attempt,
  ``total_timeout`` that of all of them with the pauses between, from when the task is due;
  one that has not started ``start_deadline`` after it is due is missed.

  ``max_concurrent`` is the number of tasks that may be under way: of the job, or of each
  value of ``concurrency_key``, which may hold ``{{ parameters.x }}`` and is shared by the
  jobs of a namespace. Without it, 1 is meant where there is a key or ``overlap`` is not
  allow. ``overlap`` says what a task does that finds no place: it waits (allow, queue), is
  skipped, or replaces what is under way. ``retry_jitter`` is the part of a pause by which
  it may be longer, at random.

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
  retry_jitter: float = attrs.field(default=0.0, validator=between(0, 1))
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
  total_timeout: float | None = attrs.field(
    default=None, validator=between(0.001, MAX_SECONDS)
  )
  overlap: OverlapPolicy = OverlapPolicy.ALLOW
  max_concurrent: int | None = attrs.field(
    default=None, validator=between(1, 1_000_000)
  )
  concurrency_key: str | None = attrs.field(default=None, validator=length(1, 500))
  rate_limit: RateLimit | None = None
  misfire: Misfire = attrs.field(factory=Misfire)
  broadcast: bool = False

  def __attrs_post_init__(self) -> None:
    """Refuse combinations that no executor can honour."""
    if self.executor is ExecutorKind.PYTHON and (self.user or self.cwd or self.stdin):
      raise FieldError("executor", "python functions take no user, cwd or stdin")
