"""How a server is found, and to whom a key is given."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import hetuflow
from hetuflow.client import find_server
from hetuflow.client.place import find_data_dir
from hetuflow.errors import SettingsError
from hetuflow.ready import Ready, publish_ready, read_ready

LOCAL = "http://127.0.0.1:8080"
OTHER = "http://[::1]:9"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
  """Lay out a data folder as it is while two servers run."""
  (tmp_path / "servers").mkdir()
  files = {"server.json": LOCAL, "servers/a.json": LOCAL, "servers/b.json": OTHER}
  with ExitStack() as running:
    for name, url in files.items():
      text = json.dumps({"url": url}).encode()
      running.enter_context(publish_ready(tmp_path / name, text))
    (tmp_path / "admin.key").write_text("local\n")
    yield tmp_path


def test_arguments_win_over_everything(folder: Path) -> None:
  environ = {"HETUFLOW_URL": "http://b", "HETUFLOW_API_KEY": "env"}
  place = find_server(server="http://a/", key="k", data_dir=folder, environ=environ)
  assert (place.url, place.key) == ("http://a", "k")


def test_the_environment_wins_over_files(folder: Path) -> None:
  environ = {"HETUFLOW_URL": "http://b", "HETUFLOW_API_KEY": "env"}
  place = find_server(data_dir=folder, environ=environ)
  assert (place.url, place.key) == ("http://b", "env")


def test_a_server_of_this_machine_is_found_by_its_folder(folder: Path) -> None:
  place = find_server(environ={"HETUFLOW_DATA_DIR": str(folder)})
  assert (place.url, place.key) == (LOCAL, "local")


def test_the_key_of_the_folder_opens_each_of_its_servers(folder: Path) -> None:
  place = find_server(server="http://[::1]:9/", data_dir=folder, environ={})
  assert place.key == "local"


def test_the_key_of_the_folder_is_not_given_to_strangers(folder: Path) -> None:
  with pytest.raises(SettingsError, match="HETUFLOW_API_KEY"):
    find_server(server="http://elsewhere", data_dir=folder, environ={})


def test_without_a_server_the_error_says_how_to_start_one(tmp_path: Path) -> None:
  with pytest.raises(SettingsError, match="hetuflow up"):
    find_server(data_dir=tmp_path, environ={})


def test_a_broken_file_is_named(folder: Path) -> None:
  (folder / "server.json").write_text("{")
  with pytest.raises(SettingsError, match=r"server\.json"):
    find_server(data_dir=folder, environ={})


def test_what_is_no_url_is_refused(folder: Path) -> None:
  with pytest.raises(SettingsError, match="no URL"):
    find_server(server="localhost:8080", key="k", data_dir=folder, environ={})


def test_a_key_does_not_show_in_a_traceback(folder: Path) -> None:
  assert "local'" not in repr(find_server(data_dir=folder, environ={}))


def test_an_argument_names_the_folder_before_the_environment(tmp_path: Path) -> None:
  environ = {"HETUFLOW_DATA_DIR": "/elsewhere"}
  assert find_data_dir(tmp_path, environ) == tmp_path
  assert find_data_dir(None, environ) == Path("/elsewhere")


@pytest.mark.parametrize("url", ["http://[::1", "http://a\0b", "http://\udcff"])
def test_a_url_that_no_request_can_have_is_refused(folder: Path, url: str) -> None:
  with pytest.raises(SettingsError, match="is no URL"):
    find_server(server=url, key="k", data_dir=folder, environ={})


@pytest.mark.parametrize("key", [b"k\xe2\x82\xac", b"k\xff", b"a\nb", b"a\0b"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_shown(
  folder: Path, key: bytes
) -> None:
  (folder / "admin.key").write_bytes(key)
  with pytest.raises(SettingsError) as refused:
    find_server(data_dir=folder, environ={})
  assert str(refused.value) == f"the key for {LOCAL} has characters that no key has"


def test_the_key_is_not_given_to_who_took_the_port_of_a_killed_server(
  folder: Path,
) -> None:
  for file in (folder / "server.json", folder / "servers" / "a.json"):
    left = file.with_suffix(".left")
    left.write_bytes(file.read_bytes())  # what a killed server leaves is not locked
    left.replace(file)
  with pytest.raises(SettingsError, match="HETUFLOW_API_KEY"):
    find_server(server=LOCAL, data_dir=folder, environ={})
  # The other one still runs.
  place = find_server(data_dir=folder, environ={})
  assert (place.url, place.key) == (OTHER, "local")
  (folder / "servers" / "b.json").unlink()
  with pytest.raises(SettingsError, match="does not run any more"):
    find_server(data_dir=folder, environ={})


def test_a_lock_ends_with_the_process_that_held_it(tmp_path: Path) -> None:
  file = tmp_path / "server.json"
  script = (
    "import pathlib, sys; from hetuflow.ready import publish_ready\n"
    'with publish_ready(pathlib.Path(sys.argv[1]), b\'{"url": "http://a", "pid": 7}\'):\n'
    "  print('ready', flush=True); sys.stdin.read()\n"
  )
  with subprocess.Popen(
    [sys.executable, "-c", script, str(file)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    cwd=Path(hetuflow.__file__).parents[1],
  ) as process:
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    assert read_ready(file) == Ready(url="http://a", pid=7, is_running=True)
    process.kill()
    process.wait()
    assert read_ready(file) == Ready(url="http://a", pid=7, is_running=False)


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setenv("HOME", "/home/somebody")
  expected = Path("/home/somebody/data")
  assert find_data_dir(None, {"HETUFLOW_DATA_DIR": "~/data"}) == expected
  assert find_data_dir(Path("~/data")) == expected
  with pytest.raises(SettingsError, match="nobody-of-this-name"):
    find_data_dir(Path("~nobody-of-this-name/data"))
