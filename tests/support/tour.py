"""The README's tour, taken: its console blocks, a running `hetuflow up`, and one shell."""

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from attrs import frozen

ROOT = Path(__file__).parents[2]
STOP_TIMEOUT_S = 60.0
MARK = "--- the command has ended"
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.S | re.M)


@frozen
class Step:
  """A command, and the lines that the reader is shown of its output."""

  command: str
  shown: tuple[str, ...]


def read_tour(text: str) -> Iterator[Step]:
  """Yield every command of the console blocks, in order."""
  for block in _BLOCK.findall(text):
    for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
      command, *shown = part.splitlines()
      yield Step(command, tuple(line for line in shown if line.strip()))


def is_as_shown(shown: tuple[str, ...], output: str) -> bool:
  """Tell whether the shown lines come in the output, in order.

  Spaces count as one, a ``…`` stands for anything, and what is not shown may be there.
  """
  lines = iter(" ".join(line.split()) for line in output.splitlines())
  return all(any(_pattern(each).search(line) for line in lines) for each in shown)


def _pattern(shown: str) -> re.Pattern[str]:
  """Turn a shown line into what it stands for."""
  parts = [re.escape(" ".join(part.split())) for part in shown.split("…")]
  return re.compile(r"\s*.*\s*".join(parts))


@asynccontextmanager
async def run_up(data_dir: Path) -> AsyncIterator[trio.Process]:
  """Run `hetuflow up` for the block, from when it greets; then Ctrl-C."""
  process = await trio.lowlevel.open_process(
    [
      *(sys.executable, "-m", "hetuflow", "up", "--port", "0"),
      *("--data-dir", str(data_dir)),
    ],
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    cwd=ROOT,
    start_new_session=True,
  )
  try:
    said = b""
    assert process.stdout is not None
    while b"hetuflow serves at" not in said:
      data = await process.stdout.receive_some()
      assert data, f"hetuflow up ended: {said.decode()}"
      said += data
    yield process
  finally:
    with trio.move_on_after(STOP_TIMEOUT_S, shield=True):
      process.send_signal(signal.SIGINT)
      await process.wait()


class Shell:
  """One shell for all commands, so that what one sets the next one has."""

  def __init__(self, process: trio.Process) -> None:
    self._process = process

  async def run(self, command: str) -> str:
    """Run a command; return what it printed, to either stream."""
    assert self._process.stdin is not None
    assert self._process.stdout is not None
    script = f"{{ {command}\n}} </dev/null\nprintf '\\n%s\\n' {shlex.quote(MARK)}\n"
    await self._process.stdin.send_all(script.encode())
    said = b""
    end = f"\n{MARK}\n".encode()
    while not said.endswith(end):
      data = await self._process.stdout.receive_some()
      assert data, f"the shell ended: {said.decode()}"
      said += data
    return said.removesuffix(end).decode()


@asynccontextmanager
async def open_shell(data_dir: Path, folder: Path) -> AsyncIterator[Shell]:
  """Open a shell at the root of the checkout, with `hetuflow` as an installed command.

  Args:
    data_dir: of the server that the commands should find.
    folder: where the command can be put.
  """
  _install(folder / "hetuflow")
  process = await trio.lowlevel.open_process(
    ["/bin/sh"],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    cwd=ROOT,
    env={
      "PATH": f"{folder}:/usr/local/bin:/usr/bin:/bin",
      "HOME": str(folder),
      "HETUFLOW_DATA_DIR": str(data_dir),
      "COLUMNS": "200",
      "LANG": "C.UTF-8",
    },
    start_new_session=True,
  )
  try:
    yield Shell(process)
  finally:
    process.kill()
    with trio.CancelScope(shield=True):
      await process.wait()


def _install(command: Path) -> None:
  """Write what `pip install` would: a command that runs this checkout."""
  command.write_text(
    f"#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} "
    f'exec {shlex.quote(sys.executable)} -m hetuflow "$@"\n'
  )
  command.chmod(0o755)
