"""``hetuflow up``: a server and an agent on this machine, until Ctrl-C.

Who runs it: ``run_up`` is the main task of Trio in the command's process. It owns two
processes, each supervised by a child of the tree below and restarted with backoff; what
they say goes to DATA_DIR/logs, warnings also to the terminal. Ctrl-C or SIGTERM stops
the agent, then the server with its PostgreSQL; the second one stops both at once.
"""

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import click
import trio

from hetuflow.cli.examples import load_examples
from hetuflow.cli.logfile import LogFile
from hetuflow.cli.program import Program, StartFailed
from hetuflow.client.place import find_data_dir
from hetuflow.errors import Refused, SettingsError
from hetuflow.logs import configure_logging
from hetuflow.nursery import Backoff, Child, Group, Restart, Supervisor
from hetuflow.nursery import main as run_program
from hetuflow.nursery.shutdown import run_until_signal
from hetuflow.ready import read_ready, ready_files

__all__ = ["Launch", "up"]

POLL_S = 0.05
DRAIN_TIMEOUT_S = 90.0
AGENT_DRAIN_TIMEOUT_S = 60.0
SERVER_DRAIN_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0


@attrs.define(kw_only=True)
class Launch:
  """What is started, and with what.

  Args:
    data_dir: shared by server and agent.
    host, port: where the server listens; None leaves it to its settings.
    concurrency: tasks the agent runs at once; None leaves it to its settings.
    examples: whether the first start loads examples.
    url: of the server, known once it serves.
  """

  data_dir: Path
  host: str | None = None
  port: int | None = None
  concurrency: int | None = None
  examples: bool = True
  url: str | None = None

  def server_arguments(self) -> list[str]:
    """Return the server's arguments; a restarted one keeps its port."""
    port = urlsplit(self.url).port if self.url else self.port
    return [
      *("--data-dir", str(self.data_dir)),
      *(("--host", self.host) if self.host else ()),
      *(("--port", str(port)) if port is not None else ()),
    ]

  def agent_arguments(self) -> list[str]:
    """Return the agent's arguments: the gateway of this server, the same folder."""
    gateway = f"{self.url}/ws".replace("http", "ws", 1)
    limit = self.concurrency
    return [
      *("--data-dir", str(self.data_dir), "--server", gateway),
      *(("--max-concurrent", str(limit)) if limit is not None else ()),
    ]

  async def server_ready(self, pid: int) -> None:
    """Wait until the server of this pid has said where it serves."""
    while (url := self._url_of(pid)) is None:  # noqa: ASYNC110 - it tells by a file
      await trio.sleep(POLL_S)
    self.url = url

  def _url_of(self, pid: int) -> str | None:
    """Return the URL that the server with this pid has written, None while it has not."""
    for file in ready_files(self.data_dir):
      with suppress(OSError, ValueError):
        ready = read_ready(file)
        # What a killed server has left may name a pid that is ours by now.
        if ready is not None and ready.is_running and ready.pid == pid:
          return ready.url
    return None

  async def agent_ready(self, pid: int) -> None:
    """Wait for nothing: an agent connects when it can."""
    await trio.lowlevel.checkpoint()


def up_tree(launch: Launch, server: Program, agent: Program) -> Group:
  """Return the tree of ``up``."""
  patient = Restart.on_crash(
    backoff=Backoff(initial=0.5, maximum=10.0),
    max_restarts=8,
    period=300.0,
    fatal=(StartFailed, Refused, SettingsError),
  )
  examples = functools.partial(run_examples, launch)
  return Group(
    "up",
    [
      Child(
        "server",
        server.run,
        doc="python -m hetuflow.server, with its PostgreSQL",
        restart=patient,
        drain=server.drain,
        drain_timeout=SERVER_DRAIN_TIMEOUT_S,
        stop_timeout=STOP_TIMEOUT_S,
      ),
      Child("examples", examples, doc="jobs for an empty namespace, once"),
      Child(
        "agent",
        agent.run,
        doc="python -m hetuflow.agent",
        restart=patient,
        drain=functools.partial(drain_agent, agent),
        drain_timeout=AGENT_DRAIN_TIMEOUT_S,
        stop_timeout=STOP_TIMEOUT_S,
      ),
    ],
  )


