"""How late planned tasks start, and that none starts early.

Three kinds, one after the other. Processes: the start error is what the process's own
first reading of the clock says, less the time it was planned for. No-ops, many more a
second: it is what the agent reports. A job of every second: each second must have
exactly one task with exactly one instance. All planned while the agent is connected, as
schedules do it; the clock is one, for all runs on one machine.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import trio
from bodies import make_clock_body
from harness import (
  QUERIES,
  Report,
  is_correct,
  make_parser,
  run_benchmark,
  summarise,
  wait_finished,
)
from stage import Program, Stage

from hetuflow.client.calls import schedules
from hetuflow.storage.connect import Record

NOOP = {"executor": "python", "cmd": "hetuflow.noop"}
SETTLE_S = 3.0
"""For the last of the schedule's tasks to end."""
CRON_MISSING_S = 1.0
"""The schedule's first second may have begun before the schedule was there."""


async def run_planned(
  stage: Stage,
  agent: Program,
  name: str,
  config: dict[str, Any],
  *,
  rate: int,
  count: int,
  ahead: float,
) -> tuple[list[Record], bool]:
  """Plan tasks at a steady rate and wait for their end.

  Returns:
    What is known of the instances, and whether each task has one that succeeded.
  """
  job = await stage.make_job(name, config)
  begin = datetime.now(UTC) + timedelta(seconds=ahead)
  await stage.make_tasks(
    [
      {
        "job_id": str(job.id),
        "scheduled_at": (begin + timedelta(seconds=number / rate)).isoformat(),
      }
      for number in range(count)
    ]
  )
  await wait_finished(stage, agent, job.id)
  rows = await stage.database.fetch(QUERIES.list_instances, job_id=job.id)
  return rows, await is_correct(stage, job.id, count)


def own_errors(rows: Sequence[Record]) -> list[float]:
  """Return the start errors by the processes' own clock readings, in milliseconds."""
  return [
    1_000 * (float(row["output"]) - row["scheduled_at"].timestamp()) for row in rows
  ]


def reported_errors(rows: Sequence[Record]) -> list[float]:
  """Return the start errors as the agent reported them, in milliseconds."""
  return [row["start_error_ms"] for row in rows]


def count_early(errors: Sequence[float]) -> int:
  """Count what started before its time."""
  return sum(error < 0 for error in errors)


async def run_every_second(
  stage: Stage, config: dict[str, Any], seconds: int
) -> dict[str, Any]:
  """Let a cron job fire every second for a while, and judge what it did."""
  job = await stage.make_job(
    "every-second",
    config,
    schedules=[{"kind": "cron", "cron_expression": "* * * * * *"}],
  )
  schedule = (await stage.client.send(schedules.list_schedules(job_id=job.id))).items[0]
  begin = datetime.now(UTC) + timedelta(seconds=CRON_MISSING_S)
  end = begin + timedelta(seconds=seconds)
  await trio.sleep(seconds + CRON_MISSING_S + SETTLE_S)
  await stage.client.send(schedules.disable_schedule(schedule.id))
  rows = await stage.database.fetch(QUERIES.list_instances, job_id=job.id)
  inside = [row for row in rows if begin <= row["scheduled_at"] < end]
  counts = Counter(row["scheduled_at"].timestamp() for row in inside)
  wanted = range(int(begin.timestamp()) + 1, int(end.timestamp()) + 1)
  ended = [row for row in inside if row["status"] == "succeeded"]
  errors = own_errors(ended)
  return {
    "seconds": len(wanted),
    "instances": len(inside),
    "missing": sum(second not in counts for second in wanted),
    "doubled": sum(count - 1 for count in counts.values()),
    "not_succeeded": len(inside) - len(ended),
    "early": count_early(errors),
    "start_error_ms": summarise(errors) if errors else None,
  }


async def measure(
  stage: Stage, options: argparse.Namespace, report: Report
) -> dict[str, Any]:
  """Measure all three kinds."""
  body = make_clock_body(stage.folder)
  processes = int(options.rate * options.seconds)
  noops = int(options.noop_rate * options.noop_seconds)
  async with stage.agent() as agent:
    await stage.wait_online(agent)
    with report.bar("lateness", 3) as advance:
      rows, right = await run_planned(
        *(stage, agent, "planned", body.config),
        rate=options.rate,
        count=processes,
        ahead=options.ahead,
      )
      own, reported = own_errors(rows), reported_errors(rows)
      report.say(f"processes, {options.rate}/s, own clock, ms: {summarise(own)}")
      report.say(f"processes, by the agent, ms: {summarise(reported)}")
      advance()
      rows, noops_right = await run_planned(
        *(stage, agent, "planned-noop", NOOP),
        rate=options.noop_rate,
        count=noops,
        ahead=options.ahead,
      )
      noop = reported_errors(rows)
      report.say(f"no-ops, {options.noop_rate}/s, ms: {summarise(noop)}")
      advance()
      cron = await run_every_second(stage, body.config, options.cron)
      report.say(f"every second: {cron}")
      advance()
  early = {
    "processes": count_early(own),
    "processes_reported": count_early(reported),
    "noop": count_early(noop),
  }
  report.say(f"early: {early}")
  faults = ("missing", "doubled", "not_succeeded", "early")
  return {
    "body": body.kind,
    "processes": {
      "per_second": options.rate,
      "tasks": processes,
      "start_error_ms": summarise(own),
      "reported_start_error_ms": summarise(reported),
    },
    "noop": {
      "per_second": options.noop_rate,
      "tasks": noops,
      "reported_start_error_ms": summarise(noop),
    },
    "cron": cron,
    "early": early,
    "correct": right
    and noops_right
    and not any(early.values())
    and not any(cron[fault] for fault in faults),
  }


def main() -> int:
  """Read the options and run."""
  parser = make_parser(__doc__)
  parser.add_argument("--rate", type=int, default=100, help="processes a second")
  parser.add_argument("--seconds", type=float, default=20, help="of processes")
  parser.add_argument("--noop-rate", type=int, default=1_000, help="no-ops a second")
  parser.add_argument("--noop-seconds", type=float, default=10, help="of no-ops")
  parser.add_argument("--cron", type=int, default=20, help="seconds of the cron job")
  parser.add_argument(
    "--ahead",
    type=float,
    default=8,
    help="seconds from the making of tasks to the first; the lead is 5",
  )
  return run_benchmark("lateness", measure, parser.parse_args())


if __name__ == "__main__":
  sys.exit(main())
