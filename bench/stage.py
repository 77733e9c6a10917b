"""A whole installation to measure: a server with its PostgreSQL, and agents.

Who runs it: a benchmark, inside ``open_stage``. It owns a temporary folder directly under
/tmp (mode 755, for PostgreSQL runs as another user when we are root), a server and any
agents, each a process in a session of its own, ended by its pid. When the block is left,
by Ctrl-C too, agents end first, then the server with its PostgreSQL, then the folder
goes. A process that ends while it is needed fails the benchmark with its last lines.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import trio
from attrs import define, field, frozen

from hetuflow.client import AsyncClient, find_server
from hetuflow.client.calls import jobs, system, tasks
from hetuflow.protocol.model import Job
from hetuflow.storage.connect import Database, StorageSettings, open_storage
from hetuflow.storage.embedded.layout import Layout
from hetuflow.storage.embedded.postmaster import find_postmaster, stop_postmaster

__all__ = ["Cpu", "Program", "Stage", "open_stage"]

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
POLL_S = 0.02
BATCH = 5_000
"""Tasks of one POST, well within what one statement may take."""
LAST_CHARACTERS = 2_000


@frozen(kw_only=True)
class Cpu:
  """CPU seconds so far, user and system, of each part of an installation."""

  server: float
  agent: float
  postgres: float

  def since(self, before: "Cpu", *, per: float) -> dict[str, float]:
    """Return what was used since an earlier reading, divided by ``per``."""
    return {
      name: round((getattr(self, name) - getattr(before, name)) / per, 4)
      for name in ("server", "agent", "postgres")
    }


class Program:
  """A started ``python -m MODULE`` with its log."""

  def __init__(self, process: trio.Process, log: Path) -> None:
    self.process = process
    self.log = log

  @property
  def pid(self) -> int:
    """Its process id."""
    return self.process.pid

  def check(self) -> None:
    """Demand that it still runs.

    Raises:
      RuntimeError: it has ended; says its last lines.
    """
    if self.process.returncode is not None:
      said = self.log.read_text(errors="replace")[-LAST_CHARACTERS:]
      raise RuntimeError(f"{self.log.stem} ended: {said}")

  def cpu_seconds(self) -> float:
    """Return the CPU seconds of it, its children, and those it has waited for."""
    root = psutil.Process(self.pid)
    return sum(_cpu_of(each) for each in (root, *root.children(recursive=True)))


@asynccontextmanager
async def run_program(
  module: str, arguments: Sequence[str], log: Path
) -> AsyncIterator[Program]:
  """Run a module of hetuflow for the block; then SIGTERM, and SIGKILL if that fails."""
  with log.open("ab") as output:
    process = await trio.lowlevel.open_process(
      [sys.executable, "-m", module, *arguments],
      stdin=subprocess.DEVNULL,
      stdout=output,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )
  try:
    yield Program(process, log)
  finally:
    with trio.CancelScope(shield=True):
      process.terminate()
      with trio.move_on_after(STOP_TIMEOUT_S):
        await process.wait()
      if process.returncode is None:
        process.kill()
        await process.wait()


@define(kw_only=True)
class Stage:
  """A running installation.

  Args:
    folder: its DATA_DIR.
    client: an administrator's.
    database: the server's own database, to look from behind.
    server: the process.
    agents: how many there have been, for their logs.
  """

  folder: Path
  client: AsyncClient
  database: Database
  server: Program
  agents: int = field(default=0)

  @property
  def postgres_log(self) -> Path:
    """What the embedded PostgreSQL says."""
    return self.folder / "postgres" / "postgres.log"

  @asynccontextmanager
  async def agent(self, *arguments: str) -> AsyncIterator[Program]:
    """Run an agent for the block; it may not be connected yet when that begins."""
    self.agents += 1
    gateway = self.client.place.url.replace("http", "ws", 1) + "/ws"
    options = ["--server", gateway, "--data-dir", str(self.folder), *arguments]
    log = self.folder / f"agent-{self.agents}.log"
    async with run_program("hetuflow.agent", options, log) as program:
      yield program

  async def wait_online(self, agent: Program) -> None:
    """Wait until an agent is connected."""
    with trio.fail_after(START_TIMEOUT_S):
      while not (await self.client.send(system.list_agents(status="online"))).items:
        agent.check()
        await trio.sleep(POLL_S)

  async def make_job(self, name: str, config: dict[str, Any], **more: Any) -> Job:
    """Make a job."""
    body = {"name": name, "config": config, **more}
    return await self.client.send(jobs.create_job(body))

  async def make_tasks(self, items: Sequence[dict[str, Any]]) -> None:
    """Make tasks by as many calls of POST /tasks/batch as it takes."""
    for start in range(0, len(items), BATCH):
      await self.client.send(tasks.create_tasks(items[start : start + BATCH]))

  def cpu(self, agent: Program) -> Cpu:
    """Read the CPU seconds of all parts."""
    home = _layout(self.folder).home()
    postmaster = find_postmaster(home) if home else None
    family = []
    if postmaster is not None:
      root = postmaster.process
      family = [root, *root.children(recursive=True)]
    return Cpu(
      server=self.server.cpu_seconds(),
      agent=agent.cpu_seconds(),
      postgres=sum(map(_cpu_of, family)),
    )


def _cpu_of(process: psutil.Process) -> float:
  """Return the CPU seconds of a process and of the children it has waited for."""
  try:
    return float(sum(process.cpu_times()[:4]))
  except psutil.NoSuchProcess:
    return 0.0


def _layout(folder: Path) -> Layout:
  """Say where the files of an embedded PostgreSQL lie."""
  return Layout(data_dir=folder, state_dir=folder)


@asynccontextmanager
async def open_stage() -> AsyncIterator[Stage]:
  """Run a fresh server for the block, in a temporary folder."""
  folder = _make_folder()
  options = ["--port", "0", "--data-dir", str(folder)]
  try:
    async with run_program("hetuflow.server", options, folder / "server.log") as server:
      await _wait_announced(folder, server)
      async with _connect(folder, server) as stage:
        yield stage
  finally:
    with trio.CancelScope(shield=True):
      await _remove(folder)


def _make_folder() -> Path:
  """Make a folder that another user's PostgreSQL can reach."""
  folder = Path(tempfile.mkdtemp(prefix="hfbench-", dir="/tmp"))
  folder.chmod(0o755)
  return folder


async def _wait_announced(folder: Path, server: Program) -> None:
  """Wait until the server has said where it serves."""
  announced = folder / "server.json"
  with trio.fail_after(START_TIMEOUT_S):
    while not announced.exists() or not json.loads(announced.read_text() or "{}"):
      server.check()
      await trio.sleep(POLL_S)


@asynccontextmanager
async def _connect(folder: Path, server: Program) -> AsyncIterator[Stage]:
  """Open the way in through the API, and the one behind."""
  layout = _layout(folder)
  home = layout.home()
  if home is None:
    raise RuntimeError("the server has made no PostgreSQL of its own")
  settings = StorageSettings(
    dsn=layout.dsn(home),
    pool_size=2,
    statement_timeout=60.0,
    application_name="hetuflow bench",
  )
  async with (
    open_storage(settings) as database,
    AsyncClient(find_server(data_dir=folder)) as client,
  ):
    yield Stage(folder=folder, client=client, database=database, server=server)


async def _remove(folder: Path) -> None:
  """Leave nothing behind, not even where the server had to be killed."""
  home = _layout(folder).home()
  if home is not None:
    await stop_postmaster(home)
  await trio.to_thread.run_sync(shutil.rmtree, folder)
