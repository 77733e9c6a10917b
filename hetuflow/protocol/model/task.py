"""Tasks and task instances: one planned occurrence, and its attempts."""

from typing import Annotated
from uuid import UUID

import attrs
from msgspec import Meta

from hetuflow.protocol.checks import between, fits_a_message, length
from hetuflow.protocol.model.ids import (
  UNSET,
  AgentId,
  InstanceId,
  Instant,
  JobId,
  JsonObject,
  NamespaceId,
  ScheduleId,
  TaskId,
  UnsetType,
)
from hetuflow.protocol.states import TaskCause, TaskInstanceStatus, TaskStatus

__all__ = [
  "JobForRun",
  "Task",
  "TaskBatchForCreate",
  "TaskFilter",
  "TaskForCreate",
  "TaskForUpdate",
  "TaskInstance",
  "TaskInstanceFilter",
  "TaskInstanceForCreate",
  "TaskInstanceForUpdate",
  "TaskMetrics",
]

MAX_BATCH = 50_000
_priority = between(-10, 10)


@attrs.frozen(kw_only=True)
class TaskMetrics:
  """What an attempt used: cpu of the process and its reaped children, peak memory.

  ``max_memory_mb`` is null where it is not known: of a small and short process.

  Example:
    {"cpu_seconds": 0.012, "max_memory_mb": 3.5, "output_bytes": 120}
  """

  cpu_seconds: float = 0.0
  max_memory_mb: float | None = None
  output_bytes: Annotated[int, Meta(ge=0, le=2**62)] = 0


@attrs.frozen(kw_only=True)
class Task:
  """A task as it is read.

  ``cause`` is why there is one, ``parent_id`` the broadcast that it is a part of. One that
  has not started by ``start_by`` is missed, one that has not ended by ``end_by`` fails.

  Example:
    {"id": "0190a8b4-7c00-7000-8000-000000000003", "namespace_id": "default",
     "job_id": "0190a8b4-7c00-7000-8000-000000000002", "job_version": 1,
     "schedule_id": null, "flow_run_id": null, "status": "pending", "reason": null,
     "planned_at": "2026-01-01T00:00:00Z", "scheduled_at": "2026-01-01T00:00:00Z",
     "due_at": "2026-01-01T00:00:00Z", "priority": 0, "parameters": {}, "attempts": 0,
     "max_retries": 0, "cancel_requested_at": null, "cause": "request",
     "parent_id": null, "start_by": null, "end_by": null,
     "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
     "completed_at": null}
  """

  id: TaskId
  namespace_id: NamespaceId
  job_id: JobId
  job_version: int
  schedule_id: ScheduleId | None
  flow_run_id: UUID | None
  status: TaskStatus
  reason: str | None
  planned_at: Instant
  scheduled_at: Instant
  due_at: Instant
  priority: int
  parameters: JsonObject
  attempts: int
  max_retries: int
  cancel_requested_at: Instant | None
  cause: TaskCause
  parent_id: TaskId | None
  start_by: Instant | None
  end_by: Instant | None
  created_at: Instant
  updated_at: Instant
  completed_at: Instant | None


@attrs.frozen(kw_only=True)
class TaskForCreate:
  """What a caller says of a new task; without a time it is due at once.

  Example:
    {"job_id": "0190a8b4-7c00-7000-8000-000000000002", "parameters": {"day": 3}}
  """

  job_id: JobId
  parameters: JsonObject = attrs.field(factory=dict, validator=fits_a_message)
  scheduled_at: Instant | None = None
  priority: int | None = attrs.field(default=None, validator=_priority)
  idempotency_key: str | None = attrs.field(default=None, validator=length(1, 255))


@attrs.frozen(kw_only=True)
class TaskBatchForCreate:
  """Many new tasks; all are made or none.

  Example:
    {"items": [{"job_id": "0190a8b4-7c00-7000-8000-000000000002"}]}
  """

  items: list[TaskForCreate] = attrs.field(validator=length(1, MAX_BATCH))


