"""The words for kinds and states, and the one table of every permitted status change.

``TASK_TRANSITIONS`` and ``INSTANCE_TRANSITIONS`` are the truth: the guarded statements
of ``storage/transitions.sql`` are checked against them, state by state and event by
event, on a real database; the diagram in the README is drawn from them.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

__all__ = [
  "INSTANCE_LIVE",
  "INSTANCE_TRANSITIONS",
  "TASK_FINAL",
  "TASK_TRANSITIONS",
  "AgentStatus",
  "Coverage",
  "ExecutorKind",
  "InstanceEvent",
  "JobStatus",
  "LedgerOutcome",
  "LogStream",
  "MisfirePolicy",
  "OnLost",
  "OverlapPolicy",
  "ScheduleKind",
  "TaskCause",
  "TaskEvent",
  "TaskInstanceStatus",
  "TaskStatus",
]


class ScheduleKind(StrEnum):
  """What makes a schedule fire."""

  CRON = "cron"
  TIME = "time"
  DAEMON = "daemon"
  EVENT = "event"
  FLOW = "flow"


class JobStatus(StrEnum):
  """Whether a job may be planned and run."""

  ENABLED = "enabled"
  DISABLED = "disabled"
  DELETED = "deleted"


class ExecutorKind(StrEnum):
  """How an agent runs a task."""

  PROCESS = "process"
  SHELL = "shell"
  PYTHON = "python"
  HTTP = "http"
  DOCKER = "docker"
  KUBERNETES = "kubernetes"


class OnLost(StrEnum):
  """What becomes of a task whose agent vanished in the middle of an attempt."""

  RETRY = "retry"
  FAIL = "fail"


class OverlapPolicy(StrEnum):
  """What a task does whose job has as many under way as it may."""

  ALLOW = "allow"
  SKIP = "skip"
  QUEUE = "queue"
  REPLACE = "replace"


class MisfirePolicy(StrEnum):
  """What becomes of planned times that were not planned in time."""

  RUN_ONCE = "run_once"
  SKIP = "skip"
  RUN_ALL = "run_all"


class TaskCause(StrEnum):
  """Why there is a task."""

  REQUEST = "request"
  SCHEDULE = "schedule"
  CATCH_UP = "catch_up"
  BACKFILL = "backfill"
  DAEMON = "daemon"
  BROADCAST = "broadcast"
  EVENT = "event"
  FLOW = "flow"


class LogStream(StrEnum):
  """The two output streams of a process."""

  STDOUT = "stdout"
  STDERR = "stderr"


class LedgerOutcome(StrEnum):
  """What became of planned times that have no task."""

  SKIPPED = "skipped"
  MISSED = "missed"
  MERGED = "merged"


class Coverage(StrEnum):
  """What became of a planned time, with a task or without."""

  WAITING = "waiting"
  RAN = "ran"
  CANCELLED = "cancelled"
  SKIPPED = "skipped"
  MISSED = "missed"
  MERGED = "merged"


class AgentStatus(StrEnum):
  """The state of an agent as the servers see it."""

  ONLINE = "online"
  OFFLINE = "offline"
  BUSY = "busy"
  DRAINING = "draining"
  ERROR = "error"


class TaskStatus(StrEnum):
  """The state of one planned occurrence."""

  BLOCKED = "blocked"
  PAUSED = "paused"
  PENDING = "pending"
  DISPATCHED = "dispatched"
  RUNNING = "running"
  WAITING_RETRY = "waiting_retry"
  SUCCEEDED = "succeeded"
  FAILED = "failed"
  CANCELLED = "cancelled"
  SKIPPED = "skipped"
  MISSED = "missed"
  MERGED = "merged"


class TaskInstanceStatus(StrEnum):
  """The state of one attempt on one agent."""

  DISPATCHED = "dispatched"
  RUNNING = "running"
  SUCCEEDED = "succeeded"
  FAILED = "failed"
  TIMEOUT = "timeout"
  CANCELLED = "cancelled"
  LOST = "lost"
  RELEASED = "released"


class TaskEvent(StrEnum):
  """What can happen to a task.

  ``block`` is for tasks with a limit what ``resume`` and ``revive`` are for others, and
  what becomes of waiting ones that get a limit; ``unblock`` gives one its place.
  ``spread`` begins a broadcast, ``abandon`` is for one that no agent matches, and for a
  part whose agent is gone. ``expire`` is the end of its ``total_timeout``; ``find`` is
  that its lost attempt is found again, before it has started.
  """

  BLOCK = "block"
  UNBLOCK = "unblock"
  SKIP = "skip"
  SPREAD = "spread"
  ABANDON = "abandon"
  CLAIM = "claim"
  FIND = "find"
  START = "start"
  SUCCEED = "succeed"
  FAIL = "fail"
  RETRY = "retry"
  RELEASE = "release"
  CANCEL = "cancel"
  MISS = "miss"
  EXPIRE = "expire"
  PAUSE = "pause"
  RESUME = "resume"
  REVIVE = "revive"


class InstanceEvent(StrEnum):
  """What can happen to a task instance.

  ``find`` is that of a lost one whose agent is back and has not started it.
  """

  FIND = "find"
  START = "start"
  SUCCEED = "succeed"
  FAIL = "fail"
  TIME_OUT = "time_out"
  CANCEL = "cancel"
  LOSE = "lose"
  RELEASE = "release"


S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)


def _table(
  rows: Mapping[E, tuple[tuple[S, ...], S]],
) -> Mapping[tuple[S, E], S]:
  """Spread ``event: (from states, to state)`` into ``(state, event): state``."""
  return {
    (source, event): target
    for event, (sources, target) in rows.items()
    for source in sources
  }


_T = TaskStatus
_UNCLAIMED = (_T.PENDING, _T.WAITING_RETRY)
_CLAIMED = (_T.DISPATCHED, _T.RUNNING)
_HEARD = (*_CLAIMED, _T.WAITING_RETRY)
"""While it waits after a loss, its lost attempt is still heard."""
_REVIVABLE = (_T.SUCCEEDED, _T.FAILED, _T.CANCELLED, _T.SKIPPED, _T.MISSED)

TASK_TRANSITIONS: Mapping[tuple[TaskStatus, TaskEvent], TaskStatus] = _table(
  {
    TaskEvent.BLOCK: ((_T.PENDING, _T.PAUSED, *_REVIVABLE), _T.BLOCKED),
    TaskEvent.UNBLOCK: ((_T.BLOCKED,), _T.PENDING),
    TaskEvent.SKIP: ((_T.BLOCKED,), _T.SKIPPED),
    TaskEvent.SPREAD: ((_T.PENDING,), _T.RUNNING),
    TaskEvent.ABANDON: (_UNCLAIMED, _T.FAILED),
    TaskEvent.CLAIM: (_UNCLAIMED, _T.DISPATCHED),
    TaskEvent.FIND: ((_T.WAITING_RETRY,), _T.DISPATCHED),
    TaskEvent.START: ((_T.DISPATCHED, _T.WAITING_RETRY), _T.RUNNING),
    TaskEvent.SUCCEED: (_HEARD, _T.SUCCEEDED),
    TaskEvent.FAIL: (_HEARD, _T.FAILED),
    TaskEvent.RETRY: (_HEARD, _T.WAITING_RETRY),
    TaskEvent.RELEASE: ((_T.DISPATCHED, _T.WAITING_RETRY), _T.PENDING),
    TaskEvent.CANCEL: (
      (_T.BLOCKED, _T.PAUSED, *_UNCLAIMED, *_CLAIMED),
      _T.CANCELLED,
    ),
    TaskEvent.MISS: ((_T.BLOCKED, *_UNCLAIMED, *_CLAIMED), _T.MISSED),
    TaskEvent.EXPIRE: (
      (_T.BLOCKED, _T.PAUSED, *_UNCLAIMED, *_CLAIMED),
      _T.FAILED,
    ),
    TaskEvent.PAUSE: ((_T.BLOCKED, *_UNCLAIMED), _T.PAUSED),
    TaskEvent.RESUME: ((_T.PAUSED,), _T.PENDING),
    TaskEvent.REVIVE: (_REVIVABLE, _T.PENDING),
  }
)
"""(status, event) -> status for tasks; what is not listed is refused."""

TASK_FINAL = frozenset(
  {_T.SUCCEEDED, _T.FAILED, _T.CANCELLED, _T.SKIPPED, _T.MISSED, _T.MERGED}
)
"""The statuses of a task with a ``completed_at``."""

_I = TaskInstanceStatus
_OPEN = (_I.DISPATCHED, _I.RUNNING)
_REPORTING = (*_OPEN, _I.LOST)
"""A lost one is heard until there is a newer one, or it has been waited for in vain."""

INSTANCE_TRANSITIONS: Mapping[
  tuple[TaskInstanceStatus, InstanceEvent], TaskInstanceStatus
] = _table(
  {
    InstanceEvent.FIND: ((_I.LOST,), _I.DISPATCHED),
    InstanceEvent.START: ((_I.DISPATCHED, _I.LOST), _I.RUNNING),
    InstanceEvent.SUCCEED: (_REPORTING, _I.SUCCEEDED),
    InstanceEvent.FAIL: (_REPORTING, _I.FAILED),
    InstanceEvent.TIME_OUT: (_REPORTING, _I.TIMEOUT),
    InstanceEvent.CANCEL: (_REPORTING, _I.CANCELLED),
    InstanceEvent.LOSE: (_OPEN, _I.LOST),
    InstanceEvent.RELEASE: ((_I.DISPATCHED, _I.LOST), _I.RELEASED),
  }
)
"""(status, event) -> status for task instances; what is not listed is refused."""

INSTANCE_LIVE = frozenset(_OPEN)
"""The statuses of an instance that is under way; a lost one may be so or have ended."""
