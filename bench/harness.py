"""What every benchmark has in common: its options, its lines, its last line.

A benchmark is a script with a ``measure(stage, options, report)`` and a ``main`` that
calls ``run_benchmark``. What people read goes to stdout as it is found out, a bar to the
terminal if there is one; the last line of stdout is one JSON object, and with ``--json``
the only one.
"""

import argparse
import json
import math
import platform
import signal
import statistics
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import psutil
import trio
from attrs import frozen
from rich.console import Console
from rich.progress import Progress
from stage import Cpu, Program, Stage, open_stage

from hetuflow import __version__
from hetuflow.storage.connect import Record
from hetuflow.storage.sql import Queries, parse_queries

__all__ = [
  "QUERIES",
  "PendingRun",
  "Report",
  "is_correct",
  "make_parser",
  "percentile",
  "run_benchmark",
  "run_pending",
  "spread",
  "summarise",
  "wait_finished",
]

POLL_S = 0.02
"""Between two looks at what is left: the error of a measured end, always too late."""
INTERRUPTED = 130
FIRST_ID = UUID(int=0)
QUIET_S = 60.0
"""A run in which nothing ends for so long has failed."""

QUERIES = Queries(
  parse_queries("""
-- name: look
-- Whether anything of a job has been dispatched, and its oldest task that is not final.
SELECT
  clock_timestamp() AS at,
  EXISTS (SELECT FROM sched_task_instance WHERE job_id = $job_id) AS begun,
  (
    SELECT id FROM sched_task
    WHERE job_id = $job_id AND namespace_id = 'default' AND completed_at = 'infinity'
      AND id >= $floor
    ORDER BY id LIMIT 1
  ) AS oldest

-- name: first_dispatch
-- When the first task of a job was claimed.
SELECT min(dispatched_at) FROM sched_task_instance WHERE job_id = $job_id

-- name: count_outcomes
-- How the tasks of a job ended, and how many instances each has.
SELECT t.status::text AS status, count(*) AS tasks,
  count(*) FILTER (WHERE instances.count = 1) AS with_one_instance
FROM sched_task AS t
CROSS JOIN LATERAL (
  SELECT count(*) FROM sched_task_instance AS i WHERE i.task_id = t.id
) AS instances
WHERE t.job_id = $job_id
GROUP BY t.status

-- name: list_instances
-- What is known of every instance of a job.
SELECT i.task_id, i.attempt, i.status::text AS status, i.exit_code, i.output, i.metrics,
  i.scheduled_at, i.started_at, i.start_error_ms, i.due_at, i.completed_at
FROM sched_task_instance AS i
WHERE i.job_id = $job_id
ORDER BY i.scheduled_at, i.id

-- name: next_transaction
-- The number the next writing transaction gets; a statement by itself is one.
SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint
""")
)


