"""A function for agents that writes down what it ran for, where no server can change it.

Agents import this module by ``--import support.proof`` and find the file by the variable
HETUFLOW_TEST_PROOF. A line is ``job scheduled_at task attempt``, written in one piece.
"""

import os
from collections import Counter
from pathlib import Path

import attrs

from hetuflow.agent.functions import TaskContext, function

VARIABLE = "HETUFLOW_TEST_PROOF"


@function("proof.note", inline=True)
def note(context: TaskContext) -> None:
  """Append what it runs for."""
  line = (
    f"{context.job_name} {context.scheduled_at.timestamp():.6f}"
    f" {context.task_id} {context.attempt}\n"
  )
  file = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
  try:
    os.write(file, line.encode())
  finally:
    os.close(file)


@attrs.frozen
class Line:
  """One run as it was written down."""

  job: str
  scheduled_at: float
  task: str
  attempt: int


def read_proof(file: Path) -> list[Line]:
  """Read what was written down, in order."""
  return [
    Line(job, float(at), task, int(attempt))
    for job, at, task, attempt in map(str.split, file.read_text().splitlines())
  ]


def doubled(lines: list[Line]) -> list[Line]:
  """Find attempts that ran more than once."""
  return [line for line, count in Counter(lines).items() if count > 1]
