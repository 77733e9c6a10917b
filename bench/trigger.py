"""From the call of POST /jobs/{id}/run to the running process, on an idle system.

The time is taken before the call is made; the other end is the process's own first
reading of the clock. One run at a time, each begun when the one before has ended.
"""

import argparse
import sys
import time
from typing import Any
from uuid import UUID

import trio
from bodies import make_clock_body
from harness import (
  QUERIES,
  Report,
  is_correct,
  make_parser,
  run_benchmark,
  summarise,
)
from stage import Stage

from hetuflow.client.calls import jobs, tasks
from hetuflow.protocol.states import TASK_FINAL

WARM_UP = 5
"""Runs that are not counted: statements are prepared and connections made in them."""
POLL_S = 0.02
IDLE_S = 0.03
"""From the end of one run to the next: nothing of the one before is still under way."""
RUN_TIMEOUT_S = 30.0


async def run_once(stage: Stage, job_id: UUID) -> tuple[UUID, float, float]:
  """Run the job and wait for its end.

  Returns:
    The task, when the call was made, and when its answer was there, in epoch seconds.
  """
  called_at = time.time()
  task = await stage.client.send(jobs.run_job(job_id))
  answered_at = time.time()
  with trio.fail_after(RUN_TIMEOUT_S):
    while task.status not in TASK_FINAL:
      await trio.sleep(POLL_S)
      task = await stage.client.send(tasks.get_task(task.id))
  await trio.sleep(IDLE_S)
  return task.id, called_at, answered_at


async def measure(
  stage: Stage, options: argparse.Namespace, report: Report
) -> dict[str, Any]:
  """Run the job again and again."""
  body = make_clock_body(stage.folder)
  job = await stage.make_job("trigger", body.config)
  called: dict[UUID, float] = {}
  answers: list[float] = []
  async with stage.agent() as agent:
    await stage.wait_online(agent)
    for _ in range(WARM_UP):
      await run_once(stage, job.id)
    with report.bar("trigger", options.runs) as advance:
      for _ in range(options.runs):
        task_id, called_at, answered_at = await run_once(stage, job.id)
        called[task_id] = called_at
        answers.append(1_000 * (answered_at - called_at))
        advance()
  rows = await stage.database.fetch(QUERIES.list_instances, job_id=job.id)
  counted = [row for row in rows if row["task_id"] in called]
  starts = [1_000 * (float(row["output"]) - called[row["task_id"]]) for row in counted]
  report.say(f"call to running process, ms: {summarise(starts)}")
  report.say(f"call to its answer, ms: {summarise(answers)}")
  return {
    "runs": options.runs,
    "body": body.kind,
    "start_ms": summarise(starts),
    "answer_ms": summarise(answers),
    "correct": await is_correct(stage, job.id, options.runs + WARM_UP)
    and len(counted) == options.runs
    and min(starts) > 0,
  }


def main() -> int:
  """Read the options and run."""
  parser = make_parser(__doc__)
  parser.add_argument("--runs", type=int, default=200)
  return run_benchmark("trigger", measure, parser.parse_args())


if __name__ == "__main__":
  sys.exit(main())
