"""The command line: help, usage errors, exit codes, what it loads."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from hetuflow.cli.jobs import command_of
from hetuflow.cli.main import COMMANDS, cli
from hetuflow.cli.show import print_facts, print_table
from hetuflow.cli.status import current
from hetuflow.errors import HetuflowError
from hetuflow.protocol.model import Server, ServerId, TaskConfig
from hetuflow.protocol.model.ids import new_id
from hetuflow.protocol.states import ExecutorKind

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CLOSED = ("--server", "http://127.0.0.1:9", "--key", "k")


@pytest.fixture
def call(tmp_path: Path) -> Any:
  """Return what runs ``hetuflow`` in a world without servers."""

  def run(*arguments: str) -> Result:
    """Run one command line."""
    environ = {
      "HETUFLOW_DATA_DIR": str(tmp_path),
      "HETUFLOW_URL": None,
      "HETUFLOW_API_KEY": None,
      "TZ": "UTC",
    }
    return CliRunner().invoke(cli, arguments, env=environ, prog_name="hetuflow")

  return run


def commands_below(command: click.Command, *path: str) -> list[tuple[str, ...]]:
  """Return the path of a command and of all below it."""
  found = [path]
  if isinstance(command, click.Group):
    context = click.Context(command)
    for name in command.list_commands(context):
      below = command.get_command(context, name)
      assert below is not None
      found += commands_below(below, *path, name)
  return found


OWN_HELP = {("server",), ("agent",)}
ALL = [path for path in commands_below(cli) if path not in OWN_HELP]


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_explains_itself(call: Any, path: tuple[str, ...]) -> None:
  result = call(*path, "--help")
  assert result.exit_code == 0
  assert result.output.startswith("Usage: hetuflow")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_commands_say(name: str) -> None:
  command = cli.get_command(click.Context(cli), name)
  assert command is not None
  assert command.name == name
  assert command.get_short_help_str(200) == COMMANDS[name][1]


READS = [
  ("status",),
  ("jobs", "list"),
  ("jobs", "show"),
  ("schedules", "list"),
  ("schedules", "show"),
  ("schedules", "next"),
  ("calendars", "list"),
  ("calendars", "show"),
  ("calendars", "days"),
  ("tasks", "list"),
  ("tasks", "show"),
  ("logs",),
  ("agents", "list"),
  ("agents", "show"),
  ("namespaces", "list"),
  ("preview",),
  ("what-if",),
]


@pytest.mark.parametrize("path", READS, ids=" ".join)
def test_every_command_that_reads_can_print_json(
  call: Any, path: tuple[str, ...]
) -> None:
  assert "--json" in call(*path, "--help").output


@pytest.mark.parametrize(
  "arguments",
  [
    ("nonsense",),
    ("jobs", "nonsense"),
    ("jobs", "list", "--nonsense"),
    ("jobs", "create", "a"),
    ("jobs", "create", "a", "--user", "b", "--", "true"),
    ("exec", "--user", "b", "true"),
    ("run",),
    ("run", "job", "-p", "novalue"),
    ("run", "job", "--at", "yesterday"),
    ("run", "job", "--priority", "11"),
    ("tasks", "show", "not-an-id"),
    ("exec",),
    ("preview", "* * *"),
    ("preview", "* * * * *", "--tz", "Mars/Olympus"),
    ("preview", "* * * * *", "-n", "0"),
  ],
  ids=" ".join,
)
def test_wrong_usage_ends_with_2(call: Any, arguments: tuple[str, ...]) -> None:
  result = call(*arguments)
  assert result.exit_code == 2
  assert "Error: " in result.stderr
  assert result.stdout == ""


def test_a_missing_server_is_a_matter_of_settings(call: Any) -> None:
  result = call("jobs", "list")
  assert result.exit_code == 2
  assert "hetuflow up" in result.stderr
  assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("before", [True, False], ids=["before", "behind"])
def test_common_options_may_stand_anywhere(call: Any, before: bool) -> None:
  words = ("namespaces", "create", "billing")
  result = call(*CLOSED, *words) if before else call(*words, *CLOSED)
  assert result.exit_code == 1
  assert "no answer from http://127.0.0.1:9" in result.stderr
  assert result.stderr.count("\n") == 1


def test_an_interruption_ends_with_130(
  call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
  @click.command("halt")
  def halt() -> None:
    """Be interrupted."""
    raise KeyboardInterrupt

  monkeypatch.setattr(cli, "get_command", lambda ctx, name: halt)
  assert call("halt").exit_code == 130


def test_what_fails_on_purpose_is_one_line(
  call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
  @click.command("fail")
  def fail() -> None:
    """Fail on purpose."""
    raise HetuflowError("the well is dry")

  monkeypatch.setattr(cli, "get_command", lambda ctx, name: fail)
  result = call("fail")
  assert (result.exit_code, result.stderr) == (1, "Error: the well is dry\n")


@pytest.mark.parametrize(
  ("arguments", "code", "said"),
  [
    (("jobs", "list", "--json"), 2, "no server found"),
    ((*CLOSED, "status", "--json"), 1, "no answer from"),
    (("preview", "* * *", "--json"), 2, "3 fields"),
    (("tasks", "show", "no-id", "--json"), 2, "no-id"),
    (("jobs", "list", "--json", "--nonsense"), 2, "--nonsense"),
    (("run", "job", "--follow", "--json"), 2, "exclude each other"),
    (("logs", "job", "--follow", "--json"), 2, "exclude each other"),
  ],
  ids=str,
)
def test_an_error_is_json_where_json_is_wanted(
  call: Any, arguments: tuple[str, ...], code: int, said: str
) -> None:
  result = call(*arguments)
  assert result.exit_code == code
  error = json.loads(result.stdout)["error"]
  assert said in error["message"]
  assert error["exit_code"] == code
  assert said in result.stderr


def test_what_a_command_is_given_to_run_may_say_json(call: Any) -> None:
  result = call(*CLOSED, "exec", "--", "kubectl", "--json")
  assert (result.exit_code, result.stdout) == (1, "")


@pytest.mark.parametrize(
  "arguments", [("jobs", "show", "\udcff"), ("run", "a", "-p", "x=\udcff")], ids=ascii
)
def test_an_argument_that_is_no_text_is_wrong_usage(
  call: Any, arguments: tuple[str, ...]
) -> None:
  result = call(*CLOSED, *arguments)
  assert result.exit_code == 2
  assert "is not UTF-8" in result.stderr


@pytest.mark.parametrize("key", ["ключ", "a\nb"])
def test_a_key_that_can_be_none_is_a_matter_of_settings(call: Any, key: str) -> None:
  result = call(*CLOSED[:2], "--key", key, "jobs", "list")
  assert result.exit_code == 2
  assert "characters that no key has" in result.stderr
  assert key not in result.stderr


def test_a_full_disk_is_told_in_one_line() -> None:
  with Path("/dev/full").open("wb") as full:
    result = subprocess.run(
      [sys.executable, "-m", "hetuflow", "preview", "* * * * *", "-n", "1000"],
      stdout=full,
      stderr=subprocess.PIPE,
      text=True,
      timeout=60,
    )
  assert result.returncode == 1
  assert result.stderr.startswith("Error: [Errno 28] No space left")


def test_nothing_is_cut_on_a_narrow_terminal(
  monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
  monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
  monkeypatch.setenv("COLUMNS", "80")
  task, job = "01a20dfb-712f-7279-a125-4772863d0460", "z" * 36
  print_table(("ID", "DUE", "REASON", "JOB"), [(task, "now", "it waits " * 9, job)])
  print_facts([("id", task), ("output", "x" * 100)])
  shown = capsys.readouterr().out
  assert shown.count(task) == 2
  assert (shown.count("z"), shown.count("waits")) == (36, 9)
  assert shown.count("x") == 100
  assert "…" not in shown


def test_a_preview_needs_no_server(call: Any) -> None:
  line = ("preview", "30 2 * * *", "--tz", "Europe/Berlin", "-n", "2")
  result = call(*line, "--from", "2026-03-28T00:00Z")
  assert result.exit_code == 0
  assert result.stdout.splitlines() == [
    "Sat 2026-03-28 02:30:00 CET",
    "Sun 2026-03-29 03:00:00 CEST",
  ]
  result = call(*line, "--from", "2026-03-28T00:00Z", "--json")
  assert json.loads(result.stdout) == {
    "fire_times": ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z"]
  }


def test_help_loads_only_what_it_needs() -> None:
  script = (
    "import sys; from hetuflow.cli.main import cli\n"
    "cli(['--help'], standalone_mode=False)\n"
    "heavy = {'httpx', 'rich', 'trio', 'attrs', 'cattrs', 'stamina', 'croniter'}\n"
    "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
  )
  result = subprocess.run(
    [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
  )
  assert (result.returncode, result.stderr) == (0, "")


def test_python_m_hetuflow_is_the_command() -> None:
  result = subprocess.run(
    [sys.executable, "-m", "hetuflow", "--version"],
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert result.stdout.startswith("hetuflow, version ")


def started(name: str, *, alive: bool) -> Server:
  """Return a server as the API lists it."""
  return Server(
    id=ServerId(new_id()),
    name=name,
    version="1",
    url="http://localhost",
    alive=alive,
    weight=1,
    load=0.0,
    namespaces=1,
    leader=alive,
    started_at=NOW,
    heartbeat_at=NOW,
    created_at=NOW,
    updated_at=NOW,
  )


def test_servers_that_were_started_anew_are_shown_once() -> None:
  servers = [
    started("a", alive=True),
    lost := started("b", alive=False),
    started("b", alive=False),
    started("a", alive=False),
  ]
  assert current(servers) == [servers[0], lost]


def test_a_command_is_listed_as_a_shell_would_take_it() -> None:
  plain = TaskConfig(cmd="sh", args=["-c", "echo $A"])
  script = TaskConfig(executor=ExecutorKind.SHELL, cmd="echo $1 | wc", args=["a b"])
  assert command_of(plain) == "sh -c 'echo $A'"
  assert command_of(script) == "echo $1 | wc 'a b'"
