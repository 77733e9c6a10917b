"""Programs on one folder that do not outlive the test."""

from pathlib import Path
from typing import Any

from support.programs import (
  Agent,
  Program,
  Server,
  dispose,
  start_agent,
  start_server,
)

__all__ = ["Stage"]


class Stage:
  """Starts programs on one folder and ends those that still run when the test does."""

  def __init__(self, folder: Path) -> None:
    self.folder = folder
    self._programs: list[Program] = []

  async def server(self, *flags: object, **options: Any) -> Server:
    """Start a server; see ``start_server``."""
    server = await start_server(self.folder, *flags, **options)
    self._programs.append(server)
    return server

  async def server_at(self, former: Server, **options: Any) -> Server:
    """Start a server where a former one was."""
    return await self.server("--port", former.port, **options)

  async def agent(self, server: Server, *flags: object, **options: Any) -> Agent:
    """Start an agent; see ``start_agent``."""
    agent = await start_agent(server, *flags, **options)
    self._programs.append(agent)
    return agent

  def logs(self) -> list[str]:
    """Read what every program has said, also those that are gone."""
    return [program.log_text() for program in self._programs]

  async def clear(self) -> None:
    """End what still runs, the last one first."""
    for program in reversed(self._programs):
      await dispose(program)
