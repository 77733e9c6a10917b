"""The embedded PostgreSQL from start to stop, with real clusters and processes."""

import asyncio
import os
import signal
from pathlib import Path

import asyncpg
import psutil
import pytest
import trio
from embedded_openers import (
  LIMIT_SECONDS,
  made,
  opener,
  query,
  said,
  server_processes,
  start_process,
)

from hetuflow.errors import StorageError
from hetuflow.storage.embedded import initialise, open_embedded
from hetuflow.storage.embedded.account import find_account
from hetuflow.storage.embedded.layout import Home
from hetuflow.storage.embedded.postmaster import ensure_running


async def test_a_second_start_finds_what_the_first_one_stored(
  data_dir: Path, state_dir: Path
) -> None:
  with trio.fail_after(LIMIT_SECONDS):
    async with open_embedded(data_dir, state_dir=state_dir) as cluster:
      assert (await query(cluster, "SHOW server_version")).startswith("18")
      await query(cluster, "CREATE TABLE kept AS SELECT 7 AS n")
    async with open_embedded(data_dir, state_dir=state_dir) as cluster:
      assert await query(cluster, "SELECT n FROM kept") == "7"


async def test_the_cluster_is_durable_speaks_utf8_and_lives_in_utc(
  data_dir: Path,
) -> None:
  with trio.fail_after(LIMIT_SECONDS):
    async with open_embedded(data_dir) as cluster:
      for name, value in {
        "fsync": "on",
        "synchronous_commit": "on",
        "data_checksums": "on",
        "server_encoding": "UTF8",
        "TimeZone": "UTC",
        "listen_addresses": "",
      }.items():
        assert await query(cluster, f"SHOW {name}") == value


async def test_a_signal_to_our_terminal_does_not_reach_it(data_dir: Path) -> None:
  with trio.fail_after(LIMIT_SECONDS):
    async with open_embedded(data_dir) as cluster:
      assert os.getsid(cluster.statistics().pid) != os.getsid(0)


async def test_asyncpg_takes_the_address(data_dir: Path) -> None:
  async def ask(dsn: str) -> object:
    """Ask once, over asyncpg's own loop."""
    connection = await asyncpg.connect(dsn)
    try:
      return await connection.fetchval("SELECT current_database()")
    finally:
      await connection.close()

  with trio.fail_after(LIMIT_SECONDS):
    async with open_embedded(data_dir / "a b") as cluster:
      answer = await trio.to_thread.run_sync(lambda: asyncio.run(ask(cluster.dsn)))
      assert answer == "hetuflow"


async def test_no_process_is_left_after_the_block(data_dir: Path) -> None:
  with trio.fail_after(LIMIT_SECONDS):
    async with open_embedded(data_dir):
      assert server_processes(data_dir)
    assert not server_processes(data_dir)


async def test_two_openers_share_one_postmaster_and_the_last_one_stops_it(
  data_dir: Path,
) -> None:
  with trio.fail_after(LIMIT_SECONDS):
    async with open_embedded(data_dir) as first:
      async with opener(data_dir) as other:
        assert (await said(other))[0] == str(first.statistics().pid)
      assert await query(first, "SELECT 1") == "1"
    assert not server_processes(data_dir)


async def test_the_one_who_started_it_may_leave_first(data_dir: Path) -> None:
  with trio.fail_after(LIMIT_SECONDS):
    async with opener(data_dir) as starter:
      pid = int((await said(starter))[0])
      async with open_embedded(data_dir) as cluster:
        await starter.stdin.aclose()
        assert await starter.wait() == 0
        assert await query(cluster, "SELECT 1") == "1"
        assert cluster.statistics().pid == pid


async def test_a_killed_server_leaves_a_database_the_next_one_joins(
  data_dir: Path,
) -> None:
  with trio.fail_after(LIMIT_SECONDS):
    async with opener(data_dir) as victim:
      pid = int((await said(victim))[0])
      victim.kill()
      await victim.wait()
    async with open_embedded(data_dir) as cluster:
      assert cluster.statistics().pid == pid
    assert not server_processes(data_dir)


async def test_a_server_killed_while_it_makes_the_database_is_in_nobodys_way(
  data_dir: Path,
) -> None:
  with trio.fail_after(LIMIT_SECONDS):
    for sign in ("postgres.lock", "postgres.*.new", "postgres.*.new/data", "postgres"):
      async with opener(data_dir) as victim:
        while not made(data_dir, sign):
          await trio.lowlevel.checkpoint()
        victim.kill()
    async with open_embedded(data_dir) as cluster:
      assert await query(cluster, "SELECT 1") == "1"


async def test_servers_started_together_make_one_cluster(data_dir: Path) -> None:
  with trio.fail_after(LIMIT_SECONDS):
    async with opener(data_dir) as one, opener(data_dir) as two:
      assert await said(one) == await said(two)


