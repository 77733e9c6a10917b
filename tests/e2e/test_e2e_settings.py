"""Wrong settings: exit code 2 and one line that says what is wrong and expected."""

import subprocess
import sys
from pathlib import Path

import pytest
import trio
from support.commands import Command
from support.programs import environment, running_server

LIMIT_S = 60.0
FILES = {
  "an unknown key": ("[server]\nprot = 1\n", ("server.prot", "port")),
  "an unknown section": ("[sevrer]\nport = 1\n", ("[sevrer]", "server")),
  "a wrong type": ('[server]\nport = "http"\n', ("server.port", "integer", "'http'")),
  "a value out of range": ("[server]\nport = 70000\n", ("server.port", "65535")),
  "no TOML": ("[server\n", ("TOML",)),
  "a proportion that cannot work": (
    "[server]\nheartbeat = 20\nsession_lease = 30\n",
    ("server.session_lease", "server.heartbeat"),
  ),
}
VARIABLES = {
  "HETUFLOW_SERVER_PROT": "1",
  "HETUFLOW_SERVER_PORT": "many",
  "HETUFLOW_DATABASE_URL": "mysql://x",
}


async def start(module: str, *arguments: object, **variables: str) -> str:
  """Start a program that must refuse its settings; return its one line."""
  with trio.fail_after(LIMIT_S):
    done = await trio.run_process(
      [sys.executable, "-m", module, *map(str, arguments)],
      capture_stdout=True,
      stderr=subprocess.STDOUT,
      check=False,
      env=environment(**variables),
    )
  said = done.stdout.decode().splitlines()
  assert done.returncode == 2, said
  assert len(said) == 1, said
  return said[0]


@pytest.mark.parametrize("case", FILES)
async def test_a_wrong_file_is_named_with_key_and_expectation(
  tmp_path: Path, case: str
) -> None:
  text, words = FILES[case]
  file = tmp_path / "app.toml"
  file.write_text(text)
  said = await start("hetuflow.server", "--config", file, "--data-dir", tmp_path)
  for word in words:
    assert word in said, said
  if case != "a proportion that cannot work":
    assert str(file) in said


@pytest.mark.parametrize("module", ["hetuflow.server", "hetuflow.agent"])
async def test_a_missing_file_is_named(tmp_path: Path, module: str) -> None:
  file = tmp_path / "no-such.toml"
  said = await start(module, "--config", file, "--data-dir", tmp_path)
  assert str(file) in said
  assert "no such file" in said


@pytest.mark.parametrize("variable", VARIABLES)
async def test_a_wrong_variable_is_named(tmp_path: Path, variable: str) -> None:
  value = VARIABLES[variable]
  said = await start("hetuflow.server", "--data-dir", tmp_path, **{variable: value})
  assert variable in said
  assert "expected" in said


async def test_an_agent_judges_its_settings_too(tmp_path: Path) -> None:
  folder = ("--data-dir", tmp_path)
  said = await start("hetuflow.agent", *folder, HETUFLOW_AGENT_TOKNE="x")
  assert "HETUFLOW_AGENT_TOKNE" in said
  said = await start("hetuflow.agent", *folder, "--server", "http://127.0.0.1")
  assert "--server" in said
  said = await start("hetuflow.agent", *folder, "--token-file", tmp_path / "none")
  assert str(tmp_path / "none") in said
  said = await start("hetuflow.agent", *folder, "--import", "no_such_module")
  assert "no_such_module" in said


@pytest.mark.parametrize("module", ["hetuflow.server", "hetuflow.agent"])
async def test_an_unknown_flag_is_a_wrong_call(tmp_path: Path, module: str) -> None:
  with trio.fail_after(LIMIT_S):
    done = await trio.run_process(
      [sys.executable, "-m", module, "--no-such-flag"],
      capture_stderr=True,
      check=False,
      env=environment(),
    )
  assert done.returncode == 2
  assert b"--no-such-flag" in done.stderr


async def test_a_secret_in_a_wrong_setting_is_not_shown(tmp_path: Path) -> None:
  url = "mysql://joe:verysecret@db/x"
  said = await start(
    "hetuflow.server", "--data-dir", tmp_path, HETUFLOW_DATABASE_URL=url
  )
  assert "verysecret" not in said


async def test_flags_beat_environment_beats_file(folder: Path) -> None:
  file = folder / "app.toml"
  file.write_text('[server]\nname = "from-file"\nhorizon = 77\n[agent]\nhold = 5\n')
  env = {"HETUFLOW_SERVER_NAME": "from-env", "HETUFLOW_SERVER_HORIZON": "88"}
  with trio.fail_after(LIMIT_S):
    flags = ("--config", file)
    async with running_server(folder, *flags, name="from-flag", env=env):
      shown = (await Command(data_dir=folder)("status", "--json")).ok().json
  assert [server["name"] for server in shown["servers"]] == ["from-flag"]


async def test_a_port_in_use_ends_the_start_with_one_line(folder: Path) -> None:
  with trio.fail_after(LIMIT_S):
    async with running_server(folder) as server:
      port = server.url.rpartition(":")[2]
      done = await trio.run_process(
        [sys.executable, "-m", "hetuflow.server", "--data-dir", folder, "--port", port],
        capture_stderr=True,
        check=False,
        env=environment(),
      )
  assert done.returncode == 1
  assert done.stderr.decode().strip().endswith("Address already in use")
  assert b"Traceback" not in done.stderr
