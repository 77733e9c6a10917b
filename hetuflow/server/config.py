"""The server's settings and the proportions between them."""

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

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
  "DatabaseSettings",
  "ServerConfig",
  "ServerSettings",
  "load_server_config",
  "server_options",
]

_MIB = 1024 * 1024
_DAY_SECONDS = 86_400.0

F = TypeVar("F", bound=Callable[..., Any])


@frozen(kw_only=True)
class ServerSettings:
  """The section `[server]`."""

  host: str = setting(
    kinds.text(),
    default="127.0.0.1",
    flag="--host",
    help="The address the HTTP API, the console and the agents' gateway listen on.",
  )
  port: int = setting(
    kinds.integer(0, 65535),
    default=8080,
    flag="--port",
    help="Its port; 0 takes any free one.",
  )
  data_dir: Path = setting(  # noqa: RUF009 - an attrs field
    kinds.path(),
    factory=default_data_dir,
    flag="--data-dir",
    metavar="DIR",
    help="Where the server keeps its files and, without a database URL, its database.",
  )
  name: str = setting(
    kinds.name(),
    factory=socket.gethostname,
    flag="--name",
    help="What this server is called in lists; by default the host name.",
  )
  drain_timeout: float = setting(
    kinds.number(0, 3600),
    default=30.0,
    help="How long a stopping server waits for what is under way, in seconds.",
  )
  max_body_size: int = setting(
    kinds.integer(1024, 1024 * _MIB),
    default=16 * _MIB,
    help="The largest body of an HTTP request, in bytes.",
  )
  max_connections: int = setting(
    kinds.integer(10, 1_000_000),
    default=10_000,
    help="How many connections may be open at once, of agents and callers.",
  )
  max_requests: int = setting(
    kinds.integer(1, 100_000),
    default=500,
    help="How many HTTP requests may be under way at once.",
  )
  max_followers: int = setting(
    kinds.integer(0, 100_000),
    default=100,
    help="How many callers may follow output live at once.",
  )
  max_message_size: int = setting(
    # One piece of an agent's output can take 400 KiB as JSON.
    kinds.integer(_MIB, 256 * _MIB),
    default=8 * _MIB,
    help="The largest message on a WebSocket, in bytes after decompression.",
  )
  cors_origins: tuple[str, ...] = setting(
    kinds.texts(),
    default=(),
    help="The origins of web pages that may call the API.",
  )
  horizon: float = setting(
    kinds.number(10, _DAY_SECONDS),
    default=60.0,
    help="How far ahead tasks are planned, in seconds.",
  )
  poll_interval: float = setting(
    kinds.number(0.01, 1),
    default=1.0,
    help="The longest wait between two looks for work, in seconds.",
  )
  heartbeat: float = setting(
    kinds.number(0.1, 3600),
    default=5.0,
    help="How often agents report, in seconds.",
  )
  session_lease: float = setting(
    kinds.number(0.5, _DAY_SECONDS),
    default=30.0,
    help="How long a silent agent keeps its tasks, in seconds.",
  )
  lost_grace: float = setting(
    kinds.number(0, _DAY_SECONDS),
    default=120.0,
    help="How long the word of a lost agent is waited for, in seconds.",
  )
  server_ttl: float = setting(
    kinds.number(0.5, 3600),
    default=4.0,
    help="How long a silent server or leader keeps its office, in seconds.",
  )
  weight: int = setting(
    kinds.integer(0, 1000),
    default=1,
    help="This server's share of the namespaces, beside the others; 0 takes none.",
  )
  hold: int = setting(
    kinds.integer(0, 100_000),
    default=1000,
    help="How many planned tasks one agent may keep, at most.",
  )
  ack_retries: int = setting(
    kinds.integer(0, 100),
    default=5,
    help="How often an unacknowledged message is sent again.",
  )
  compression: bool = setting(
    kinds.boolean(),
    default=False,
    help="Whether messages are packed for agents that offer it: for slow links.",
  )


@frozen(kw_only=True)
class DatabaseSettings:
  """The section `[database]`."""

  url: str | None = setting(
    kinds.url("postgresql", "postgres"),
    default=None,
    flag="--database-url",
    metavar="URL",
    secret=True,
    help="The PostgreSQL to use; without it the server starts its own.",
  )
  pool_size: int = setting(
    kinds.integer(2, 1000),
    default=8,
    help="How many connections one server holds.",
  )
  statement_timeout: float = setting(
    kinds.number(0.1, 3600),
    default=2.0,
    help="How long one statement may take, in seconds.",
  )


@frozen(kw_only=True)
class ServerConfig:
  """All settings of a server."""

  server: ServerSettings = attrs.field(factory=ServerSettings)
  database: DatabaseSettings = attrs.field(factory=DatabaseSettings)
  log: LogSettings = attrs.field(factory=LogSettings)


def server_options(command: F) -> F:
  """Add the flags of the server to a click command."""
  return add_flags(ServerConfig)(command)


def load_server_config(
  flags: Mapping[str, object], environ: Mapping[str, str] = os.environ
) -> ServerConfig:
  """Read the server's settings.

  Args:
    flags: the arguments click gives a command with `server_options`.
    environ: the environment variables.

  Returns:
    The settings, in proportions that can work.

  Raises:
    SettingsError: one line that says what is wrong and what is expected.
  """
  config = load_settings(
    ServerConfig,
    flags,
    environ,
    shorthands={"HETUFLOW_DATA_DIR": "server.data_dir"},
  )
  _refuse_wrong_proportions(config)
  return config


def _refuse_wrong_proportions(config: ServerConfig) -> None:
  """Refuse times that defeat each other."""
  server, database = config.server, config.database
  # One lost heartbeat must not cost an agent its tasks.
  _require(
    server.session_lease > 2 * server.heartbeat,
    "server.session_lease",
    server.session_lease,
    f"more than 2 x server.heartbeat = {2 * server.heartbeat:g}",
  )
  # A frozen client must lose its row locks before its successor is elected.
  _require(
    database.statement_timeout <= server.server_ttl / 2,
    "database.statement_timeout",
    database.statement_timeout,
    f"at most server.server_ttl / 2 = {server.server_ttl / 2:g}",
  )
  # What was planned must last until another server has taken over.
  _require(
    server.horizon >= 2 * server.server_ttl,
    "server.horizon",
    server.horizon,
    f"at least 2 x server.server_ttl = {2 * server.server_ttl:g}",
  )


def _require(holds: bool, key: str, value: float, expected: str) -> None:
  """Refuse a value that has the wrong proportion to another."""
  if not holds:
    raise SettingsError(f"{key}: expected {expected} seconds, got {value:g}")
