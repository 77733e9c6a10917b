"""Work and what became of it: budgets, dispatch, reports, output."""

from enum import StrEnum
from typing import Annotated
from uuid import UUID

import attrs
from msgspec import Meta

from hetuflow.protocol.checks import FieldError, between
from hetuflow.protocol.model import (
  InstanceId,
  Instant,
  JsonObject,
  NamespaceId,
  TaskConfig,
  TaskId,
  TaskMetrics,
)
from hetuflow.protocol.states import LogStream, TaskInstanceStatus

__all__ = [
  "AcquireTaskRequest",
  "DispatchTaskRequest",
  "DispatchedTask",
  "Encoding",
  "LogChunk",
  "NamedConfig",
  "TaskInstanceUpdate",
  "TaskInstanceUpdates",
  "TaskLog",
]

MAX_CHUNK = 4 * 1024**2
"""Characters of one chunk's ``data``."""

FIRST_YEAR, LAST_YEAR = 1901, 9997
"""A year within what a row may hold: an offset moves a moment by less."""
_CALENDAR = f"expected a time between the years {FIRST_YEAR} and {LAST_YEAR}"

Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Offset = Annotated[int, Meta(ge=0, le=2**62)]
ShortText = Annotated[str, Meta(max_length=10_000)]
ChunkText = Annotated[str, Meta(max_length=MAX_CHUNK)]


class Encoding(StrEnum):
  """How bytes stand in a JSON string."""

  UTF8 = "utf8"
  BASE64 = "base64"


@attrs.frozen(kw_only=True)
class AcquireTaskRequest:
  """Budgets granted to the server on top of what it still has of earlier grants.

  ``run`` tasks may come that are due now, ``hold`` tasks that are planned for later.
  The server answers when there is work, however long that takes. ``draining`` makes all
  earlier grants void: nothing shall come until the agent grants anew.

  Example:
    {"run": 4, "hold": 1000, "draining": false}
  """

  run: int = attrs.field(default=0, validator=between(0, 1_000_000))
  hold: int = attrs.field(default=0, validator=between(0, 1_000_000))
  draining: bool = False


@attrs.frozen(kw_only=True)
class DispatchedTask:
  """One claimed task; ``config`` is a key of the batch's ``configs``.

  Example:
    {"instance_id": "0190a8b4-7c00-7000-8000-000000000004",
     "task_id": "0190a8b4-7c00-7000-8000-000000000003", "namespace_id": "default",
     "claim_token": "0190a8b4-7c00-4000-8000-000000000007", "attempt": 1,
     "config": "0190a8b4-7c00-7000-8000-000000000002:1",
     "scheduled_at": "2026-01-01T00:00:00Z", "due_at": "2026-01-01T00:00:00Z",
     "lease": 30.0, "parameters": {}}
  """

  instance_id: InstanceId
  task_id: TaskId
  namespace_id: NamespaceId
  claim_token: UUID
  attempt: Count
  config: str
  scheduled_at: Instant
  due_at: Instant
  lease: float
  held: bool = False
  parameters: JsonObject = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class NamedConfig:
  """A job's configuration with the name the process is told.

  Example:
    {"job_name": "backup", "config": {"cmd": "/bin/true"}}
  """

  job_name: str
  config: TaskConfig


@attrs.frozen(kw_only=True)
class DispatchTaskRequest:
  """A batch of claimed tasks, with each configuration they share said once.

  Example:
    {"configs": {"j:1": {"job_name": "backup", "config": {"cmd": "/bin/true"}}},
     "tasks": []}
  """

  configs: dict[str, NamedConfig]
  tasks: list[DispatchedTask]


@attrs.frozen(kw_only=True)
class TaskInstanceUpdate:
  r"""What an agent reports of one attempt.

  ``status`` running says it started; every other one ends it, ``released`` without
  having started. ``output`` is the tail of what was printed, valid UTF-8 or replaced.

  Example:
    {"instance_id": "0190a8b4-7c00-7000-8000-000000000004", "namespace_id": "default",
     "claim_token": "0190a8b4-7c00-4000-8000-000000000007", "status": "succeeded",
     "started_at": "2026-01-01T00:00:00.001Z", "completed_at": "2026-01-01T00:00:01Z",
     "exit_code": 0, "output": "done\n", "metrics": {"cpu_seconds": 0.1}}
  """

  instance_id: InstanceId
  namespace_id: NamespaceId
  claim_token: UUID
  status: TaskInstanceStatus
  reason: ShortText | None = None
  started_at: Instant | None = None
  completed_at: Instant | None = None
  exit_code: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] | None = None
  error_message: ShortText | None = None
  output: ShortText = ""
  metrics: TaskMetrics | None = None

  def __attrs_post_init__(self) -> None:
    """Refuse times that could not be read again."""
    # One hook for both fields: a validator on each would cost twice as much.
    started, completed = self.started_at, self.completed_at
    if started is not None and not FIRST_YEAR <= started.year <= LAST_YEAR:
      raise FieldError("started_at", _CALENDAR)
    if completed is not None and not FIRST_YEAR <= completed.year <= LAST_YEAR:
      raise FieldError("completed_at", _CALENDAR)


@attrs.frozen(kw_only=True)
class TaskInstanceUpdates:
  """A batch of reports, in the order in which they came about.

  Example:
    {"updates": []}
  """

  updates: Annotated[list[TaskInstanceUpdate], Meta(max_length=10_000)]


@attrs.frozen(kw_only=True)
class LogChunk:
  """A piece of one output stream, from byte ``offset`` on.

  Example:
    {"instance_id": "0190a8b4-7c00-7000-8000-000000000004", "namespace_id": "default",
     "claim_token": "0190a8b4-7c00-4000-8000-000000000007", "stream": "stdout",
     "offset": 0, "data": "aGkK", "encoding": "base64"}
  """

  instance_id: InstanceId
  namespace_id: NamespaceId
  claim_token: UUID
  stream: LogStream
  offset: Offset
  data: ChunkText
  encoding: Encoding = Encoding.UTF8


@attrs.frozen(kw_only=True)
class TaskLog:
  """A batch of chunks.

  Example:
    {"chunks": []}
  """

  chunks: Annotated[list[LogChunk], Meta(max_length=10_000)]
