"""Real servers and agents for tests: processes started, watched and stopped.

They are outside of Trio's reach, so waiting for them is polling, at short intervals and
within bounds. A program that fails raises with the end of its log. Nothing outlives the
block that started it, not even the PostgreSQL of a server that was killed. A process
belongs to no Trio run: what a fixture started before a test can be used in it.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil
import trio

from hetuflow.client import AsyncClient, Place
from hetuflow.client.calls import system

ROOT = Path(__file__).parents[2]
POLL_S = 0.02
START_S = 60.0
STOP_S = 60.0
LOG_TAIL = 4_000
"""Characters of a log that a failure shows."""


class ProgramFailed(AssertionError):
  """A program did not do what the test relies on."""


async def wait_until(
  condition: Callable[[], Any], within: float = 10.0, *, every: float = POLL_S
) -> Any:
  """Look again and again until the condition is true, and return what it gave.

  The condition may be a plain or an async function. ``TooSlowError`` after ``within``
  seconds.
  """
  with trio.fail_after(within):
    while True:
      found = condition()
      if isinstance(found, Awaitable):
        found = await found
      if found:
        return found
      await trio.sleep(every)


def environment(**more: str) -> dict[str, str]:
  """Return this environment with the programs' code in reach and no settings of ours."""
  kept = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith("HETUFLOW_")
  }
  return {**kept, "PYTHONPATH": str(ROOT), **more}


class Program:
  """A process of ``python -m MODULE`` in a session of its own, its output in a file."""

  def __init__(
    self,
    module: str,
    *arguments: object,
    data_dir: Path,
    name: str,
    env: dict[str, str] | None = None,
  ) -> None:
    self.data_dir = data_dir
    self.name = name
    logs = data_dir / "test-logs"
    logs.mkdir(exist_ok=True)
    number = len(list(logs.iterdir()))
    self.log_file = logs / f"{number}-{name}.log"
    with self.log_file.open("wb") as log:
      self.process = self._start(module, arguments, log, env or {})

  def _start(
    self,
    module: str,
    arguments: tuple[object, ...],
    log: IO[bytes],
    env: dict[str, str],
  ) -> subprocess.Popen[bytes]:
    """Start the process."""
    return subprocess.Popen(
      [sys.executable, "-m", module, *map(str, arguments)],
      cwd=self.data_dir,
      env=environment(**env),
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=subprocess.STDOUT,
      start_new_session=True,
    )

  @property
  def pid(self) -> int:
    """The id of the process."""
    return self.process.pid

  @property
  def is_running(self) -> bool:
    """Whether it has not ended yet."""
    return self.process.poll() is None

  def log_text(self) -> str:
    """Read all it has said."""
    return self.log_file.read_text("utf-8", errors="replace")

  def events(self, event: str) -> list[dict[str, Any]]:
    """Read the events of a name out of its log."""
    lines = self.log_text().splitlines()
    said = [json.loads(line) for line in lines if line.startswith("{")]
    return [each for each in said if each.get("event") == event]

  def failure(self, what: str) -> ProgramFailed:
    """Make an error with the end of the log."""
    return ProgramFailed(f"{self.name} {what}; it said:\n{self.log_text()[-LOG_TAIL:]}")

  async def wait_for(
    self,
    condition: Callable[[], Any],
    within: float = START_S,
    what: str = "is not ready",
  ) -> Any:
    """Wait until a condition is true while the program runs."""

    def look() -> Any:
      """Look once; a program that has ended never gets there."""
      if not (found := condition()) and not self.is_running:
        raise self.failure(f"ended with code {self.process.returncode}")
      return found

    try:
      return await wait_until(look, within)
    except trio.TooSlowError:
      raise self.failure(f"{what} after {within:g} s") from None

  async def wait(self, within: float = STOP_S) -> int:
    """Wait until it has ended and return its exit code."""
    try:
      await wait_until(lambda: not self.is_running, within)
    except trio.TooSlowError:
      raise self.failure(f"has not ended after {within:g} s") from None
    assert self.process.returncode is not None
    return self.process.returncode

  async def terminate(self, within: float = STOP_S) -> int:
    """Send SIGTERM, wait for the end, and return the exit code."""
    self.process.send_signal(signal.SIGTERM)
    return await self.wait(within)

  async def interrupt(self, within: float = STOP_S) -> int:
    """Send SIGINT as Ctrl-C does, wait for the end, and return the exit code."""
    self.process.send_signal(signal.SIGINT)
    return await self.wait(within)

  def kill(self) -> None:
    """Send SIGKILL and take the process from the table; its children live on."""
    self.process.kill()
    self.process.wait()

  def suspend(self) -> None:
    """Stop it as SIGSTOP does, until ``resume``."""
    self.process.send_signal(signal.SIGSTOP)

  def resume(self) -> None:
    """Let a suspended process go on."""
    self.process.send_signal(signal.SIGCONT)

  def children(self) -> list[psutil.Process]:
    """List all living descendants."""
    with suppress(psutil.NoSuchProcess):
      return psutil.Process(self.pid).children(recursive=True)
    return []

  async def dispose(self) -> None:
    """End it and what it started, whatever state it is in."""
    family = self.children()
    if self.is_running:
      self.resume()
      with suppress(ProgramFailed):
        await self.terminate(within=20.0)
    if self.is_running:
      self.kill()
    for process in family:
      with suppress(psutil.NoSuchProcess):
        process.kill()


