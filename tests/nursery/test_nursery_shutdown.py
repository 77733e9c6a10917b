"""Signals, drains and exit codes, with real processes."""

import os
import signal
import subprocess
import sys
import textwrap
from functools import partial

import pytest
import trio

from hetuflow.errors import Refused, SettingsError, SupervisionError, Unavailable
from hetuflow.nursery import Child, Group, Supervisor, exit_code, main, run_until_signal

PROGRAM = """
import functools, sys
import structlog, trio
from hetuflow.nursery import Child, Group, Supervisor, main, run_until_signal

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

def say(word):
  print(word, flush=True)

async def work(*, task_status):
  task_status.started()
  try:
    say("ready")
    await trio.sleep_forever()
  finally:
    say("stopped")

async def stuck(*, task_status):
  task_status.started()
  with trio.CancelScope(shield=True):
    say("ready")
    await trio.sleep_forever()

async def drain():
  say("draining")
  await trio.sleep(DRAIN_S)
  say("drained")

tree = Supervisor(Group("root", [Child("work", RUN, drain=drain)]))
sys.exit(main(functools.partial(run_until_signal, tree, drain_timeout=LIMIT_S)))
"""


class Program:
  """A real process that runs PROGRAM and is read line by line."""

  def __init__(
    self, *, drain: float, limit: float, run: str = "work", logs: bool = False
  ) -> None:
    source = PROGRAM.replace("DRAIN_S", str(drain)).replace("LIMIT_S", str(limit))
    self._source = textwrap.dedent(source).replace("RUN", run)
    self._stderr = subprocess.STDOUT if logs else subprocess.DEVNULL

  async def __aenter__(self):
    self.process = await trio.lowlevel.open_process(
      [sys.executable, "-c", self._source],
      stdout=subprocess.PIPE,
      stderr=self._stderr,
    )
    self._text = ""
    return self

  async def __aexit__(self, *_):
    with trio.CancelScope(shield=True):
      if self.process.poll() is None:
        self.process.kill()
      await self.process.wait()
      await self.process.stdout.aclose()

  async def expect(self, word: str) -> None:
    """Read until the program has said a word."""
    while word not in self._text.split():
      more = await self.process.stdout.receive_some()
      assert more, f"ended without {word}: {self._text}"
      self._text += more.decode()

  def signal(self, number: int) -> None:
    """Send a signal to this process alone."""
    os.kill(self.process.pid, number)

  async def wait(self) -> tuple[int, str]:
    """Wait for the end; return the exit code and all that was said."""
    async for more in self.process.stdout:
      self._text += more.decode()
    code = await self.process.wait()
    return code, self._text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_drains_and_ends_clean(number):
  with trio.fail_after(30):
    async with Program(drain=0.05, limit=20) as program:
      await program.expect("ready")
      program.signal(number)
      code, said = await program.wait()
  assert code == 0
  assert said.split() == ["ready", "draining", "drained", "stopped"]


async def test_the_second_signal_stops_at_once():
  with trio.fail_after(30):
    async with Program(drain=600, limit=600) as program:
      await program.expect("ready")
      program.signal(signal.SIGTERM)
      await program.expect("draining")
      program.signal(signal.SIGINT)
      code, said = await program.wait()
  assert code == 1
  assert said.split() == ["ready", "draining", "stopped"]


async def test_a_drain_past_the_limit_is_cut_off_and_still_clean():
  with trio.fail_after(30):
    async with Program(drain=600, limit=0.05) as program:
      await program.expect("ready")
      program.signal(signal.SIGTERM)
      code, said = await program.wait()
  assert code == 0
  assert said.split() == ["ready", "draining", "stopped"]


async def test_a_third_signal_ends_even_a_stuck_program():
  with trio.fail_after(30):
    async with Program(drain=600, limit=600, run="stuck", logs=True) as program:
      await program.expect("ready")
      program.signal(signal.SIGTERM)
      await program.expect("draining")
      program.signal(signal.SIGTERM)
      await program.expect("stopped_at_once")
      program.signal(signal.SIGTERM)
      code, _ = await program.wait()
  assert code == -signal.SIGTERM


async def test_a_tree_that_ends_by_itself_is_a_clean_end():
  async def once(*, task_status):
    task_status.started()

  tree = Supervisor(Group("root", [Child("once", once)]))
  assert await run_until_signal(tree, drain_timeout=1) == 0


async def test_a_tree_that_fails_raises_its_own_error_bare():
  async def refused(*, task_status):
    raise Refused("no")

  tree = Supervisor(Group("root", [Child("connection", refused)]))
  with pytest.raises(Refused, match="no"):
    await run_until_signal(tree, drain_timeout=1)


async def test_the_starter_is_told_when_the_tree_is_ready(autojump_clock, stage):
  tree = Supervisor(Group("root", [stage.child("a", starts_in=4)]))
  async with trio.open_nursery() as nursery:
    await nursery.start(partial(run_until_signal, tree, drain_timeout=1))
    assert trio.current_time() == 4
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
  ("error", "code"),
  [
    (SettingsError("bad"), 2),
    (Refused("no"), 2),
    (ExceptionGroup("nursery", [ExceptionGroup("inner", [Refused("no")])]), 2),
    (SupervisionError("too often"), 1),
    (Unavailable("away"), 1),
    (ValueError("bug"), 1),
    (KeyboardInterrupt(), 1),
    (SystemExit(3), 3),
    (SystemExit(None), 0),
    (SystemExit("text"), 1),
  ],
)
def test_errors_become_exit_codes(error, code):
  assert exit_code(error) == code


def fail_with(error):
  """Make a program that raises."""

  async def program():
    raise error

  return program


def test_a_program_that_returns_nothing_ended_clean():
  async def program(number):
    return number

  assert main(program, None) == 0
  assert main(program, 4) == 4


def test_an_error_raised_on_purpose_is_one_line(capsys, logged):
  assert main(fail_with(SettingsError("app.toml: server.port is no number"))) == 2
  assert capsys.readouterr().err == "hetuflow: app.toml: server.port is no number\n"
  assert logged == []


def test_a_bug_is_logged_with_its_traceback(capsys, logged):
  assert main(fail_with(ValueError("bug"))) == 1
  (line,) = logged
  assert line["event"] == "program_crashed"
  assert isinstance(line["exc_info"], ValueError)