async def run_examples(launch: Launch, *, task_status: trio.TaskStatus[None]) -> None:
  """Load the examples where they are wanted; a failure is told and stops nothing."""
  if launch.examples and launch.url is not None:
    names, problem = await load_examples(launch.url, launch.data_dir)
    if problem:
      tell(f"examples not loaded: {problem}", err=True)
    if names:
      tell(f"loaded examples: {', '.join(names)}")
  task_status.started()


async def drain_agent(agent: Program) -> None:
  """Drain the agent, and say so: what runs may keep it for a while."""
  tell("stopping: what runs may finish; a second Ctrl-C ends it at once")
  await agent.drain()


def tell(text: str, *, err: bool = False) -> None:
  """Print a line; a terminal that has gone is no reason to stop."""
  with suppress(OSError):
    click.echo(text, err=err)


class _Greeting:
  """Greets once everything has started."""

  def __init__(self, launch: Launch) -> None:
    self._launch = launch

  def started(self, value: None = None) -> None:
    """Print where the console is and how to go on."""
    tell(f"hetuflow serves at {self._launch.url}")
    tell(f"data and logs: {self._launch.data_dir}")
    tell("look with `hetuflow status` and `hetuflow logs hello`; Ctrl-C ends it")


@contextmanager
def open_logs(folder: Path) -> Iterator[tuple[LogFile, LogFile]]:
  """Open the logs of server and agent.

  Raises:
    SettingsError: they cannot be written there.
  """
  with ExitStack() as stack:
    try:
      server, agent = (
        stack.enter_context(LogFile(folder / name))
        for name in ("server.log", "agent.log")
      )
    except OSError as error:
      raise SettingsError(
        f"{folder}: expected a folder to write to: {error.strerror}"
      ) from error
    yield server, agent


async def run_up(launch: Launch) -> int:
  """Run server and agent until a signal; return the exit code."""
  show = functools.partial(tell, err=True)
  with open_logs(launch.data_dir / "logs") as (server_log, agent_log):
    server = Program(
      "hetuflow.server",
      launch.server_arguments,
      ready=launch.server_ready,
      log=server_log,
      show=show,
    )
    agent = Program(
      "hetuflow.agent",
      launch.agent_arguments,
      ready=launch.agent_ready,
      log=agent_log,
      show=show,
    )
    supervisor = Supervisor(up_tree(launch, server, agent))
    return await run_until_signal(
      supervisor, drain_timeout=DRAIN_TIMEOUT_S, task_status=_Greeting(launch)
    )


@click.command("up")
@click.option("--host", help="Where the server listens.")
@click.option("--port", type=click.IntRange(0, 65_535), help="0 takes any free one.")
@click.option("--data-dir", type=click.Path(file_okay=False, path_type=Path))
@click.option("--agent-concurrency", type=click.IntRange(1), help="Tasks at once.")
@click.option("--no-examples", is_flag=True, help="Begin with nothing.")
@click.pass_context
def up(
  ctx: click.Context,
  host: str | None,
  port: int | None,
  data_dir: Path | None,
  agent_concurrency: int | None,
  no_examples: bool,
) -> None:
  """Start a server and an agent on this machine."""
  # What the supervisor would log of a crash, ``Program`` tells with its last lines.
  configure_logging("critical", "auto")
  launch = Launch(
    data_dir=find_data_dir(data_dir).absolute(),
    host=host,
    port=port,
    concurrency=agent_concurrency,
    examples=not no_examples,
  )
  ctx.exit(run_program(run_up, launch))
