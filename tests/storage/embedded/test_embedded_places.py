"""The embedded PostgreSQL among users: who runs it, where it lies, who gets in."""

import os
import shutil
import signal
import stat
import sys
from pathlib import Path

import pytest
import trio
from embedded_openers import (
  LIMIT_SECONDS,
  NOBODY,
  VICTIM,
  as_root,
  homes_below,
  opener,
  query,
  said,
  server_processes,
)

from hetuflow.errors import StorageError
from hetuflow.storage.embedded import binaries, open_embedded
from hetuflow.storage.embedded.account import find_account


async def test_only_we_can_read_the_password_and_enter_the_folders(
  data_dir: Path,
) -> None:
  with trio.fail_after(LIMIT_SECONDS):
    async with open_embedded(data_dir) as cluster:
      home = cluster.statistics().folder
      modes = {
        path: stat.S_IMODE(path.stat().st_mode)
        for path in (data_dir / "postgres.password", home, home / "sockets")
      }
      assert list(modes.values()) == [0o600, 0o700, 0o700]
      assert (data_dir / "postgres.password").stat().st_uid == os.geteuid()
      assert not (home / "password").exists()


async def test_the_password_is_asked_for(data_dir: Path) -> None:
  with trio.fail_after(LIMIT_SECONDS):
    async with open_embedded(data_dir) as cluster:
      password = (data_dir / "postgres.password").read_text()
      wrong = cluster.dsn.replace(password, "guessed")
      result = await trio.run_process(
        [cluster.binaries / "psql", wrong, "-XAtc", "SELECT 1"],
        capture_stderr=True,
        check=False,
      )
      assert b"password authentication failed" in result.stderr


async def test_a_lost_password_file_is_named(data_dir: Path) -> None:
  with trio.fail_after(LIMIT_SECONDS):
    async with open_embedded(data_dir):
      pass
    (data_dir / "postgres.password").unlink()
    with pytest.raises(StorageError, match=r"postgres\.password is missing"):
      async with open_embedded(data_dir):
        pytest.fail("opened")


async def test_a_long_path_gets_a_short_private_socket_folder(data_dir: Path) -> None:
  deep = data_dir / ("long" * 25)
  with trio.fail_after(LIMIT_SECONDS):
    async with open_embedded(deep) as cluster:
      sockets = (deep / "postgres" / "sockets").resolve()
      assert sockets.parent == Path("/tmp")
      assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
      assert await query(cluster, "SELECT 1") == "1"
    assert not sockets.exists()
    async with open_embedded(deep) as cluster:
      assert await query(cluster, "SELECT 1") == "1"


@pytest.mark.parametrize("name", ["a b", "a,b:c", "%2F$(x)'\"\\", "größe"])
async def test_a_path_with_odd_characters_works(data_dir: Path, name: str) -> None:
  with trio.fail_after(LIMIT_SECONDS):
    async with open_embedded(data_dir / name) as cluster:
      assert await query(cluster, "SELECT 1") == "1"


async def test_foreign_settings_in_the_environment_do_no_harm(
  data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  for name, value in {"PGPORT": "1", "PGPASSWORD": "x", "PGDATA": "/nowhere"}.items():
    monkeypatch.setenv(name, value)
  with trio.fail_after(LIMIT_SECONDS):
    async with open_embedded(data_dir) as cluster:
      assert await query(cluster, "SELECT 1") == "1"


@as_root
async def test_as_root_it_runs_under_another_user(data_dir: Path) -> None:
  with trio.fail_after(LIMIT_SECONDS):
    async with open_embedded(data_dir):
      owners = {process.uids().real for process in server_processes(data_dir)}
      assert owners == {find_account().uid}


@as_root
async def test_an_ordinary_user_has_one_too(data_dir: Path) -> None:
  os.chown(data_dir, NOBODY, NOBODY)
  with trio.fail_after(LIMIT_SECONDS):
    async with opener(data_dir, NOBODY) as process:
      assert (await said(process))[1] == str(NOBODY)
      owners = {process.uids().real for process in server_processes(data_dir)}
      assert owners == {NOBODY}
    assert process.returncode == 0


@as_root
async def test_another_user_cannot_connect_even_with_the_password(
  data_dir: Path,
) -> None:
  with trio.fail_after(LIMIT_SECONDS):
    async with open_embedded(data_dir) as cluster:
      result = await trio.run_process(
        [cluster.binaries / "psql", cluster.dsn, "-XAtc", "SELECT 1"],
        capture_stderr=True,
        check=False,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
      )
      assert b"Permission denied" in result.stderr


@as_root
async def test_a_data_dir_closed_to_the_account_points_to_a_folder_of_its_own(
  data_dir: Path, state_dir: Path
) -> None:
  closed = data_dir / "closed"
  closed.mkdir(mode=0o700)
  with trio.fail_after(LIMIT_SECONDS):
    async with open_embedded(closed, state_dir=state_dir) as cluster:
      home = cluster.statistics().folder
      assert home.parent == state_dir
      assert (closed / "postgres").readlink() == home
      await query(cluster, "CREATE TABLE kept AS SELECT 7 AS n")
    async with open_embedded(closed, state_dir=state_dir) as cluster:
      assert await query(cluster, "SELECT n FROM kept") == "7"


@as_root
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_server_killed_while_it_links_its_home_leaves_none_behind(
  data_dir: Path, state_dir: Path, when: str
) -> None:
  closed = data_dir / "closed"
  closed.mkdir(mode=0o700)
  with trio.fail_after(LIMIT_SECONDS):
    result = await trio.run_process(
      [sys.executable, "-c", VICTIM, closed, state_dir, when], check=False
    )
    assert result.returncode == -signal.SIGKILL
    async with open_embedded(closed, state_dir=state_dir) as cluster:
      home = cluster.statistics().folder
    assert homes_below(state_dir) == [home]


@as_root
async def test_a_data_dir_made_again_is_empty(data_dir: Path, state_dir: Path) -> None:
  closed = data_dir / "closed"
  with trio.fail_after(LIMIT_SECONDS):
    homes = []
    for _ in range(2):
      closed.mkdir(mode=0o700)
      async with open_embedded(closed, state_dir=state_dir) as cluster:
        homes.append(cluster.statistics().folder)
      shutil.rmtree(closed)
    assert homes[0] != homes[1]


@as_root
async def test_programs_the_account_cannot_reach_are_copied_once(
  data_dir: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  closed = data_dir / "closed"
  closed.mkdir(mode=0o700)
  (closed / "site").symlink_to(binaries._site_packages())
  monkeypatch.setattr(binaries, "_site_packages", lambda: closed / "site")
  with trio.fail_after(LIMIT_SECONDS):
    async with open_embedded(data_dir, state_dir=state_dir) as cluster:
      assert cluster.binaries.is_relative_to(state_dir)
      made_at = cluster.binaries.stat().st_ctime_ns
    async with open_embedded(data_dir, state_dir=state_dir) as cluster:
      assert cluster.binaries.stat().st_ctime_ns == made_at
