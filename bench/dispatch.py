"""No-op tasks per second, end to end.

Tasks of the executor ``python`` that call ``hetuflow.noop`` are made by
POST /tasks/batch while no agent is there. Then one agent comes and runs them all. What
counts is the time from the first claim to the commit of the last result, with history
kept and PostgreSQL's durability at its defaults (fsync and synchronous_commit on).
"""

import argparse
import statistics
import sys
from typing import Any

from harness import PendingRun, Report, make_parser, run_benchmark, run_pending, spread
from profiling import profile_programs, profile_statements
from stage import Stage

NOOP = {"executor": "python", "cmd": "hetuflow.noop"}


async def measure(
  stage: Stage, options: argparse.Namespace, report: Report
) -> dict[str, Any]:
  """Measure as often as asked, and profile once more if that is wanted."""
  agent_options = ["--max-concurrent", str(options.concurrency)]
  count = options.tasks
  runs: list[PendingRun] = []
  with report.bar("dispatch", options.runs) as advance:
    for number in range(options.runs):
      run = await run_pending(
        stage, f"noop-{number}", NOOP, count, agent_options=agent_options
      )
      runs.append(run)
      report.say(
        f"run {number + 1}: {count / run.seconds:,.0f} tasks/s in {run.seconds:.2f} s, "
        f"CPU s per 1,000 tasks {run.cpu}, transactions per 1,000 {run.transactions}"
      )
      advance()
  rates = spread([count / run.seconds for run in runs])
  report.say(f"median {rates['median']:,.0f} tasks/s")
  figures = {
    "tasks": count,
    "runs": options.runs,
    "max_concurrent": options.concurrency,
    "job": "in-process function that does nothing",
    "durability": "fsync on, synchronous_commit on, history kept",
    "tasks_per_second": rates,
    "cpu_seconds_per_1000": {
      name: statistics.median([run.cpu[name] for run in runs])
      for name in ("server", "agent", "postgres")
    },
    "transactions_per_1000": spread([run.transactions for run in runs]),
    "correct": all(run.correct for run in runs),
  }
  if options.profile:
    figures["profile"] = await _profile(stage, count, agent_options, report)
  return figures


async def _profile(
  stage: Stage, count: int, agent_options: list[str], report: Report
) -> dict[str, Any]:
  """Run twice more, which is not counted: once for Python, once for the statements."""
  async with profile_programs(stage) as programs:
    await run_pending(
      stage,
      "noop-sampled",
      NOOP,
      count,
      agent_options=agent_options,
      beside=programs.sample,
    )
  for line in programs.lines():
    report.say(line)
  async with profile_statements(stage) as statements:
    await run_pending(stage, "noop-logged", NOOP, count, agent_options=agent_options)
  for line in statements.lines():
    report.say(line)
  return {"functions": programs.figures(), "statements": statements.figures()}


def main() -> int:
  """Read the options and run."""
  parser = make_parser(__doc__)
  parser.add_argument("--tasks", type=int, default=20_000, help="of one run")
  parser.add_argument("--runs", type=int, default=5)
  parser.add_argument(
    "--concurrency", type=int, default=2_000, help="the agent's --max-concurrent"
  )
  parser.add_argument(
    "--profile", action="store_true", help="sample with py-spy, time statements"
  )
  return run_benchmark("dispatch", measure, parser.parse_args())


if __name__ == "__main__":
  sys.exit(main())