class Report:
  """Where a benchmark says what it finds.

  Args:
    quiet: only the last line is wanted.
  """

  def __init__(self, *, quiet: bool) -> None:
    self._quiet = quiet

  def say(self, text: str) -> None:
    """Print a line for people."""
    if not self._quiet:
      print(text, flush=True)

  def finish(self, name: str, figures: dict[str, Any]) -> None:
    """Print the JSON object that is the last line."""
    machine = {
      "cpus": psutil.cpu_count(),
      "memory_gib": round(psutil.virtual_memory().total / 1024**3, 1),
      "python": platform.python_version(),
    }
    head = {"benchmark": name, "version": __version__, "machine": machine}
    print(json.dumps({**head, **figures}), flush=True)

  @contextmanager
  def bar(self, title: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a bar on a terminal for the block; what is yielded moves it by one."""
    console = Console(stderr=True)
    with Progress(
      console=console,
      transient=True,
      disable=self._quiet or not console.is_terminal,
      auto_refresh=False,
    ) as progress:
      row = progress.add_task(title, total=total)

      def advance() -> None:
        """Move the bar and draw it: no thread draws while something is measured."""
        progress.advance(row)
        progress.refresh()

      progress.refresh()
      yield advance


Measure = Callable[[Stage, argparse.Namespace, Report], Awaitable[dict[str, Any]]]


def make_parser(doc: str) -> argparse.ArgumentParser:
  """Make the parser of a benchmark from its docstring, with the option all have."""
  parser = argparse.ArgumentParser(
    description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    "--json", action="store_true", help="print the JSON object and nothing else"
  )
  return parser


def run_benchmark(name: str, measure: Measure, options: argparse.Namespace) -> int:
  """Measure on a fresh stage and print the figures.

  Returns:
    The exit code: 0, or 1 where what was measured was not right.
  """
  report = Report(quiet=options.json)
  signal.signal(signal.SIGTERM, signal.default_int_handler)

  async def run() -> dict[str, Any]:
    """Open the stage and measure."""
    async with open_stage() as stage:
      return await measure(stage, options, report)

  figures: dict[str, Any] | None = None
  try:
    figures = trio.run(run)
  except* KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
  if figures is None:
    return INTERRUPTED
  report.finish(name, figures)
  return 0 if figures["correct"] else 1


def percentile(values: Sequence[float], percent: float) -> float:
  """Return the smallest value that ``percent`` % of the values do not exceed."""
  ordered = sorted(values)
  return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def summarise(values: Sequence[float]) -> dict[str, float]:
  """Return what says most of a latency, in the unit of the values."""
  points = {f"p{point:g}": percentile(values, point) for point in (50, 99, 99.9)}
  figures = {"min": min(values), **points, "max": max(values)}
  return {name: round(value, 3) for name, value in figures.items()}


def spread(values: Sequence[float]) -> dict[str, float]:
  """Return the median of repetitions, and how far they lie apart."""
  figures = {
    "median": statistics.median(values),
    "min": min(values),
    "max": max(values),
  }
  return {name: round(value, 1) for name, value in figures.items()}


@frozen(kw_only=True)
class PendingRun:
  """What became of tasks that were pending when an agent came.

  Args:
    seconds: from the first claim to the commit of the last result.
    cpu: seconds per 1,000 tasks of each part.
    transactions: that wrote, per 1,000 tasks.
    instances: what is known of each instance.
    correct: whether every task succeeded, with exactly one instance.
  """

  seconds: float
  cpu: dict[str, float]
  transactions: float
  instances: list[Record]
  correct: bool


@asynccontextmanager
async def nothing_more(agent: Program) -> AsyncIterator[None]:
  """Do nothing beside a run."""
  yield


async def run_pending(
  stage: Stage,
  name: str,
  config: dict[str, Any],
  count: int,
  *,
  agent_options: Sequence[str] = (),
  beside: Callable[[Program], Any] = nothing_more,
) -> PendingRun:
  """Make tasks while no agent is there, then let one run them all.

  Args:
    stage: without an agent.
    name: of a new job.
    config: of that job.
    count: how many tasks.
    agent_options: flags of the agent.
    beside: opened with the agent's process for as long as it works.

  Raises:
    RuntimeError: a program has ended, or nothing happens any more.
  """
  job = await stage.make_job(name, config)
  await stage.make_tasks([{"job_id": str(job.id)}] * count)
  async with stage.agent(*agent_options) as agent, beside(agent):
    seconds, cpu, transactions = await _watch(stage, agent, job.id, count)
  instances = await stage.database.fetch(QUERIES.list_instances, job_id=job.id)
  return PendingRun(
    seconds=seconds,
    cpu=cpu,
    transactions=transactions,
    instances=instances,
    correct=await is_correct(stage, job.id, count),
  )


async def _watch(
  stage: Stage, agent: Program, job_id: UUID, count: int
) -> tuple[float, dict[str, float], float]:
  """Watch a run; return its seconds, and CPU and transactions per 1,000 tasks."""
  before: tuple[Cpu, int] | None = None

  async def begin() -> None:
    """Read the meters at the first dispatch."""
    nonlocal before
    before = stage.cpu(agent), await _transactions(stage)

  ended_at = await wait_finished(stage, agent, job_id, begun=begin)
  after = stage.cpu(agent), await _transactions(stage)
  began_at = await stage.database.fetchval(QUERIES.first_dispatch, job_id=job_id)
  if before is None:
    raise RuntimeError("the tasks ended before they began")
  thousands = count / 1_000
  return (
    (ended_at - began_at).total_seconds(),
    after[0].since(before[0], per=thousands),
    round((after[1] - before[1]) / thousands, 1),
  )


async def wait_finished(
  stage: Stage,
  agent: Program,
  job_id: UUID,
  *,
  begun: Callable[[], Awaitable[None]] | None = None,
) -> datetime:
  """Wait until every task of a job is final.

  Args:
    stage: where they run.
    agent: who runs them.
    job_id: whose tasks.
    begun: called once, when the first dispatch is seen.

  Returns:
    When that was seen, by the database's clock.

  Raises:
    RuntimeError: a program has ended, or nothing happens any more.
  """
  floor = FIRST_ID
  moved_at = trio.current_time()
  while True:
    seen = await stage.database.fetchrow(QUERIES.look, job_id=job_id, floor=floor)
    if seen is None:
      raise RuntimeError("the database does not answer")
    if begun is not None and seen["begun"]:
      await begun()
      begun = None
    if seen["oldest"] is None:
      moment: datetime = seen["at"]
      return moment
    if seen["oldest"] != floor:
      floor, moved_at = seen["oldest"], trio.current_time()
    elif trio.current_time() > moved_at + QUIET_S:
      raise RuntimeError(f"nothing has ended for {QUIET_S:g} s")
    agent.check()
    stage.server.check()
    await trio.sleep(POLL_S)


async def _transactions(stage: Stage) -> int:
  """Read how many writing transactions there have been."""
  return int(await stage.database.fetchval(QUERIES.next_transaction))


async def is_correct(stage: Stage, job_id: UUID, count: int) -> bool:
  """Tell whether all tasks of a job succeeded, each with exactly one instance."""
  rows = await stage.database.fetch(QUERIES.count_outcomes, job_id=job_id)
  wanted = {"status": "succeeded", "tasks": count, "with_one_instance": count}
  return [dict(row) for row in rows] == [wanted]