@attrs.frozen(kw_only=True)
class JobForRun:
  """How a job is to be run now, or at ``scheduled_at``.

  Example:
    {"parameters": {"day": "monday"}, "priority": 5}
  """

  parameters: JsonObject = attrs.field(factory=dict, validator=fits_a_message)
  scheduled_at: Instant | None = None
  priority: int | None = attrs.field(default=None, validator=_priority)
  idempotency_key: str | None = attrs.field(default=None, validator=length(1, 255))


@attrs.frozen(kw_only=True)
class TaskForUpdate:
  """What may be changed of a task until it is dispatched.

  Example:
    {"priority": 10}
  """

  parameters: JsonObject | UnsetType = attrs.field(
    default=UNSET, validator=fits_a_message
  )
  scheduled_at: Instant | UnsetType = UNSET
  priority: int | UnsetType = attrs.field(default=UNSET, validator=_priority)


@attrs.frozen(kw_only=True)
class TaskFilter:
  """Which tasks to list; what is None does not matter.

  Example:
    {"namespace_id": "default", "status": "failed"}
  """

  namespace_id: str | None = None
  job_id: JobId | None = None
  schedule_id: ScheduleId | None = None
  parent_id: TaskId | None = None
  status: TaskStatus | None = None


@attrs.frozen(kw_only=True)
class TaskInstance:
  r"""A task instance as it is read; ``output`` is the tail of what it printed.

  Example:
    {"id": "0190a8b4-7c00-7000-8000-000000000004",
     "task_id": "0190a8b4-7c00-7000-8000-000000000003",
     "job_id": "0190a8b4-7c00-7000-8000-000000000002", "namespace_id": "default",
     "agent_id": "0190a8b4-7c00-7000-8000-000000000005", "attempt": 1,
     "status": "succeeded", "reason": null, "exit_code": 0, "error_message": null,
     "output": "done\n", "scheduled_at": "2026-01-01T00:00:00Z",
     "dispatched_at": "2025-12-31T23:59:55Z", "started_at": "2026-01-01T00:00:00.001Z",
     "completed_at": "2026-01-01T00:00:01Z", "start_error_ms": 1.0,
     "metrics": {"cpu_seconds": 0.1, "max_memory_mb": 2.0, "output_bytes": 5},
     "updated_at": "2026-01-01T00:00:01Z"}
  """

  id: InstanceId
  task_id: TaskId
  job_id: JobId
  namespace_id: NamespaceId
  agent_id: AgentId
  attempt: int
  status: TaskInstanceStatus
  reason: str | None
  exit_code: int | None
  error_message: str | None
  output: str
  scheduled_at: Instant
  dispatched_at: Instant
  started_at: Instant | None
  completed_at: Instant | None
  start_error_ms: float | None
  metrics: TaskMetrics
  updated_at: Instant


@attrs.frozen(kw_only=True)
class TaskInstanceForCreate:
  """A new attempt of a task on an agent.

  Example:
    {"task_id": "0190a8b4-7c00-7000-8000-000000000003",
     "agent_id": "0190a8b4-7c00-7000-8000-000000000005"}
  """

  task_id: TaskId
  agent_id: AgentId


@attrs.frozen(kw_only=True)
class TaskInstanceForUpdate:
  """What an operator may note on an attempt; its status moves by transitions alone.

  Example:
    {"reason": "looked at by the operator"}
  """

  reason: str | UnsetType | None = attrs.field(
    default=UNSET, validator=length(0, 10_000)
  )


@attrs.frozen(kw_only=True)
class TaskInstanceFilter:
  """Which task instances to list; what is None does not matter.

  Example:
    {"task_id": "0190a8b4-7c00-7000-8000-000000000003"}
  """

  namespace_id: str | None = None
  task_id: TaskId | None = None
  job_id: JobId | None = None
  agent_id: AgentId | None = None
  status: TaskInstanceStatus | None = None
