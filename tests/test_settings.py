"""Settings: which source wins, what each mistake says, what is never said."""

from collections.abc import Mapping
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from hetuflow.agent.config import (
  AgentConfig,
  agent_options,
  find_token,
  load_agent_config,
)
from hetuflow.agent.process.chunks import FLUSH_BYTES
from hetuflow.errors import SettingsError
from hetuflow.protocol import wire
from hetuflow.protocol.messages import LogChunk, MessageKind, TaskLog
from hetuflow.protocol.model import InstanceId, NamespaceId, new_id
from hetuflow.protocol.states import LogStream
from hetuflow.server.config import (
  ServerConfig,
  load_server_config,
  server_options,
)
from hetuflow.settings import default_data_dir


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
  """Errors name the file as the user did: by a relative path here."""
  monkeypatch.chdir(tmp_path)


def server(
  toml: str | None = None,
  environ: Mapping[str, str] | None = None,
  **flags: object,
) -> ServerConfig:
  """The server's settings from these sources."""
  if toml is not None:
    Path("app.toml").write_text(toml)
    flags["config"] = "app.toml"
  return load_server_config(flags, environ or {})


def agent(
  toml: str | None = None,
  environ: Mapping[str, str] | None = None,
  **flags: object,
) -> AgentConfig:
  """The agent's settings from these sources."""
  if toml is not None:
    Path("app.toml").write_text(toml)
    flags["config"] = "app.toml"
  return load_agent_config(flags, environ or {})


def complaint(toml: str | None = None, **sources: object) -> str:
  """What the server says to these sources."""
  with pytest.raises(SettingsError) as caught:
    server(toml, **sources)
  return str(caught.value)


def test_without_sources_the_defaults_of_the_contract_hold() -> None:
  config = server()
  assert (config.server.host, config.server.port) == ("127.0.0.1", 8080)
  assert config.server.data_dir == default_data_dir()
  assert config.server.horizon == 60
  assert config.server.heartbeat == 5
  assert config.server.session_lease == 30
  assert config.server.server_ttl == 4
  assert config.server.drain_timeout == 30
  assert config.database.url is None
  assert agent().agent.server == ()
  assert agent().agent.namespaces == ("default",)
  assert agent().agent.hold == 1000
  assert agent().agent.max_concurrent >= 16


def test_the_file_is_over_the_defaults() -> None:
  assert server("[server]\nport = 1\n").server.port == 1


def test_the_environment_is_over_the_file() -> None:
  config = server("[server]\nport = 1\n", {"HETUFLOW_SERVER_PORT": "2"})
  assert config.server.port == 2


def test_flags_are_over_the_environment() -> None:
  config = server("[server]\nport = 1\n", {"HETUFLOW_SERVER_PORT": "2"}, port="3")
  assert config.server.port == 3


def test_a_source_leaves_alone_what_it_does_not_name() -> None:
  config = server(
    "[server]\nport = 1\n[database]\npool_size = 4\n", {"HETUFLOW_LOG_LEVEL": "debug"}
  )
  assert (config.server.port, config.database.pool_size) == (1, 4)
  assert config.log.level == "debug"


def test_data_dir_has_a_short_variable_that_its_long_one_overrides() -> None:
  short = {"HETUFLOW_DATA_DIR": "/short"}
  assert server("[server]\ndata_dir = '/file'", short).server.data_dir == Path("/short")
  assert agent(None, short).agent.data_dir == Path("/short")
  both = {**short, "HETUFLOW_SERVER_DATA_DIR": "/long"}
  assert server(None, both).server.data_dir == Path("/long")


def test_one_file_serves_both_programs() -> None:
  toml = "[server]\nport = 1\n[agent]\nname = 'a'\n[log]\nlevel = 'error'\n"
  assert server(toml).server.port == 1
  assert agent(toml).agent.name == "a"


def test_variables_of_other_programs_and_of_jobs_are_none_of_ours() -> None:
  server(
    None,
    {
      "HETUFLOW_AGENT_TOKEN": "t",
      "HETUFLOW_URL": "http://x",
      "HETUFLOW_API_KEY": "k",
      "HETUFLOW_INSTANCE_ID": "i",
      "HETUFLOW_PARAM_SERVER": "p",
    },
  )