class Server(Program):
  """``python -m hetuflow.server``; ``url`` is there once it serves."""

  url = ""
  server_id = ""

  async def ready(self) -> None:
    """Wait until it serves."""
    said = await self.wait_for(lambda: _said_by(self.data_dir, self.pid))
    self.url, self.server_id = said["url"], said["server_id"]

  @property
  def gateway(self) -> str:
    """The address of its WebSocket."""
    return self.url.replace("http", "ws", 1) + "/ws"

  @property
  def port(self) -> int:
    """The port it listens on."""
    return int(self.url.rpartition(":")[2])

  @property
  def key(self) -> str:
    """The administrator's key."""
    return (self.data_dir / "admin.key").read_text().strip()

  @property
  def token(self) -> str:
    """The join token of the namespace ``default``."""
    return (self.data_dir / "agent.token").read_text().strip()

  @property
  def place(self) -> Place:
    """Where it is, and the key to it."""
    return Place(url=self.url, key=self.key)


class Agent(Program):
  """``python -m hetuflow.agent``."""

  async def ready(self, server: Server) -> None:
    """Wait until the server says that it is online and this very start of it."""
    await self.wait_for(lambda: self.events("session_opened"))
    async with AsyncClient(server.place) as client:

      async def is_online() -> bool:
        """Ask for it by name."""
        found = await client.send(system.list_agents(name=self.name, status="online"))
        return bool(found.items)

      await wait_until(is_online)


class Up(Server):
  """``hetuflow up``; ``url`` is there once it serves."""

  async def ready(self) -> None:
    """Wait until it has greeted."""
    await self.wait_for(lambda: "hetuflow serves at" in self.log_text())
    self.url = json.loads((self.data_dir / "server.json").read_text())["url"]

  def child(self, module: str) -> psutil.Process | None:
    """Find the running server or agent by its module."""
    for process in self.children():
      with suppress(psutil.Error):
        if module in process.cmdline():
          return process
    return None


def _said_by(data_dir: Path, pid: int) -> dict[str, Any] | None:
  """Return what the server of a pid says in its file, None while there is none."""
  for file in data_dir.glob("servers/*.json"):
    with suppress(OSError, ValueError):
      said: dict[str, Any] = json.loads(file.read_text("utf-8"))
      if said.get("pid") == pid:
        return said
  return None


# ── what tests call ─────────────────────────────────────────────────────────────────


async def start_server(
  data_dir: Path,
  *flags: object,
  database_url: str | None = None,
  name: str = "server",
  env: dict[str, str] | None = None,
) -> Server:
  """Start a server and wait until it serves; on port 0 unless a flag says otherwise."""
  server = Server(
    "hetuflow.server",
    *("--data-dir", data_dir, "--name", name, "--log-format", "json"),
    *(() if "--port" in flags else ("--port", 0)),
    *(("--database-url", database_url) if database_url else ()),
    *flags,
    data_dir=data_dir,
    name=name,
    env=env,
  )
  await _ready_or_gone(server, server.ready)
  return server


