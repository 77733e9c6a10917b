"""Whether tasks that cannot run slow down those that can.

No-op tasks are run as in ``dispatch``, then again while ``--idle`` pending tasks ask for
labels that no agent has and as many are planned for tomorrow, and then with ``--history``
finished tasks. What counts is the ratio of the times per task; the runs before and after
are on the same installation.
"""

import argparse
import statistics
import sys
from typing import Any

from harness import Report, make_parser, run_benchmark, run_pending
from stage import Stage

from hetuflow.storage.sql import Queries, parse_queries

NOOP = {"executor": "python", "cmd": "hetuflow.noop"}
AGENT = ["--max-concurrent", "2000"]
BATCH = 100_000

QUERIES = Queries(
  parse_queries("""
-- name: make_pending
-- Tasks of a job that wait, due after some seconds.
INSERT INTO sched_task (
  id, namespace_id, job_id, job_version, route_id, planned_at, scheduled_at, due_at,
  rank_at
)
SELECT hetuflow_uuid7(now()), 'default', j.id, 1, j.route_id, at, at, at, at
FROM sched_job AS j, generate_series(1, $count::integer) AS n
CROSS JOIN LATERAL (
  SELECT now() + make_interval(secs => $seconds + n * 0.001) AS at
) AS due
WHERE j.id = $job_id

-- name: make_history
-- Tasks of a job that have succeeded, with their attempts.
WITH ended AS (
  INSERT INTO sched_task (
    id, namespace_id, job_id, job_version, route_id, status, planned_at,
    scheduled_at, due_at, rank_at, attempts, completed_at
  )
  SELECT hetuflow_uuid7(now()), 'default', j.id, 1, j.route_id, 'succeeded', now(),
    now(), now(), now(), 1, now()
  FROM sched_job AS j, generate_series(1, $count::integer) WHERE j.id = $job_id
  RETURNING id, job_id
)
INSERT INTO sched_task_instance (
  id, namespace_id, task_id, job_id, job_version, agent_id, attempt, status,
  claim_token, scheduled_at, due_at, completed_at
)
SELECT id, 'default', id, job_id, 1, id, 1, 'succeeded', id, now(), now(), now()
FROM ended
""")
)


async def measure(
  stage: Stage, options: argparse.Namespace, report: Report
) -> dict[str, Any]:
  """Run before, beside what cannot run, and beside history."""
  rates: dict[str, float] = {}
  correct = True

  async def run(title: str) -> None:
    """Run as often as asked and keep the median of the times per task."""
    nonlocal correct
    times = []
    for number in range(options.runs):
      outcome = await run_pending(
        stage, f"{title}-{number}", NOOP, options.tasks, agent_options=AGENT
      )
      correct &= outcome.correct
      times.append(outcome.seconds / options.tasks)
    rates[title] = statistics.median(times)
    report.say(f"{title}: {1 / rates[title]:,.0f} tasks/s")

  await run("warm-up")
  await run("clean")
  nobody = await stage.make_job("nobody", NOOP | {"labels": {"bench": "nobody"}})
  tomorrow = await stage.make_job("tomorrow", NOOP)
  await _fill(stage, "make_pending", options.idle, job_id=nobody.id, seconds=0.0)
  await _fill(stage, "make_pending", options.idle, job_id=tomorrow.id, seconds=86_400.0)
  await run("idle tasks")
  await _fill(stage, "make_history", options.history, job_id=nobody.id)
  await run("idle tasks and history")
  ratios = {
    title: round(rates[title] / rates["clean"], 3)
    for title in ("idle tasks", "idle tasks and history")
  }
  report.say(f"against clean: {ratios}")
  return {
    "tasks": options.tasks,
    "runs": options.runs,
    "idle": 2 * options.idle,
    "history": options.history,
    "durability": "fsync on, synchronous_commit on, history kept",
    "tasks_per_second": {title: round(1 / rate, 1) for title, rate in rates.items()},
    "ratios": ratios,
    "correct": correct,
  }


async def _fill(stage: Stage, name: str, count: int, **values: Any) -> None:
  """Insert many rows, some at a time."""
  for start in range(0, count, BATCH):
    batch = min(BATCH, count - start)
    await stage.database.fetch(getattr(QUERIES, name), count=batch, **values)


def main() -> int:
  """Read the options and run."""
  parser = make_parser(__doc__)
  parser.add_argument("--tasks", type=int, default=10_000, help="of one run")
  parser.add_argument("--runs", type=int, default=5)
  parser.add_argument("--idle", type=int, default=1_000_000, help="of each sort")
  parser.add_argument("--history", type=int, default=0)
  return run_benchmark("backlog", measure, parser.parse_args())


if __name__ == "__main__":
  sys.exit(main())