@pytest.mark.parametrize(
  ("toml", "said"),
  [
    (
      "[server]\nport = 'abc'\n",
      "app.toml: server.port: expected an integer between 0 and 65535, got 'abc'",
    ),
    (
      "[server]\nport = true\n",
      "app.toml: server.port: expected an integer between 0 and 65535, got True",
    ),
    (
      "[server]\nport = 65536\n",
      "app.toml: server.port: expected an integer between 0 and 65535, got 65536",
    ),
    (
      "[server]\nport = 80.5\n",
      "app.toml: server.port: expected an integer between 0 and 65535, got 80.5",
    ),
    (
      "[server]\nhorizon = nan\n",
      "app.toml: server.horizon: expected a number of seconds between 10 and 86400, "
      "got nan",
    ),
    (
      "[server]\nname = 'a/b'\n",
      "app.toml: server.name: expected a name of letters, digits, dots and dashes, "
      "got 'a/b'",
    ),
    (
      "[server]\ncors_origins = [1]\n",
      "app.toml: server.cors_origins: expected a list of texts, got [1]",
    ),
    (
      "[log]\nformat = 'xml'\n",
      "app.toml: log.format: expected one of auto, json, console, got 'xml'",
    ),
    (
      "[server]\nhost = ''\n",
      "app.toml: server.host: expected a text, got ''",
    ),
    (
      "[database]\npoolsize = 1\n",
      "app.toml: database.poolsize: unknown key, expected one of pool_size, "
      "statement_timeout, url",
    ),
    (
      "[databse]\nurl = 'x'\n",
      "app.toml: [databse]: unknown section, expected one of agent, database, log, "
      "server",
    ),
    ("server = 3\n", "app.toml: server: expected a section [server]"),
    (
      "[server\n",
      "app.toml: expected a TOML file: Expected ']' at the end of a table "
      "declaration (at line 1, column 8)",
    ),
  ],
)
def test_a_mistake_in_the_file_is_one_line(toml: str, said: str) -> None:
  assert complaint(toml) == said


def test_a_missing_named_file_is_an_error() -> None:
  said = complaint(config="none.toml")
  assert said == "none.toml: expected a TOML file: no such file or directory"


def test_a_file_that_is_no_text_is_an_error() -> None:
  Path("app.toml").write_bytes(b"\xff")
  assert complaint(config="app.toml") == "app.toml: expected a TOML file: not UTF-8"


def test_a_wrong_variable_is_named() -> None:
  assert complaint(environ={"HETUFLOW_SERVER_PORT": "http"}) == (
    "HETUFLOW_SERVER_PORT: expected an integer between 0 and 65535, got 'http'"
  )


def test_an_unknown_variable_of_our_section_is_an_error() -> None:
  assert complaint(environ={"HETUFLOW_LOG_LEVLE": "info"}) == (
    "HETUFLOW_LOG_LEVLE: unknown variable, expected one of HETUFLOW_LOG_FORMAT, "
    "HETUFLOW_LOG_LEVEL"
  )


def test_a_wrong_flag_is_named() -> None:
  assert complaint(port="x") == (
    "--port: expected an integer between 0 and 65535, got 'x'"
  )


@pytest.mark.parametrize(
  ("toml", "said"),
  [
    (
      "[server]\nsession_lease = 10\n",
      "server.session_lease: expected more than 2 x server.heartbeat = 10 seconds, "
      "got 10",
    ),
    (
      "[server]\nserver_ttl = 3\n",
      "database.statement_timeout: expected at most server.server_ttl / 2 = 1.5 "
      "seconds, got 2",
    ),
    (
      "[server]\nserver_ttl = 31\n",
      "server.horizon: expected at least 2 x server.server_ttl = 62 seconds, got 60",
    ),
  ],
)
def test_proportions_that_cannot_work_are_refused(toml: str, said: str) -> None:
  assert complaint(toml) == said


def test_a_buffer_that_the_journal_cannot_take_is_refused() -> None:
  with pytest.raises(SettingsError) as caught:
    agent("[agent]\njournal_limit = 67108864\n")
  assert str(caught.value) == (
    "agent.max_output_buffer: expected at most agent.journal_limit / 2 = 33554432 "
    "bytes, got 67108864"
  )


