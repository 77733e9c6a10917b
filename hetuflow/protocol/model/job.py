"""Jobs: what is to be done."""

from typing import Any

import attrs

from hetuflow.protocol.checks import fits_a_message, length
from hetuflow.protocol.model.config import TaskConfig
from hetuflow.protocol.model.ids import (
  DEFAULT_NAMESPACE,
  UNSET,
  Instant,
  JobId,
  NamespaceId,
  UnsetType,
)
from hetuflow.protocol.model.schedule import ScheduleForCreate
from hetuflow.protocol.states import JobStatus

__all__ = [
  "Job",
  "JobFilter",
  "JobForCreate",
  "JobForUpdate",
  "JobVersion",
  "UnusableConfig",
]

MAX_SCHEDULES = 100


@attrs.frozen(kw_only=True)
class UnusableConfig:
  """A configuration that is stored but refused by now, and why; tasks with it fail.

  Example:
    {"stored": {"cmd": ""}, "problem": "expected a length between 1 and 131072 @ $.cmd"}
  """

  stored: Any
  problem: str


@attrs.frozen(kw_only=True)
class Job:
  """A job as it is read; where there is no ``config``, ``unusable`` says why.

  Example:
    {"id": "0190a8b4-7c00-7000-8000-000000000002", "namespace_id": "default",
     "name": "backup", "description": "", "status": "enabled",
     "config": {"cmd": "/usr/local/bin/backup"}, "version": 1,
     "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}
  """

  id: JobId
  namespace_id: NamespaceId
  name: str
  description: str
  status: JobStatus
  config: TaskConfig | None
  unusable: UnusableConfig | None = None
  version: int
  created_at: Instant
  updated_at: Instant


@attrs.frozen(kw_only=True)
class JobVersion:
  """One frozen configuration of a job; tasks run with the version they were planned with.

  Example:
    {"job_id": "0190a8b4-7c00-7000-8000-000000000002", "version": 1,
     "config": {"cmd": "/bin/true"}, "created_at": "2026-01-01T00:00:00Z"}
  """

  job_id: JobId
  version: int
  config: TaskConfig | None
  unusable: UnusableConfig | None = None
  created_at: Instant


@attrs.frozen(kw_only=True)
class JobForCreate:
  """What a caller says of a new job.

  Example:
    {"name": "backup", "config": {"cmd": "/usr/local/bin/backup"},
     "schedules": [{"kind": "cron", "cron_expression": "30 2 * * *"}]}
  """

  namespace_id: NamespaceId = DEFAULT_NAMESPACE
  name: str = attrs.field(validator=length(1, 200))
  description: str = attrs.field(default="", validator=length(0, 10_000))
  status: JobStatus = JobStatus.ENABLED
  config: TaskConfig = attrs.field(validator=fits_a_message)
  schedules: list[ScheduleForCreate] = attrs.field(
    factory=list, validator=length(0, MAX_SCHEDULES)
  )


@attrs.frozen(kw_only=True)
class JobForUpdate:
  """What may be changed of a job; what is left out stays, ``config`` is replaced whole.

  With the ``version`` that the caller has read, nothing is changed where the job has
  another configuration by now: it would be lost.

  Example:
    {"description": "every night"}
  """

  name: str | UnsetType = attrs.field(default=UNSET, validator=length(1, 200))
  description: str | UnsetType = attrs.field(default=UNSET, validator=length(0, 10_000))
  config: TaskConfig | UnsetType = attrs.field(default=UNSET, validator=fits_a_message)
  version: int | UnsetType = UNSET


@attrs.frozen(kw_only=True)
class JobFilter:
  """Which jobs to list; what is None does not matter.

  Example:
    {"namespace_id": "default", "status": "enabled"}
  """

  namespace_id: str | None = None
  name: str | None = None
  status: JobStatus | None = None
