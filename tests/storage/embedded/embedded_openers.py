"""What the tests of the embedded PostgreSQL share: other servers, and a look around."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

import hetuflow
from hetuflow.storage.embedded import Cluster

NOBODY = 65534
LIMIT_SECONDS = 60
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

# Another server: opens the database, says the postmaster's pid, leaves at end of input.
# It gives up root only after the imports: the interpreter may lie below /root.
OPENER = """
import os, sys
from pathlib import Path
import trio, psutil, structlog
from hetuflow.storage.embedded import open_embedded

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
folder, uid = Path(sys.argv[1]), int(sys.argv[2])
if uid != os.geteuid():
  os.setgroups([])
  os.setgid(uid)
  os.setuid(uid)

async def main():
  async with open_embedded(folder) as cluster:
    statistics = cluster.statistics()
    print(statistics.pid, statistics.user, flush=True)
    await trio.to_thread.run_sync(sys.stdin.read)

trio.run(main)
"""

# Another server, killed just before or after it links a new home into DATA_DIR.
VICTIM = """
import os, signal, sys
from pathlib import Path
import trio
from hetuflow.storage.embedded import initialise, open_embedded

folder, state, when = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
link = initialise._link

def link_and_die(entry, place):
  if when == "after":
    link(entry, place)
  os.kill(os.getpid(), signal.SIGKILL)

initialise._link = link_and_die

async def main():
  async with open_embedded(folder, state_dir=state):
    pass

trio.run(main)
"""


def server_processes(folder: Path) -> list[psutil.Process]:
  """The living PostgreSQL processes that work below the folder."""
  return [
    process
    for process in psutil.process_iter(["cwd", "status"])
    if process.info["status"] != psutil.STATUS_ZOMBIE
    and (process.info["cwd"] or "").startswith(f"{folder}/")
  ]


def made(folder: Path, pattern: str) -> bool:
  """Whether something of this name is in the folder by now."""
  return any(folder.glob(pattern))


def homes_below(folder: Path) -> list[Path]:
  """The homes of databases in a folder."""
  return [path.parent for path in folder.glob("*/data")]


async def query(cluster: Cluster, sql: str) -> str:
  """The answer of psql."""
  command = [cluster.binaries / "psql", cluster.dsn, "-XAtc", sql]
  result = await trio.run_process(command, capture_stdout=True)
  return result.stdout.decode().strip()


async def start_process(
  nursery: trio.Nursery, command: list[str | Path], **options: Any
) -> trio.Process:
  """Run a command in the background; its exit code is the test's affair."""
  run = partial(trio.run_process, command, check=False, **options)
  process: trio.Process = await nursery.start(run)
  return process


@asynccontextmanager
async def opener(folder: Path, uid: int | None = None) -> AsyncIterator[trio.Process]:
  """Another server with the same DATA_DIR, until the block ends."""
  async with trio.open_nursery() as nursery:
    process = await start_process(
      nursery,
      [sys.executable, "-c", OPENER, folder, str(os.geteuid() if uid is None else uid)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      env={**os.environ, "PYTHONPATH": str(Path(hetuflow.__file__).parents[1])},
    )
    yield process
    if process.returncode is None:
      await process.stdin.aclose()


async def said(process: trio.Process) -> list[str]:
  """The words of the line an opener prints once the database is open."""
  line = b""
  async for part in process.stdout:
    line += part
    if line.endswith(b"\n"):
      break
  return line.decode().split()
