"""How jobs fared lately: read along the index of jobs and ids, and only so far back."""

from collections.abc import Sequence

from hetuflow.protocol.model import JobId, JobStatistics, Spread
from hetuflow.protocol.states import TaskStatus
from hetuflow.storage.rows import Executor, from_row
from hetuflow.storage.sql import load_queries

__all__ = ["read_job_statistics", "recent_durations"]

_sql = load_queries("statistics")

RECENT = 1_000
"""Tasks, and attempts, of a job that are looked at."""
RECENT_DURATIONS = 100
"""Attempts of each job that tell how long the next one will take."""


async def recent_durations(
  executor: Executor, job_ids: Sequence[JobId], *, limit: int = RECENT_DURATIONS
) -> dict[JobId, list[float]]:
  """Read how long the last attempts of some jobs took that succeeded.

  Args:
    executor: where to read.
    job_ids: of which jobs.
    limit: attempts of each job to look at, however they ended.

  Returns:
    Seconds, the newest first; a job of which nothing is known is left out.
  """
  async with executor.transaction() as connection:
    await connection.fetch(_sql.read_in_order)
    rows = await connection.fetch(
      _sql.recent_durations, job_ids=list(set(job_ids)), limit=limit
    )
  durations: dict[JobId, list[float]] = {}
  for row in rows:
    durations.setdefault(JobId(row["job_id"]), []).append(row["seconds"])
  return durations


async def read_job_statistics(executor: Executor, job_id: JobId) -> JobStatistics:
  """Say what became of the last tasks of a job; of one without any, that there are none.

  Args:
    executor: where to read.
    job_id: of which job.
  """
  async with executor.transaction() as connection:
    await connection.fetch(_sql.read_in_order)
    rows = await connection.fetch(_sql.job_statuses, job_id=job_id, limit=RECENT)
    duration, start_error = await connection.fetch(
      _sql.job_attempts, job_id=job_id, limit=RECENT
    )
  statuses = {str(row["status"]): int(row["count"]) for row in rows}
  succeeded = statuses.get(TaskStatus.SUCCEEDED, 0)
  judged = succeeded + statuses.get(TaskStatus.FAILED, 0)
  return JobStatistics(
    job_id=job_id,
    tasks=sum(statuses.values()),
    since=min((row["since"] for row in rows), default=None),
    statuses=statuses,
    success_rate=succeeded / judged if judged else None,
    duration=from_row(Spread, duration),
    start_error_ms=from_row(Spread, start_error),
  )
