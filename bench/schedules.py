"""Many cron schedules, each due once a minute, and no agent: what planning them takes.

The schedules are written straight into the database, ``--schedules`` of them over
``--jobs`` jobs, spread over the seconds of a minute. Measured are the rate at which the
first backlog (all of them, for the horizon of a minute ahead) becomes tasks, whether the
server keeps up for ``--minutes`` after that, how long a pass takes that finds nothing due,
and the server's memory.
"""

import argparse
import sys
from functools import partial
from typing import Any

import psutil
import trio
from harness import Report, make_parser, percentile, run_benchmark
from stage import Stage

from hetuflow.nursery import Wakeup
from hetuflow.protocol.model import NamespaceId, ServerId
from hetuflow.server.scheduling.bindings import Bindings
from hetuflow.server.scheduling.generator import Generator
from hetuflow.storage.sql import Queries, parse_queries

HORIZON_S = 60.0
TICKS = 30
BEHIND_S = 10.0
"""The longest pause between two passes is 5 s: so far behind the horizon is too slow."""
QUIET_S = 120.0
BATCH = 10_000

QUERIES = Queries(
  parse_queries("""
-- name: make_jobs
-- Jobs that nobody will ever be asked to run.
WITH route AS (
  INSERT INTO sched_route (namespace_id, selector)
  VALUES ('default', '{"executor": "process", "labels": {"bench": "nobody"}}')
  RETURNING id
),
jobs AS (
  INSERT INTO sched_job (id, namespace_id, name, route_id)
  SELECT gen_random_uuid(), 'default', 'planned-' || n, route.id
  FROM route, generate_series(1, $jobs::integer) AS n
  RETURNING id
)
INSERT INTO sched_job_version (job_id, version, config)
SELECT id, 1, '{"cmd": "/bin/true", "labels": {"bench": "nobody"}}' FROM jobs

-- name: make_schedules
-- Schedules from one number to another, asleep until they are switched on.
INSERT INTO sched_schedule (
  id, namespace_id, job_id, name, kind, enabled, cron_expression, cursor_at
)
SELECT gen_random_uuid(), 'default', j.ids[1 + n % cardinality(j.ids)], 'n' || n, 'cron',
  false, n % 60 || ' * * * * *', now()
FROM generate_series($first::integer, $last::integer) AS n
CROSS JOIN (SELECT array_agg(id) AS ids FROM sched_job WHERE name LIKE 'planned-%') AS j

-- name: switch_on
-- Let them be planned from now.
UPDATE sched_schedule
SET enabled = true, cursor_at = now(), next_plan_at = now(), revision = revision + 1
WHERE NOT enabled

-- name: hint
-- Say that there are schedules.
SELECT pg_notify('hetuflow', 'schedules')

-- name: refresh
-- Let the planner know what is there, as autovacuum would after a minute.
ANALYZE sched_schedule

-- name: look
-- How many schedules are planned as far ahead as they are to be, and the tasks so far.
SELECT
  (SELECT count(*) FROM sched_schedule
    WHERE next_plan_at < now() + make_interval(secs => $ahead)) AS behind,
  (SELECT count(*) FROM sched_task
    WHERE namespace_id = 'default' AND completed_at = 'infinity') AS tasks

-- name: span
-- From the first task to the last one.
SELECT count(*) AS tasks, extract(epoch FROM max(created_at) - min(created_at)) AS seconds
FROM sched_task WHERE namespace_id = 'default' AND completed_at = 'infinity'

-- name: covered
-- Whether each schedule has a task for each of its minutes.
SELECT count(*) FROM (
  SELECT s.id, count(t.id) AS tasks,
    round(extract(epoch FROM max(t.planned_at) - min(t.planned_at)) / 60) + 1 AS minutes
  FROM sched_schedule AS s
  LEFT JOIN sched_task AS t ON t.schedule_id = s.id
  GROUP BY s.id
) AS each WHERE tasks <> minutes

-- name: bindings
-- Who plans for the namespace.
SELECT namespace_id, server_id, epoch FROM sched_binding
""")
)


