"""Processes per second: /bin/true with captured output, exit code and rusage stored.

Beside it, in the same run and by turns, what this machine can do without a scheduler:
posix_spawn with a captured pipe and wait4 from two threads, which stores nothing, and
``trio.run_process``. Compare ratios; the machine's own figures change by the hour.
"""

import argparse
import functools
import statistics
import sys
from pathlib import Path
from typing import Any

import trio
from harness import (
  PendingRun,
  Report,
  make_parser,
  run_benchmark,
  run_pending,
  spread,
)
from profiling import profile_programs, profile_statements
from stage import Stage

TRUE = {"executor": "process", "cmd": "/bin/true"}
BARE = Path(__file__).with_name("bare.py")
KINDS = ("posix_spawn", "trio")


async def run_bare(kind: str, count: int) -> float:
  """Return how many processes a second the machine makes without a scheduler."""
  result = await trio.run_process(
    [sys.executable, str(BARE), kind, str(count)], capture_stdout=True
  )
  return float(result.stdout)


def is_stored(run: PendingRun) -> bool:
  """Tell whether every instance has its exit code and what the process used."""
  return all(row["exit_code"] == 0 for row in run.instances) and any(
    row["metrics"]["cpu_seconds"] > 0 for row in run.instances
  )


async def measure(
  stage: Stage, options: argparse.Namespace, report: Report
) -> dict[str, Any]:
  """Measure all three by turns."""
  count = options.tasks
  agent_options = (
    ["--max-concurrent", str(options.concurrency)] if options.concurrency else []
  )
  ours: list[float] = []
  bare: dict[str, list[float]] = {kind: [] for kind in KINDS}
  runs: list[PendingRun] = []
  with report.bar("process", options.runs) as advance:
    for number in range(options.runs):
      for kind in KINDS:
        bare[kind].append(await run_bare(kind, count))
      run = await run_pending(
        stage, f"true-{number}", TRUE, count, agent_options=agent_options
      )
      runs.append(run)
      ours.append(count / run.seconds)
      report.say(
        f"run {number + 1}: {ours[-1]:,.0f} tasks/s, bare posix_spawn "
        f"{bare['posix_spawn'][-1]:,.0f}/s, trio.run_process {bare['trio'][-1]:,.0f}/s; "
        f"CPU s per 1,000 tasks {run.cpu}"
      )
      advance()
  ratio = statistics.median(ours) / statistics.median(bare["posix_spawn"])
  report.say(f"median ratio to bare posix_spawn: {ratio:.2f}")
  figures = {
    "tasks": count,
    "runs": options.runs,
    "max_concurrent": options.concurrency or "default",
    "job": "/bin/true, output captured, exit code and rusage stored",
    "durability": "fsync on, synchronous_commit on, history kept",
    "tasks_per_second": spread(ours),
    "reference_per_second": {kind: spread(rates) for kind, rates in bare.items()},
    "ratio": round(ratio, 3),
    "cpu_seconds_per_1000": {
      name: statistics.median([run.cpu[name] for run in runs])
      for name in ("server", "agent", "postgres")
    },
    "correct": all(run.correct and is_stored(run) for run in runs),
  }
  if options.profile:
    again = functools.partial(
      run_pending, stage, config=TRUE, count=count, agent_options=agent_options
    )
    async with profile_programs(stage) as programs:
      await again("true-sampled", beside=programs.sample)
    async with profile_statements(stage) as statements:
      await again("true-logged")
    for line in (*programs.lines(), *statements.lines()):
      report.say(line)
    figures["profile"] = {
      "functions": programs.figures(),
      "statements": statements.figures(),
    }
  return figures


def main() -> int:
  """Read the options and run."""
  parser = make_parser(__doc__)
  parser.add_argument("--tasks", type=int, default=2_000, help="of one run")
  parser.add_argument("--runs", type=int, default=5)
  parser.add_argument(
    "--concurrency", type=int, default=None, help="the agent's --max-concurrent"
  )
  parser.add_argument(
    "--profile", action="store_true", help="sample with py-spy, time statements"
  )
  return run_benchmark("process", measure, parser.parse_args())


if __name__ == "__main__":
  sys.exit(main())
