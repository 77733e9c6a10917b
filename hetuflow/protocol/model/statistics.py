"""How a job fared lately."""

import attrs

from hetuflow.protocol.model.ids import Instant, JobId

__all__ = ["JobStatistics", "Spread"]


@attrs.frozen(kw_only=True)
class Spread:
  """How a measure is spread; null where nothing was measured.

  Example:
    {"count": 120, "p50": 1.5, "p95": 4.0, "max": 9.1}
  """

  count: int
  p50: float | None
  p95: float | None
  max: float | None


@attrs.frozen(kw_only=True)
class JobStatistics:
  """What became of the last tasks of a job, at most 1,000.

  ``tasks`` is how many were looked at, ``since`` when the oldest of them was made.
  ``success_rate`` is the share of those that succeeded among those that succeeded or
  failed. Durations are seconds of attempts, start errors milliseconds.

  Example:
    {"job_id": "0190a8b4-7c00-7000-8000-000000000002", "tasks": 3,
     "since": "2026-01-01T00:00:00Z", "statuses": {"succeeded": 2, "failed": 1},
     "success_rate": 0.667,
     "duration": {"count": 3, "p50": 1.5, "p95": 4.0, "max": 4.1},
     "start_error_ms": {"count": 3, "p50": 0.8, "p95": 2.0, "max": 2.1}}
  """

  job_id: JobId
  tasks: int
  since: Instant | None
  statuses: dict[str, int]
  success_rate: float | None
  duration: Spread
  start_error_ms: Spread