async def start_agent(
  server: Server,
  *flags: object,
  name: str = "agent",
  data_dir: Path | None = None,
  wait: bool = True,
  env: dict[str, str] | None = None,
) -> Agent:
  """Start an agent of a server and wait until it is online.

  It shares the server's folder unless it is given its own, where it then needs a
  ``--token``. ``wait=False`` returns at once.
  """
  agent = Agent(
    "hetuflow.agent",
    *("--data-dir", data_dir or server.data_dir, "--name", name),
    *(() if "--server" in flags else ("--server", server.gateway)),
    *("--log-format", "json", *flags),
    data_dir=data_dir or server.data_dir,
    name=name,
    env=env,
  )
  if wait:
    await _ready_or_gone(agent, lambda: agent.ready(server))
  return agent


async def start_up(
  data_dir: Path, *flags: object, env: dict[str, str] | None = None
) -> Up:
  """Start ``hetuflow up`` on any free port and wait until it greets."""
  up = Up(
    "hetuflow",
    *("up", "--port", 0, "--data-dir", data_dir, *flags),
    data_dir=data_dir,
    name="up",
    env=env,
  )
  await _ready_or_gone(up, up.ready)
  return up


async def _ready_or_gone(
  program: Program, ready: Callable[[], Awaitable[None]]
) -> None:
  """Wait until a program is ready; end it if it never is."""
  try:
    await ready()
  except BaseException:
    await dispose(program)
    raise


async def dispose(program: Program) -> None:
  """End a program though the test around it is being cancelled."""
  with trio.CancelScope(shield=True):
    await program.dispose()


@asynccontextmanager
async def running_server(
  data_dir: Path, *flags: object, **options: Any
) -> AsyncIterator[Server]:
  """Run a server for the block; see ``start_server``."""
  server = await start_server(data_dir, *flags, **options)
  try:
    yield server
  finally:
    await dispose(server)


@asynccontextmanager
async def running_agent(
  server: Server, *flags: object, **options: Any
) -> AsyncIterator[Agent]:
  """Run an agent for the block; see ``start_agent``."""
  agent = await start_agent(server, *flags, **options)
  try:
    yield agent
  finally:
    await dispose(agent)


@asynccontextmanager
async def running_up(
  data_dir: Path, *flags: object, **options: Any
) -> AsyncIterator[Up]:
  """Run ``hetuflow up`` for the block; see ``start_up``."""
  up = await start_up(data_dir, *flags, **options)
  try:
    yield up
  finally:
    await dispose(up)


def client_of(server: Server) -> AsyncClient:
  """Make a client with the administrator's key; use it as an async context manager."""
  return AsyncClient(server.place)


# ── folders ─────────────────────────────────────────────────────────────────────────


@contextmanager
def data_folder() -> Iterator[Path]:
  """Lend a DATA_DIR that PostgreSQL's account can enter too, with a short path.

  At the end a PostgreSQL that was left running in it is stopped.
  """
  folder = Path(tempfile.mkdtemp(prefix="hetu-", dir="/tmp"))
  folder.chmod(0o755)
  try:
    yield folder
  finally:
    if postmaster := postmaster_of(folder):
      postmaster.send_signal(signal.SIGQUIT)
      with suppress(psutil.TimeoutExpired):
        postmaster.wait(10)
    home = folder / "postgres"
    if home.is_symlink():
      shutil.rmtree(home.resolve(), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def postmaster_of(data_dir: Path) -> psutil.Process | None:
  """Find the running postmaster of a DATA_DIR."""
  try:
    lines = (data_dir / "postgres" / "data" / "postmaster.pid").read_text().split("\n")
    process = psutil.Process(int(lines[0]))
    ours = any("postgres" in word for word in process.cmdline()[:1])
  except (OSError, ValueError, psutil.NoSuchProcess):
    return None
  return process if ours else None