def test_a_message_has_room_for_the_largest_piece_of_output() -> None:
  piece = LogChunk(
    instance_id=InstanceId(new_id()),
    namespace_id=NamespaceId("n" * 63),
    claim_token=new_id(),
    stream=LogStream.STDOUT,
    offset=2**62,
    data="\x01" * FLUSH_BYTES,
  )
  size = len(wire.encode_envelope(MessageKind.TASK_LOG, TaskLog(chunks=[piece])))
  assert complaint(f"[server]\nmax_message_size = {size}\n").startswith(
    "app.toml: server.max_message_size: expected an integer between 1048576 and "
  )


def test_proportions_are_judged_over_all_sources() -> None:
  toml = "[server]\nheartbeat = 20\n"
  assert server(toml, {"HETUFLOW_SERVER_SESSION_LEASE": "60"}).server.heartbeat == 20


def test_a_secret_stands_in_no_repr() -> None:
  url = "postgresql://u:hush@h/d"
  config = server(None, {"HETUFLOW_DATABASE_URL": url})
  assert config.database.url == url
  assert "hush" not in repr(config)
  assert "hush" not in repr(agent(token="hush"))


def test_a_secret_stands_in_no_error() -> None:
  said = complaint(environ={"HETUFLOW_DATABASE_URL": "mysql://u:hush@h/d"})
  assert said == "HETUFLOW_DATABASE_URL: expected a postgresql:// URL"
  with pytest.raises(SettingsError) as caught:
    agent("[agent]\ntoken = ['hush']\n")
  assert str(caught.value) == "app.toml: agent.token: expected a text"
  with pytest.raises(SettingsError, match="ws://") as caught:
    agent(server=("http://h/ws?token=hush",))
  assert "hush" not in str(caught.value)
  assert caught.value.__cause__ is None


def test_an_error_stays_short_and_on_one_line() -> None:
  said = complaint(environ={"HETUFLOW_SERVER_PORT": "a\nb" * 1000})
  assert "\n" not in said
  assert len(said) < 160


def test_a_database_on_a_socket_has_no_host() -> None:
  url = "postgresql:///d?host=/run/postgresql"
  assert server(database_url=url).database.url == url


@pytest.mark.parametrize(
  "url", ["postgresql://u:hu/sh@h/d", "postgresql://u:hush@h:port/d"]
)
def test_a_port_that_is_none_is_refused_and_not_shown(url: str) -> None:
  said = complaint(environ={"HETUFLOW_DATABASE_URL": url})
  assert said == "HETUFLOW_DATABASE_URL: expected a postgresql:// URL"
  with pytest.raises(SettingsError, match="list of ws://"):
    agent(server=("ws://h:port/ws",))


@pytest.mark.parametrize("hosts", ["a:5432,b:5433", "[::1]:5432", "u:p%2F@h", "u@h:"])
def test_a_database_may_have_several_hosts_in_any_spelling(hosts: str) -> None:
  url = f"postgresql://{hosts}/d"
  assert server(database_url=url).database.url == url


@pytest.mark.parametrize("path", ["~nobody-of-this-name/d", "a\0b"])
def test_a_path_that_cannot_be_is_refused(path: str) -> None:
  assert complaint(data_dir=path).startswith("--data-dir: expected a path, got ")


@pytest.mark.parametrize("url", ["ws://h/a b", "ws://h/ws?a=\x7f", "wss://h/\xe4"])
def test_a_url_that_no_request_can_carry_is_refused(url: str) -> None:
  with pytest.raises(SettingsError, match="list of ws://"):
    agent(server=(url,))


def test_lists_are_read_from_flags_variables_and_toml() -> None:
  expected = ("ws://a/ws", "wss://b/ws")
  assert agent(server=expected).agent.server == expected
  listed = {"HETUFLOW_AGENT_SERVER": "ws://a/ws, wss://b/ws"}
  assert agent(None, listed).agent.server == expected
  toml = "[agent]\nserver = ['ws://a/ws', 'wss://b/ws']\n"
  assert agent(toml).agent.server == expected
  assert agent("[agent]\nserver = 'ws://a/ws'\n").agent.server == ("ws://a/ws",)


def test_labels_are_read_from_flags_variables_and_toml() -> None:
  expected = {"zone": "a", "os": "linux=6"}
  assert agent(label=("zone=a", "os=linux=6")).agent.labels == expected
  listed = {"HETUFLOW_AGENT_LABELS": "zone=a,os=linux=6"}
  assert agent(None, listed).agent.labels == expected
  toml = "[agent.labels]\nzone = 'a'\nos = 'linux=6'\n"
  assert agent(toml).agent.labels == expected


