"""Jobs: what is to be done."""

from typing import Any
from uuid import UUID

from hetuflow.client.call import Call, Page, delete, get, listing, patch, post
from hetuflow.protocol.model import (
  Job,
  JobForCreate,
  JobForUpdate,
  JobStatistics,
  JobVersion,
  Task,
)
from hetuflow.protocol.model.task import JobForRun

__all__ = [
  "create_job",
  "delete_job",
  "disable_job",
  "enable_job",
  "get_job",
  "get_job_statistics",
  "list_job_versions",
  "list_jobs",
  "run_job",
  "update_job",
]


def list_jobs(
  *,
  namespace_id: str | None = None,
  name: str | None = None,
  status: str | None = None,
  limit: int | None = None,
) -> Call[Page[Job]]:
  """Describe the list of jobs, filtered by what is given."""
  query = {
    "namespace_id": namespace_id,
    "name": name,
    "status": status,
    "limit": limit,
  }
  return listing(Job, "jobs", query=query)


def get_job(job_id: UUID) -> Call[Job]:
  """Describe the reading of one job."""
  return get(Job, "jobs", job_id)


def get_job_statistics(job_id: UUID) -> Call[JobStatistics]:
  """Describe the reading of how a job fared lately."""
  return get(JobStatistics, "jobs", job_id, "stats")


def create_job(
  job: JobForCreate | dict[str, Any], *, idempotency_key: str | None = None
) -> Call[Job]:
  """Describe the making of a job, with the schedules it carries."""
  return post(Job, "jobs", body=job, key=idempotency_key)


def update_job(job_id: UUID, change: JobForUpdate | dict[str, Any]) -> Call[Job]:
  """Describe a change of a job; a new ``config`` makes a new version."""
  return patch(Job, "jobs", job_id, body=change)


def delete_job(job_id: UUID) -> Call[None]:
  """Describe the end of a job and of its schedules."""
  return delete("jobs", job_id)


def enable_job(job_id: UUID) -> Call[Job]:
  """Describe that a job may be planned and run again."""
  return post(Job, "jobs", job_id, "enable")


def disable_job(job_id: UUID) -> Call[Job]:
  """Describe that a job is neither planned nor run."""
  return post(Job, "jobs", job_id, "disable")


def run_job(job_id: UUID, run: JobForRun | dict[str, Any] | None = None) -> Call[Task]:
  """Describe that a job is to run now, or at ``scheduled_at``."""
  return post(Task, "jobs", job_id, "run", body={} if run is None else run)


def list_job_versions(job_id: UUID) -> Call[Page[JobVersion]]:
  """Describe the list of a job's configurations."""
  return listing(JobVersion, "jobs", job_id, "versions", query={})