async def test_a_killed_postmaster_is_started_again_though_its_backends_are_busy(
  data_dir: Path,
) -> None:
  with trio.fail_after(LIMIT_SECONDS):
    async with open_embedded(data_dir) as cluster, trio.open_nursery() as nursery:
      await query(cluster, "CREATE TABLE kept AS SELECT 7 AS n")
      busy = "SELECT count(*) FROM generate_series(1, 1e12)"
      command = [cluster.binaries / "psql", cluster.dsn, "-XAtc", busy]
      await start_process(nursery, command, capture_stderr=True)
      running = f"SELECT count(*) FROM pg_stat_activity WHERE query = '{busy}'"
      while await query(cluster, running) != "1":
        pass
      killed = cluster.statistics().pid
      os.kill(killed, signal.SIGKILL)
      while not await cluster.restart_once():
        await trio.lowlevel.checkpoint()
      assert cluster.statistics().pid != killed
      assert cluster.statistics().restarts == 1
      assert await query(cluster, "SELECT n FROM kept") == "7"


async def test_run_watches_the_postmaster(data_dir: Path) -> None:
  with trio.fail_after(LIMIT_SECONDS):
    async with open_embedded(data_dir) as cluster, trio.open_nursery() as nursery:
      await nursery.start(cluster.run)
      os.kill(cluster.statistics().pid, signal.SIGKILL)
      while cluster.statistics().restarts == 0:
        await trio.lowlevel.checkpoint()
      assert await query(cluster, "SELECT 1") == "1"
      nursery.cancel_scope.cancel()


async def test_a_living_postmaster_is_left_alone(data_dir: Path) -> None:
  with trio.fail_after(LIMIT_SECONDS):
    async with open_embedded(data_dir) as cluster:
      assert not await cluster.restart_once()


async def test_a_pid_that_now_belongs_to_a_stranger_does_not_block_a_start(
  data_dir: Path,
) -> None:
  with trio.fail_after(LIMIT_SECONDS):
    async with open_embedded(data_dir):
      pid_file = data_dir / "postgres" / "data" / "postmaster.pid"
      lines = pid_file.read_text().splitlines(keepends=True)
    # A process of the same user: the only kind PostgreSQL itself is afraid of.
    account = find_account()
    identity = {"user": account.uid, "group": account.gid} if account.switched else {}
    async with trio.open_nursery() as nursery:
      stranger = await start_process(nursery, ["/bin/sleep", "60"], **identity)
      for file in (pid_file, data_dir / "postgres/sockets/.s.PGSQL.5432.lock"):
        file.write_text("".join([f"{stranger.pid}\n", *lines[1:]]))
        account.own(file)
      async with open_embedded(data_dir) as cluster:
        assert await query(cluster, "SELECT 1") == "1"
      assert stranger.returncode is None
      stranger.kill()


async def test_a_start_that_fails_says_why(data_dir: Path) -> None:
  with trio.fail_after(LIMIT_SECONDS):
    async with open_embedded(data_dir):
      pass
    with (data_dir / "postgres/data/postgresql.conf").open("a") as settings:
      settings.write("work_mem = 'plenty'\n")
    with pytest.raises(
      StorageError, match=r"does not start: .*FATAL.*postgresql\.conf"
    ):
      async with open_embedded(data_dir):
        pytest.fail("started")


async def test_a_log_that_cannot_be_written_is_named(data_dir: Path) -> None:
  with trio.fail_after(LIMIT_SECONDS):
    async with open_embedded(data_dir):
      pass
    home = data_dir / "postgres"
    home.chmod(0o500)
    try:
      with pytest.raises(StorageError, match=r"postgres\.log.*ermission denied"):
        async with open_embedded(data_dir):
          pytest.fail("started")
    finally:
      home.chmod(0o700)


async def test_a_program_that_fails_gives_its_reason_not_its_last_words() -> None:
  script = "echo 'initdb: error: no space left'; echo 'initdb: tidying up'; exit 1"
  with pytest.raises(StorageError, match="sh failed: initdb: error: no space left"):
    await initialise._run_or_fail(find_account(), ["/bin/sh", "-c", script])


async def test_a_data_dir_that_cannot_be_made_is_named(data_dir: Path) -> None:
  (data_dir / "file").write_text("")
  with pytest.raises(StorageError, match="Not a directory"):
    async with open_embedded(data_dir / "file" / "below"):
      pytest.fail("started")


async def test_an_open_cancelled_half_way_leaves_nothing_in_the_way(
  data_dir: Path,
) -> None:
  with trio.fail_after(LIMIT_SECONDS):
    for patience in (0.05, 0.4, 0.8):
      with trio.move_on_after(patience):
        async with open_embedded(data_dir):
          await trio.sleep_forever()
      assert not server_processes(data_dir)
    async with open_embedded(data_dir) as cluster:
      assert await query(cluster, "SELECT 1") == "1"


async def test_a_start_cancelled_before_the_program_enters_its_folder_leaves_no_process(
  data_dir: Path,
) -> None:
  account = find_account()
  home = Home(folder=data_dir / "home")
  home.pgdata.mkdir(parents=True)
  slow = data_dir / "bin"
  slow.mkdir()
  program = slow / "postgres"
  program.write_text(f"#!/bin/sh\necho $$ > {home.folder}/pid\nexec sleep 300\n")
  program.chmod(0o755)
  account.own(home.folder)
  pid_file = home.folder / "pid"
  with trio.fail_after(LIMIT_SECONDS):
    async with trio.open_nursery() as nursery:
      nursery.start_soon(ensure_running, home, account, slow)
      while not (pid_file.exists() and pid_file.read_text().endswith("\n")):
        await trio.lowlevel.checkpoint()
      nursery.cancel_scope.cancel()
    pid = int(pid_file.read_text())
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie":
      await trio.lowlevel.checkpoint()