def test_a_label_without_a_value_is_refused() -> None:
  with pytest.raises(SettingsError) as caught:
    agent(label=("zone",))
  assert str(caught.value) == "--label: expected labels as key=value, got ('zone',)"


def test_paths_begin_at_home_and_at_the_working_folder(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  monkeypatch.setenv("HOME", "/home/of")
  assert server(data_dir="~/d").server.data_dir == Path("/home/of/d")
  assert server(data_dir="d").server.data_dir == Path.cwd() / "d"


def test_an_agent_has_a_folder_of_its_own_in_data_dir() -> None:
  assert agent(data_dir="/d", name="n").folder == Path("/d/agents/n")


def test_a_token_is_taken_as_set_else_from_its_file_else_from_data_dir(
  tmp_path: Path,
) -> None:
  assert find_token(agent(data_dir=str(tmp_path))) is None
  (tmp_path / "agent.token").write_text("shared\n")
  (tmp_path / "mine").write_text("mine\n")
  assert find_token(agent(data_dir=str(tmp_path))) == "shared"
  assert find_token(agent(data_dir=str(tmp_path), token_file="mine")) == "mine"
  assert find_token(agent(data_dir=str(tmp_path), token="set")) == "set"


def test_a_token_file_that_is_named_must_hold_one(tmp_path: Path) -> None:
  with pytest.raises(SettingsError, match="none: expected a file with the token: no"):
    find_token(agent(token_file="none"))
  (tmp_path / "empty").touch()
  with pytest.raises(SettingsError, match=r"empty: expected .*: it is empty"):
    find_token(agent(token_file="empty"))


@pytest.mark.parametrize("wrong", ["one\ntwo", "one two", "h\u00fcsh", "\x07"])
def test_what_no_header_can_carry_is_no_token_and_is_not_told(
  tmp_path: Path, wrong: str
) -> None:
  (tmp_path / "agent.token").write_text(wrong, encoding="utf-8")
  for config in (agent(token=wrong), agent(data_dir=str(tmp_path))):
    with pytest.raises(
      SettingsError, match=r"agent\.token: expected a token"
    ) as caught:
      find_token(config)
    assert wrong not in str(caught.value)


def test_a_token_and_a_token_file_exclude_each_other() -> None:
  with pytest.raises(SettingsError, match=r"agent\.token_file: expected no"):
    agent(token="t", token_file="f")


def flags_of(decorate: object, *arguments: str) -> dict[str, object]:
  """What a command with these options gets from these arguments."""
  got: dict[str, object] = {}

  def take(**flags: object) -> None:
    """Keep the flags."""
    got.update(flags)

  command = click.command()(decorate(take))
  result = CliRunner().invoke(command, arguments, catch_exceptions=False)
  assert result.exit_code == 0, result.output
  return got


def test_the_flags_of_the_server_are_those_of_the_contract() -> None:
  flags = flags_of(
    server_options,
    *("--host", "0.0.0.0", "--port", "0", "--data-dir", "/d"),
    *("--database-url", "postgresql://h/d"),
  )
  config = load_server_config(flags, {})
  assert (config.server.host, config.server.port) == ("0.0.0.0", 0)
  assert config.server.data_dir == Path("/d")
  assert config.database.url == "postgresql://h/d"


def test_the_flags_of_the_agent_are_those_of_the_contract() -> None:
  flags = flags_of(
    agent_options,
    *("--server", "ws://h/ws", "--token-file", "/t", "--name", "n"),
    *("--namespace", "a", "--namespace", "b", "--max-concurrent", "7"),
    *("--label", "k=v", "--label", "l=w", "--data-dir", "/d", "--import", "m.n"),
  )
  got = load_agent_config(flags, {}).agent
  assert (got.server, got.name, got.max_concurrent) == (("ws://h/ws",), "n", 7)
  assert got.namespaces == ("a", "b")
  assert got.labels == {"k": "v", "l": "w"}
  assert (got.data_dir, got.token_file) == (Path("/d"), Path("/t"))
  assert got.imports == ("m.n",)


def test_flags_not_given_set_nothing() -> None:
  assert load_agent_config(flags_of(agent_options), {}) == agent()
