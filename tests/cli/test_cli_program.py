"""The programs of ``hetuflow up`` as real processes: started, heard, stopped."""

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from hetuflow.cli import program as module
from hetuflow.cli.examples import read_examples
from hetuflow.cli.logfile import LogFile, summary_of
from hetuflow.cli.program import Program, ProgramEnded, StartFailed
from hetuflow.cli.up import Launch, open_logs, up_tree
from hetuflow.errors import HetuflowError, SettingsError
from hetuflow.nursery import render
from hetuflow.ready import publish_ready
from hetuflow.schedule import CronExpression

LIMIT_S = 20.0
PRELUDE = """
import json, os, pathlib, signal, sys, time
seen = lambda: pathlib.Path(sys.argv[1]).with_name("seen").exists()
ready = lambda: pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
say = lambda *words: print(*words, flush=True)
"""


class Stage:
  """Runs one script as a program and keeps what it says."""

  def __init__(self, folder: Path) -> None:
    self.folder = folder
    self.flag = folder / "ready"
    self.shown: list[str] = []
    self.log = LogFile(folder / "logs" / "program.log")

  def program(self, script: str) -> Program:
    """Write the script and return the program that runs it."""
    (self.folder / "hetu_script.py").write_text(PRELUDE + script)
    return Program(
      "hetu_script",
      lambda: [str(self.flag)],
      ready=self._wait_ready,
      log=self.log,
      show=self.shown.append,
    )

  async def _wait_ready(self, pid: int) -> None:
    """Wait until the script of this pid says it is ready."""
    while not self.is_ready(pid):  # noqa: ASYNC110 - it tells by a file
      await trio.sleep(0.01)
    self.flag.with_name("seen").touch()

  def is_ready(self, pid: int) -> bool:
    """Tell whether the script of this pid has said so."""
    return self.flag.exists() and self.flag.read_text() == str(pid)

  async def run(self, script: str) -> None:
    """Run a script that ends by itself, and raise what the program raises."""
    with trio.fail_after(LIMIT_S):
      await self.program(script).run()

  @asynccontextmanager
  async def running(self, script: str) -> AsyncIterator[tuple[Program, int, Any]]:
    """Run a script until the block ends; give program, pid and the scope around it."""
    program = self.program(script)
    scope = trio.CancelScope()

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
      """Run it inside the scope."""
      with scope:
        await program.run(task_status=task_status)

    with trio.fail_after(LIMIT_S):
      async with trio.open_nursery() as nursery:
        await nursery.start(run)
        yield program, int(self.flag.read_text()), scope


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
  """Make a stage whose scripts Python finds."""
  monkeypatch.setenv("PYTHONPATH", str(tmp_path))
  stage = Stage(tmp_path)
  with stage.log:
    yield stage


def leaf(error: BaseException) -> BaseException:
  """Return the one exception inside groups."""
  while isinstance(error, BaseExceptionGroup):
    [error] = error.exceptions
  return error


async def raised(stage: Stage, script: str) -> HetuflowError:
  """Return what a script's program raises."""
  with pytest.raises((HetuflowError, BaseExceptionGroup)) as error:
    await stage.run(script)
  found = leaf(error.value)
  assert isinstance(found, HetuflowError)
  return found


def is_alive(pid: int) -> bool:
  """Tell whether a process is there."""
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  return True


async def test_a_program_that_dies_at_its_start_shows_its_last_words(
  stage: Stage,
) -> None:
  error = await raised(stage, "say('first'); say('port in use'); sys.exit(1)")
  assert isinstance(error, StartFailed)
  assert "ended with code 1" in str(error)
  assert str(error).endswith("\n  first\n  port in use")


async def test_wrong_settings_of_a_program_are_wrong_settings_of_ours(
  stage: Stage,
) -> None:
  error = await raised(stage, "say('app.toml: unknown key'); sys.exit(2)")
  assert isinstance(error, SettingsError)
  assert "app.toml: unknown key" in str(error)


async def test_a_program_that_ends_unasked_may_be_started_again(stage: Stage) -> None:
  script = """
ready()
while not seen(): time.sleep(0.01)
sys.exit(2)
"""
  error = await raised(stage, script)
  assert isinstance(error, ProgramEnded)


