"""An agent from its settings to its end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from hetuflow.agent.config import AgentConfig
from hetuflow.agent.functions import import_functions
from hetuflow.agent.journal import open_journal
from hetuflow.agent.parts import Parts, wire_parts
from hetuflow.agent.process import open_helper
from hetuflow.agent.tree import build_tree
from hetuflow.nursery import Supervisor, run_until_signal

__all__ = ["open_agent", "run_agent"]

FLUSH_SECONDS = 30.0

_log = structlog.get_logger()


@asynccontextmanager
async def open_agent(
  config: AgentConfig, *, fail_fast: bool = False
) -> AsyncIterator[tuple[Supervisor, Parts]]:
  """Open the agent's journal for the block, and make its tree, ready to run.

  Args:
    config: the settings.
    fail_fast: let any crash end the tree: for tests.

  Raises:
    Refused: another agent uses the same folder.
    SettingsError: a module named by ``--import`` cannot be imported.
  """
  import_functions(config.agent.imports)

  def shut_down() -> None:
    """Drain the tree, which needs the parts that need this."""
    supervisor.drain()

  async with (
    open_journal(config.folder, config.agent.journal_limit) as journal,
    open_helper() as helper,
  ):
    parts = wire_parts(config, journal, helper, shut_down)
    supervisor = Supervisor(build_tree(parts), fail_fast=fail_fast)
    parts.recovery.recover()
    _log.info("agent_started", agent_id=journal.agent_id, epoch=journal.epoch)
    yield supervisor, parts


async def run_agent(config: AgentConfig) -> int:
  """Run an agent until a signal or the server ends it.

  Args:
    config: the settings.

  Returns:
    The exit code.

  Raises:
    Refused: the server, or another agent in the same folder, does not let us.
    Exception: whatever ended the tree.
  """
  settings = config.agent
  async with open_agent(config) as (supervisor, _):
    return await run_until_signal(
      supervisor,
      drain_timeout=settings.drain_timeout + settings.kill_grace + FLUSH_SECONDS,
    )
