"""An agent from its settings to its end."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from hetuflow.agent.config import AgentConfig, find_token
from hetuflow.agent.functions import import_functions
from hetuflow.agent.journal import open_journal
from hetuflow.agent.parts import Parts, wire_parts
from hetuflow.agent.process import open_helper
from hetuflow.agent.tree import build_tree
from hetuflow.nursery import Supervisor, run_until_signal

__all__ = ["open_agent", "run_agent"]

FLUSH_SECONDS = 30.0
GC_THRESHOLDS = (20_000, 20, 50)
"""Thousands of attempts in hand are no garbage: looking at them again and again took a
fifth of the time of a no-op task with Python's own (700, 10, 10)."""

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
    SettingsError: the named file with the token cannot be read.
    Refused: the server, or another agent in the same folder, does not let us.
    Exception: whatever ended the tree.
  """
  settings = config.agent
  # A file that is named and missing is told before anything starts.
  find_token(config)
  async with open_agent(config) as (supervisor, _):
    _spare_collections()
    return await run_until_signal(
      supervisor,
      drain_timeout=settings.drain_timeout + settings.kill_grace + FLUSH_SECONDS,
    )


def _spare_collections() -> None:
  """Have the garbage collector look at what is new only, and less often."""
  gc.collect()
  gc.freeze()
  gc.set_threshold(*GC_THRESHOLDS)
