"""What takes the time in a run: functions by py-spy, statements by PostgreSQL's log.

Only threads that hold the interpreter lock count as busy: what waits for a disk, a lock
or a starting process looks busy from outside and is not. py-spy runs as one process for each sampled program, ended with SIGINT so that it writes
what it has. The log of every statement is switched on for the block, and read from where
it was.
"""

import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from attrs import define, field
from stage import Program, Stage

__all__ = ["profile_programs", "profile_statements"]

SAMPLES_PER_SECOND = 200
STOP_TIMEOUT_S = 20.0
TOP = 20
STARTING = "<frozen importlib._bootstrap>"
OURS = "hetuflow/"
_EXECUTED = re.compile(
  r"duration: (?P<ms>[\d.]+) ms  (?P<step>parse|bind|execute) [^:]*: "
  r"/\* (?P<name>\w+) \*/"
)
_FRAME = re.compile(r"(?P<function>.+) \((?P<file>[^()]*?)(:\d+)?\)")

Table = list[dict[str, Any]]


@define(kw_only=True)
class ProgramProfile:
  """Where server and agent were when they were looked at.

  Args:
    stage: whose server is sampled.
    stacks: the files py-spy writes, by program.
  """

  stage: Stage
  stacks: dict[str, str] = field(factory=dict)

  @asynccontextmanager
  async def sample(self, agent: Program) -> AsyncIterator[None]:
    """Sample the server and an agent for the block."""
    async with AsyncExitStack() as stack:
      for name, program in (("server", self.stage.server), ("agent", agent)):
        await stack.enter_async_context(self._spy(name, program.pid))
      yield

  @asynccontextmanager
  async def _spy(self, name: str, pid: int) -> AsyncIterator[None]:
    """Run py-spy on one process; does nothing where it is not installed."""
    program = _find_py_spy()
    if program is None:
      yield
      return
    file = self.stage.folder / f"{name}.stacks"
    process = await trio.lowlevel.open_process(
      [
        *(program, "record", "--pid", str(pid), "--format", "raw"),
        *("--rate", str(SAMPLES_PER_SECOND), "--duration", "600", "--gil"),
        *("--output", str(file)),
      ],
      stdin=subprocess.DEVNULL,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      start_new_session=True,
    )
    try:
      yield
    finally:
      with trio.CancelScope(shield=True):
        process.send_signal(signal.SIGINT)
        with trio.move_on_after(STOP_TIMEOUT_S):
          await process.wait()
        if process.returncode is None:
          process.kill()
          await process.wait()
        if file.exists():
          self.stacks[name] = file.read_text()

  def figures(self) -> dict[str, dict[str, Table]]:
    """Return the busiest functions of each program, by own and by whole share."""
    return {name: _shares(text) for name, text in self.stacks.items()}

  def lines(self) -> Iterator[str]:
    """Yield them for people."""
    if not self.stacks:
      yield "py-spy is not installed: nothing sampled"
    for name, tables in self.figures().items():
      for kind, rows in tables.items():
        yield f"{name}, {kind} time:"
        yield from (f"  {row['percent']:5.1f} %  {row['function']}" for row in rows)


def _find_py_spy() -> str | None:
  """Return the program, beside this Python or on the PATH."""
  beside = Path(sys.executable).with_name("py-spy")
  return str(beside) if beside.exists() else shutil.which("py-spy")


def _shares(stacks: str) -> dict[str, Table]:
  """Count functions in collapsed stacks: ``frame;frame;frame samples`` a line.

  Imports are left out: a program that has just started is still about them. Of those
  that wait for others only our own functions say something.
  """
  own: Counter[str] = Counter()
  whole: Counter[str] = Counter()
  total = 0
  for line in stacks.splitlines():
    frames, _, number = line.rpartition(" ")
    names = [_short(frame) for frame in frames.split(";") if frame]
    if not names or any(name.startswith(STARTING) for name in names):
      continue
    total += int(number)
    own[names[-1]] += int(number)
    for name in {name for name in names if name.startswith(OURS)}:
      whole[name] += int(number)
  return {"own": _top(own, total), "whole": _top(whole, total)}


def _top(counts: Counter[str], total: int) -> Table:
  """Return the most frequent as percent."""
  return [
    {"function": name, "percent": round(100 * count / total, 1)}
    for name, count in counts.most_common(TOP)
  ]


def _short(frame: str) -> str:
  """Name a function by its file from the package on, without its line."""
  match = _FRAME.fullmatch(frame)
  if match is None:
    return frame
  return f"{match['file']}:{match['function']}"


@define(kw_only=True)
class StatementProfile:
  """How often each named statement ran, and how long its steps took in all."""

  counts: Counter[str] = field(factory=Counter)
  steps: Counter[tuple[str, str]] = field(factory=Counter)

  def read(self, text: str) -> None:
    """Take what PostgreSQL logged."""
    for found in _EXECUTED.finditer(text):
      self.steps[found["name"], found["step"]] += float(found["ms"])  # type: ignore[assignment]  # a Counter adds floats too
      self.counts[found["name"]] += found["step"] == "execute"

  def figures(self) -> dict[str, dict[str, float]]:
    """Return the statements, the dearest first; milliseconds in all."""
    rows: dict[str, dict[str, float]] = {
      name: {
        "count": count,
        **{
          f"{step}_ms": round(self.steps[name, step], 1)
          for step in ("parse", "bind", "execute")
        },
      }
      for name, count in self.counts.items()
    }
    return dict(
      sorted(rows.items(), key=lambda row: -row[1]["bind_ms"] - row[1]["execute_ms"])
    )

  def lines(self) -> Iterator[str]:
    """Yield them for people."""
    yield "statements (count; ms in all to plan and bind, to execute):"
    for name, row in self.figures().items():
      yield f"  {row['count']:6}  {row['bind_ms']:9}  {row['execute_ms']:9}  {name}"


@asynccontextmanager
async def profile_programs(stage: Stage) -> AsyncIterator[ProgramProfile]:
  """Give what samples server and agent in a run."""
  yield ProgramProfile(stage=stage)


@asynccontextmanager
async def profile_statements(stage: Stage) -> AsyncIterator[StatementProfile]:
  """Log every statement for the block; its figures are there after it."""
  profile = StatementProfile()
  await _set_logging(stage, "0")
  start = stage.postgres_log.stat().st_size
  try:
    yield profile
  finally:
    with trio.CancelScope(shield=True):
      await _set_logging(stage, "-1")
  with stage.postgres_log.open("rb") as log:
    log.seek(start)
    profile.read(log.read().decode(errors="replace"))


async def _set_logging(stage: Stage, threshold: str) -> None:
  """Log statements that take so many milliseconds; -1 logs none."""
  async with stage.database.connection() as connection:
    for statement in (
      f"ALTER SYSTEM SET log_min_duration_statement = {threshold}",
      "ALTER SYSTEM SET log_parameter_max_length = 0",
      "SELECT pg_reload_conf()",
    ):
      await connection.execute_script(statement)