async def measure(
  stage: Stage, options: argparse.Namespace, report: Report
) -> dict[str, Any]:
  """Make the schedules, see the backlog planned, and watch for some minutes."""
  database = stage.database
  await database.fetch(QUERIES.make_jobs, jobs=options.jobs)
  for first in range(0, options.schedules, BATCH):
    last = min(first + BATCH, options.schedules) - 1
    await database.fetch(QUERIES.make_schedules, first=first, last=last)
  await database.fetch(QUERIES.switch_on)
  await database.fetch(QUERIES.refresh)
  await database.fetch(QUERIES.hint)
  await _caught_up(stage)
  span = await database.fetchrow(QUERIES.span)
  assert span is not None
  rate = span["tasks"] / max(float(span["seconds"]), 1e-3)
  report.say(f"{span['tasks']:,} tasks planned, {rate:,.0f} a second")
  server = psutil.Process(stage.server.pid)
  cpu, began = stage.server.cpu_seconds(), trio.current_time()
  slowest = await _watch(stage, options.minutes * 60.0)
  busy = (stage.server.cpu_seconds() - cpu) / (trio.current_time() - began)
  ticks = await _time_ticks(stage)
  memory = server.memory_info().rss / 1024**2
  report.say(
    f"at most {slowest} schedules behind, {busy:.0%} of a core, a pass with nothing due"
    f" {percentile(ticks, 50):.1f} ms, server {memory:.0f} MB"
  )
  uncovered = await database.fetchval(QUERIES.covered)
  return {
    "schedules": options.schedules,
    "minutes": options.minutes,
    "durability": "fsync on, synchronous_commit on",
    "tasks_per_second": round(rate, 1),
    "most_behind": slowest,
    "server_core": round(busy, 3),
    "empty_pass_ms": {
      "p50": round(percentile(ticks, 50), 2),
      "max": round(max(ticks), 2),
    },
    "server_mb": round(memory, 1),
    "correct": uncovered == 0 and slowest == 0,
  }


async def _caught_up(stage: Stage) -> None:
  """Wait until every schedule is planned ahead."""
  with trio.fail_after(QUIET_S):
    while await _behind(stage):  # noqa: ASYNC110 - the server is another process
      await trio.sleep(0.05)


async def _behind(stage: Stage) -> int:
  """Count schedules that are not planned as far ahead as they are to be."""
  stage.server.check()
  row = await stage.database.fetchrow(QUERIES.look, ahead=HORIZON_S - BEHIND_S)
  assert row is not None
  count: int = row["behind"]
  return count


async def _watch(stage: Stage, seconds: float) -> int:
  """Look each second; return the most schedules that were seen behind."""
  most = 0
  end = trio.current_time() + seconds
  while trio.current_time() < end:
    await trio.sleep(1.0)
    most = max(most, await _behind(stage))
  return most


async def _time_ticks(stage: Stage) -> list[float]:
  """Time passes of a generator that finds nothing due, in milliseconds."""
  rows = await stage.database.fetch(QUERIES.bindings)
  bindings = Bindings(ServerId(rows[0]["server_id"]))
  bindings.replace({NamespaceId(row["namespace_id"]): row["epoch"] for row in rows})
  generator = Generator(
    stage.database,
    bindings,
    horizon=1.0,
    interval=1.0,
    wakeup=Wakeup(),
  )
  await generator.plan_once()
  return [await _time(partial(generator.plan_once)) for _ in range(TICKS)]


async def _time(call: Any) -> float:
  """Return how long a call took, in milliseconds."""
  began = trio.current_time()
  await call()
  return (trio.current_time() - began) * 1_000


def main() -> int:
  """Read the options and run."""
  parser = make_parser(__doc__)
  parser.add_argument("--schedules", type=int, default=100_000)
  parser.add_argument("--jobs", type=int, default=1_000)
  parser.add_argument("--minutes", type=float, default=2.0)
  return run_benchmark("schedules", measure, parser.parse_args())


if __name__ == "__main__":
  sys.exit(main())