async def test_a_program_that_never_gets_ready_is_given_up(
  stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(module, "READY_TIMEOUT_S", 0.2)
  error = await raised(stage, "time.sleep(60)")
  assert isinstance(error, StartFailed)
  assert "not ready" in str(error)


async def test_a_drained_program_ends_in_its_own_way(stage: Stage) -> None:
  script = """
signal.signal(signal.SIGTERM, lambda *_: (say('farewell'), sys.exit(0)))
ready()
while True: time.sleep(0.05)
"""
  async with stage.running(script) as (program, pid, _):
    await program.drain()
  assert not is_alive(pid)
  assert "farewell" in stage.log.path.read_text()


async def test_a_program_lives_in_a_session_of_its_own(stage: Stage) -> None:
  async with stage.running("ready(); time.sleep(60)") as (program, pid, _):
    assert os.getsid(pid) == pid
    await program.drain()


async def test_a_cancelled_program_that_heeds_no_signal_is_killed(
  stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(module, "PATIENCE_S", (0.1, 0.1))
  script = "signal.signal(signal.SIGTERM, signal.SIG_IGN); ready(); time.sleep(60)"
  async with stage.running(script) as (_, pid, scope):
    scope.cancel()
  assert not is_alive(pid)


async def test_a_second_sigterm_is_sent_before_the_kill(
  stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(module, "PATIENCE_S", (0.2, 10.0))
  script = """
count = []
def heed(*_):
  count.append(1)
  if len(count) == 2: say('at once'); sys.exit(1)
signal.signal(signal.SIGTERM, heed)
ready()
while True: time.sleep(0.05)
"""
  async with stage.running(script) as (_, pid, scope):
    scope.cancel()
  assert not is_alive(pid)
  assert "at once" in stage.log.path.read_text()


async def test_what_a_program_logs_is_kept_and_its_warnings_are_shown(
  stage: Stage,
) -> None:
  script = """
say(json.dumps({'event': 'ready', 'level': 'info'}))
say(json.dumps({'event': 'clock_off', 'level': 'warning', 'ms': 300, 'timestamp': 'x'}))
ready()
while True: time.sleep(0.05)
"""
  async with stage.running(script) as (program, _, _):
    await program.drain()
  assert stage.shown == ["hetu_script: warning: clock_off ms=300"]
  assert stage.log.path.read_text().count("\n") == 2


async def test_a_process_left_behind_holds_up_nothing(stage: Stage) -> None:
  script = """
import subprocess
child = subprocess.Popen(['sleep', '60'])
say('child', child.pid)
sys.exit(1)
"""
  error = await raised(stage, script)
  [line] = [line for line in str(error).splitlines() if "child" in line]
  os.kill(int(line.split()[-1]), signal.SIGKILL)


def test_only_events_that_warn_are_shown() -> None:
  assert summary_of('{"level": "info", "event": "ready"}') is None
  assert summary_of("[1, 2]") is None
  assert summary_of("plain text") is None
  assert summary_of('{"level": "error", "event": "lost", "id": 5}') == (
    "error: lost id=5"
  )


def test_a_log_file_stays_below_its_size(tmp_path: Path) -> None:
  path = tmp_path / "logs" / "server.log"
  with LogFile(path, max_size=100) as log:
    for number in range(50):
      log.write(f"line {number}".encode())
  assert path.stat().st_size < 100
  old = path.with_name("server.log.1")
  assert old.stat().st_size <= 100
  lines = (old.read_text() + path.read_text()).splitlines()
  assert lines[-1] == "line 49"
  assert lines == [f"line {number}" for number in range(50 - len(lines), 50)]


def launch(folder: Path, **words: Any) -> Launch:
  """Return a launch in a folder."""
  return Launch(data_dir=folder, **words)


def test_a_restarted_server_keeps_the_port_it_was_given(tmp_path: Path) -> None:
  start = launch(tmp_path, port=0)
  assert start.server_arguments()[-2:] == ["--port", "0"]
  start.url = "http://127.0.0.1:45678"
  assert start.server_arguments()[-2:] == ["--port", "45678"]
  assert "ws://127.0.0.1:45678/ws" in start.agent_arguments()


async def test_the_server_is_known_by_its_pid(tmp_path: Path) -> None:
  start = launch(tmp_path)
  (tmp_path / "servers").mkdir()
  (tmp_path / "servers" / "half.json").write_text('{"url": "ht')
  with (
    publish_ready(
      tmp_path / "servers" / "other.json", b'{"url": "http://o", "pid": 1}'
    ),
    publish_ready(
      tmp_path / "servers" / "own.json", b'{"url": "http://new/", "pid": 77}'
    ),
  ):
    with trio.fail_after(LIMIT_S):
      await start.server_ready(77)
  assert start.url == "http://new"


async def test_what_a_killed_server_with_the_same_pid_has_left_is_not_believed(
  tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
  (tmp_path / "servers").mkdir()
  (tmp_path / "servers" / "dead.json").write_text('{"url": "http://old", "pid": 77}')
  start = launch(tmp_path)
  with trio.move_on_after(1) as limit:
    await start.server_ready(77)
  assert limit.cancelled_caught
  own = tmp_path / "servers" / "own.json"
  with publish_ready(own, b'{"url": "http://new", "pid": 77}'):
    await start.server_ready(77)
  assert start.url == "http://new"


def test_a_folder_that_cannot_be_written_to_is_a_matter_of_settings(
  tmp_path: Path,
) -> None:
  (tmp_path / "file").touch()
  with (
    pytest.raises(SettingsError, match="expected a folder"),
    open_logs(tmp_path / "file" / "logs"),
  ):
    pass


def test_a_line_that_cannot_be_written_is_lost_and_nothing_else(tmp_path: Path) -> None:
  path = tmp_path / "server.log"
  path.symlink_to("/dev/full")
  with LogFile(path) as log:
    log.write(b"lost")
    path.unlink()
    path.touch()
  with LogFile(path, max_size=20) as log:
    log.write(b"a first line")
    (tmp_path / "server.log.1").mkdir()
    log.write(b"no room to put the first line aside")
    (tmp_path / "server.log.1").rmdir()
    log.write(b"a third line")
  assert path.read_text() == "a third line\n"


def test_the_tree_starts_the_server_first(stage: Stage) -> None:
  program: Callable[[], Program] = lambda: stage.program("")  # noqa: E731 - a name for two
  drawn = render(up_tree(launch(stage.folder), program(), program()))
  words = [line.split()[1] for line in drawn.splitlines()[1:]]
  assert words == ["server", "examples", "agent"]


def test_the_examples_are_jobs_that_fire() -> None:
  examples = read_examples()
  assert [job.name for job in examples] == [
    *("hello", "disk-report", "noop", "third-time-lucky", "clock")
  ]
  for job in examples:
    for schedule in job.schedules:
      if schedule.cron_expression is not None:
        CronExpression.parse(schedule.cron_expression)
