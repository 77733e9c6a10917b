"""``/jobs``."""

from functools import partial
from uuid import UUID

from quart import Blueprint, Response

from hetuflow.errors import Conflict
from hetuflow.protocol.model import (
  Job,
  JobFilter,
  JobForCreate,
  JobForRun,
  JobForUpdate,
  JobId,
  JobStatistics,
  JobVersion,
  Task,
  TaskForCreate,
)
from hetuflow.protocol.states import JobStatus
from hetuflow.server.api.exchange import (
  answer,
  created,
  no_content,
  page,
  read_body,
  read_query,
)
from hetuflow.server.api.once import create_once
from hetuflow.server.api.operation import NoFilter, operation
from hetuflow.server.api.services import services
from hetuflow.server.api.tasks import create_task
from hetuflow.storage import jobs, statistics
from hetuflow.storage.rows import Executor

__all__ = ["blueprint"]

blueprint = Blueprint("jobs", __name__)


@blueprint.get("")
@operation(Job, filter=JobFilter)
async def list_jobs() -> Response:
  """List jobs, newest first; deleted ones only with ``status=deleted``."""
  paging = read_query(JobFilter)
  found = await jobs.query_jobs(
    services().database, paging.filter, limit=paging.limit + 1, cursor=paging.after
  )
  return page(found, paging.limit)


@blueprint.post("")
@operation(Job, status=201, body=JobForCreate, once=True)
async def create_job() -> Response:
  """Make a job, with its schedules if it carries any."""
  wish = await read_body(JobForCreate)
  made = await create_once(lambda executor: jobs.create_job(executor, wish))
  if wish.schedules:
    services().wake("schedules", wish.namespace_id)
  return created(made, f"jobs/{made['id']}")


@blueprint.get("/<uuid:job_id>")
@operation(Job)
async def get_job(job_id: UUID) -> Response:
  """Read a job; a deleted one says so by its status."""
  return answer(await jobs.get_job(services().database, job_id))


@blueprint.patch("/<uuid:job_id>")
@operation(Job, body=JobForUpdate)
async def update_job(job_id: UUID) -> Response:
  """Change a job; another ``config`` makes a new version."""
  update = await read_body(JobForUpdate)
  return answer(await jobs.update_job(services().database, job_id, update))


@blueprint.delete("/<uuid:job_id>")
@operation(status=204)
async def delete_job(job_id: UUID) -> Response:
  """Delete a job: its schedules end, its name is free, its history stays."""
  await jobs.delete_job(services().database, job_id)
  return no_content()


@blueprint.get("/<uuid:job_id>/versions")
@operation(JobVersion, filter=NoFilter)
async def list_versions(job_id: UUID) -> Response:
  """List the configurations a job ever had, newest first."""
  paging = read_query(NoFilter)
  found = await jobs.query_versions(
    services().database,
    job_id,
    limit=paging.limit + 1,
    cursor=paging.after_version,
  )
  return page(found, paging.limit, lambda version: version.version)


@blueprint.get("/<uuid:job_id>/stats")
@operation(JobStatistics)
async def get_job_statistics(job_id: UUID) -> Response:
  """Read how the last 1,000 tasks of a job fared."""
  database = services().database
  job = await jobs.get_job(database, job_id)
  return answer(await statistics.read_job_statistics(database, job.id))


@blueprint.post("/<uuid:job_id>/enable")
@operation(Job)
async def enable_job(job_id: UUID) -> Response:
  """Let a job be planned and run, from now on."""
  return await _switch(job_id, True)


@blueprint.post("/<uuid:job_id>/disable")
@operation(Job)
async def disable_job(job_id: UUID) -> Response:
  """Keep a job from being planned and run; what agents have taken goes on."""
  return await _switch(job_id, False)


async def _switch(job_id: UUID, enabled: bool) -> Response:
  """Enable or disable."""
  job = await jobs.set_job_enabled(services().database, job_id, enabled)
  services().wake("schedules", job.namespace_id)
  return answer(job)


@blueprint.post("/<uuid:job_id>/run")
@operation(Task, status=201, body=JobForRun, once=True)
async def run_job(job_id: UUID) -> Response:
  """Run a job now, or at ``scheduled_at``; the body may be left out."""
  run = await read_body(JobForRun, optional=True)
  made = await create_once(partial(_run, job_id=JobId(job_id), run=run))
  services().wake("tasks", made["namespace_id"])
  return created(made, f"tasks/{made['id']}")


async def _run(executor: Executor, *, job_id: JobId, run: JobForRun) -> Task:
  """Make the task of a run."""
  job = await jobs.get_job(executor, job_id)
  if job.status is JobStatus.DELETED:
    raise Conflict(f"the job {job.name!r} is deleted")
  wish = TaskForCreate(
    job_id=job_id,
    parameters=run.parameters,
    scheduled_at=run.scheduled_at,
    priority=run.priority,
    idempotency_key=run.idempotency_key,
  )
  return await create_task(executor, wish)
