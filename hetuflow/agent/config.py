"""The agent's settings, and where it finds its token and keeps its files."""

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import attrs
from attrs import frozen

from hetuflow.errors import SettingsError
from hetuflow.settings import (
  LogSettings,
  add_flags,
  default_data_dir,
  kinds,
  load_settings,
  setting,
)

__all__ = [
  "AgentConfig",
  "AgentSettings",
  "agent_options",
  "find_token",
  "load_agent_config",
]

_MIB = 1024 * 1024

F = TypeVar("F", bound=Callable[..., Any])


def _default_concurrency() -> int:
  """Enough slots for jobs that mostly wait, on any machine."""
  return max(16, 4 * (os.cpu_count() or 1))


@frozen(kw_only=True)
class AgentSettings:
  """The section `[agent]`."""

  server: tuple[str, ...] = setting(
    kinds.urls("ws", "wss"),
    default=(),
    flag="--server",
    metavar="URL",
    help="The servers' gateways; the first that answers is taken. By default that of a "
    "server running on DATA_DIR, or else, with a token of your own, "
    "`ws://127.0.0.1:8080/ws`.",
  )
  token: str | None = setting(
    kinds.text(),
    default=None,
    flag="--token",
    secret=True,
    help="The join token.",
  )
  token_file: Path | None = setting(  # noqa: RUF009 - an attrs field
    kinds.path(),
    default=None,
    flag="--token-file",
    metavar="FILE",
    help="A file with the join token.",
  )
  namespaces: tuple[str, ...] = setting(
    kinds.texts(),
    default=("default",),
    flag="--namespace",
    metavar="NAMESPACE",
    help="The namespaces whose tasks this agent runs.",
  )
  name: str = setting(
    kinds.name(),
    factory=socket.gethostname,
    flag="--name",
    help="What this agent is called in lists; by default the host name.",
  )
  max_concurrent: int = setting(
    kinds.integer(1, 100_000),
    factory=_default_concurrency,
    flag="--max-concurrent",
    metavar="N",
    help="How many tasks run at once; by default 4 a CPU, at least 16.",
  )
  hold: int = setting(
    kinds.integer(0, 100_000),
    default=1000,
    help="How many planned tasks this agent keeps until they are due.",
  )
  labels: Mapping[str, str] = setting(
    kinds.pairs(),
    factory=dict,
    flag="--label",
    metavar="K=V",
    help="What jobs select this agent by.",
  )
  data_dir: Path = setting(  # noqa: RUF009 - an attrs field
    kinds.path(),
    factory=default_data_dir,
    flag="--data-dir",
    metavar="DIR",
    help="Where the agent keeps its files; it may be the server's.",
  )
  imports: tuple[str, ...] = setting(
    kinds.texts(),
    default=(),
    flag="--import",
    metavar="MODULE",
    help="Modules that register functions for jobs with the executor python.",
  )
  drain_timeout: float = setting(
    kinds.number(0, 86_400),
    default=30.0,
    help="How long a stopping agent lets its tasks run on, in seconds.",
  )
  kill_grace: float = setting(
    kinds.number(0, 3600),
    default=10.0,
    help="How long after SIGTERM what still runs at the end is killed, in seconds.",
  )
  journal_limit: int = setting(
    kinds.integer(64 * _MIB, 1024 * 1024 * _MIB),
    default=256 * _MIB,
    help="How large the journal may grow before no new task is taken, in bytes.",
  )
  max_output_buffer: int = setting(
    kinds.integer(64 * 1024, 1024 * 1024 * _MIB),
    default=64 * _MIB,
    help="How much output waits for the server at most, in bytes.",
  )


@frozen(kw_only=True)
class AgentConfig:
  """All settings of an agent."""

  agent: AgentSettings = attrs.field(factory=AgentSettings)
  log: LogSettings = attrs.field(factory=LogSettings)

  @property
  def folder(self) -> Path:
    """The agent's own folder in DATA_DIR, which several agents may share."""
    return self.agent.data_dir / "agents" / quote(self.agent.name, safe="")


def agent_options(command: F) -> F:
  """Add the flags of the agent to a click command."""
  return add_flags(AgentConfig)(command)


def load_agent_config(
  flags: Mapping[str, object], environ: Mapping[str, str] = os.environ
) -> AgentConfig:
  """Read the agent's settings.

  Args:
    flags: the arguments click gives a command with `agent_options`.
    environ: the environment variables.

  Returns:
    The settings.

  Raises:
    SettingsError: one line that says what is wrong and what is expected.
  """
  config = load_settings(
    AgentConfig,
    flags,
    environ,
    shorthands={"HETUFLOW_DATA_DIR": "agent.data_dir"},
  )
  if config.agent.token and config.agent.token_file:
    raise SettingsError("agent.token_file: expected no agent.token beside it")
  # When a task ends, its output goes into the journal, beyond the limit if need be, but
  # only as much again; half of that leaves room for results.
  most = config.agent.journal_limit // 2
  if config.agent.max_output_buffer > most:
    raise SettingsError(
      f"agent.max_output_buffer: expected at most agent.journal_limit / 2 = {most} "
      f"bytes, got {config.agent.max_output_buffer}"
    )
  return config


def find_token(config: AgentConfig) -> str | None:
  """Find the join token: as set, in the file named, or the one in DATA_DIR.

  Args:
    config: the agent's settings.

  Returns:
    The token, or None when the server has not written one into DATA_DIR yet.

  Raises:
    SettingsError: the file named cannot be read or is empty, or what is there cannot be
      a token.
  """
  if config.agent.token:
    return _checked(config.agent.token, "agent.token")
  named = config.agent.token_file
  file = named or config.agent.data_dir / "agent.token"
  try:
    token = file.read_text("ascii", errors="replace").strip()
  except OSError as error:
    if named is None:
      return None
    reason = (error.strerror or "unreadable").lower()
    raise SettingsError(f"{file}: expected a file with the token: {reason}") from error
  if named is not None and not token:
    raise SettingsError(f"{file}: expected a file with the token: it is empty")
  return _checked(token, str(file)) if token else None


def _checked(token: str, source: str) -> str:
  """Return a token that a header can carry; of any other only say where it came from."""
  if not (token.isascii() and token.isprintable()) or " " in token:
    raise SettingsError(f"{source}: expected a token, of letters, digits and dashes")
  return token
