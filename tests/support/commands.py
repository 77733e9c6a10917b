"""The command line as a process of its own, as people and scripts call it."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio
from attrs import frozen
from support.programs import Agent, Server, environment

__all__ = ["Command", "Result", "World"]

LIMIT_S = 60.0


@frozen(kw_only=True)
class Result:
  """How a command ended and what it printed."""

  code: int
  out: bytes
  err: bytes

  @property
  def text(self) -> str:
    """What it printed."""
    return self.out.decode()

  @property
  def complaint(self) -> str:
    """What it printed on stderr."""
    return self.err.decode()

  @property
  def json(self) -> Any:
    """What it printed, parsed."""
    return msgspec.json.decode(self.out)

  def ok(self) -> "Result":
    """Demand that it went well."""
    assert self.code == 0, f"code {self.code}: {self.text}{self.complaint}"
    return self


@frozen(kw_only=True)
class Command:
  """``hetuflow`` for the servers of a folder; a fixed time zone, no terminal."""

  data_dir: Path

  async def __call__(
    self, *words: object, stdin: bytes = b"", **variables: str
  ) -> Result:
    """Run a command to its end."""
    with trio.fail_after(LIMIT_S):
      done = await trio.run_process(
        self._argv(words),
        stdin=stdin,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env=self._environment(variables),
        cwd=self.data_dir,
      )
    return Result(code=done.returncode, out=done.stdout, err=done.stderr)

  @asynccontextmanager
  async def started(self, *words: object) -> AsyncIterator[trio.Process]:
    """Run a command for the block; what it prints can be read as it comes."""
    async with trio.open_nursery() as nursery:
      process: trio.Process = await nursery.start(
        partial(
          trio.run_process,
          self._argv(words),
          stdout=subprocess.PIPE,
          stderr=subprocess.PIPE,
          check=False,
          env=self._environment({}),
          cwd=self.data_dir,
        )
      )
      try:
        yield process
      finally:
        nursery.cancel_scope.cancel()

  def _argv(self, words: tuple[object, ...]) -> list[str]:
    """Make the command line."""
    return [sys.executable, "-m", "hetuflow", *map(str, words)]

  def _environment(self, variables: dict[str, str]) -> dict[str, str]:
    """Make the environment: where the servers are, and nothing else of ours."""
    return environment(HETUFLOW_DATA_DIR=str(self.data_dir), TZ="UTC", **variables)


@frozen(kw_only=True)
class World:
  """A server, an agent of ``default`` and the command line."""

  server: Server
  agent: Agent
  cli: Command
