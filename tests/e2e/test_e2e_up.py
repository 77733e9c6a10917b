"""``hetuflow up``: from an empty folder to a running system, and back to nothing."""

import json
import signal
from pathlib import Path
from time import monotonic

import psutil
import trio
from support.commands import Command
from support.programs import (
  Up,
  client_of,
  postmaster_of,
  running_up,
  start_up,
  wait_until,
)
from support.work import all_of

from hetuflow.client.calls import jobs, tasks

LIMIT_S = 90.0
EXAMPLES = {"hello", "disk-report", "noop", "third-time-lucky", "clock"}


async def wait_finished(up: Up, within: float = 20.0) -> None:
  """Wait until some task has succeeded."""
  async with client_of(up) as client:
    call = tasks.list_tasks(status="succeeded", limit=1)

    async def some() -> bool:
      """Tell whether there is one."""
      return bool((await client.send(call)).items)

    await wait_until(some, within)


async def test_an_empty_folder_becomes_a_system_that_runs_its_examples(
  folder: Path,
) -> None:
  with trio.fail_after(LIMIT_S):
    async with running_up(folder) as up:
      async with client_of(up) as client:
        made = await all_of(client, jobs.list_jobs(namespace_id="default"))
      assert {job.name for job in made} == EXAMPLES
      await wait_finished(up)

      async def hello() -> str:
        """Read what the newest ``hello`` has said, if there is one."""
        result = await Command(data_dir=folder)("logs", "hello")
        return result.text if result.code == 0 else ""

      assert "hello from hello, planned for 2" in await wait_until(hello, 25)
      status = (await Command(data_dir=folder)("status", "--json")).ok().json
      assert status["health"]["status"] == "ok"
      assert [agent["status"] for agent in status["agents"]] == ["online"]
      assert {child["status"] for child in status["tree"]["children"]} == {"running"}


async def test_an_interrupt_ends_all_of_it_in_order(folder: Path) -> None:
  with trio.fail_after(LIMIT_S):
    up = await start_up(folder)
    family = up.children()
    postmaster = postmaster_of(folder)
    assert postmaster is not None
    assert up.child("hetuflow.server")
    assert up.child("hetuflow.agent")
    began = monotonic()
    assert await up.interrupt() == 0, up.log_text()
    assert monotonic() - began < 20
    await wait_until(lambda: not any(map(is_alive, [*family, postmaster])), 5)
    assert not (folder / "server.json").exists()
    assert not any((folder / "servers").iterdir())
    assert "Traceback" not in up.log_text()


def is_alive(process: psutil.Process) -> bool:
  """Tell whether a process still runs; one that waits to be reaped does not."""
  try:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
  except psutil.NoSuchProcess:
    return False


async def test_a_second_start_finds_its_jobs_and_is_quick(folder: Path) -> None:
  with trio.fail_after(LIMIT_S):
    async with running_up(folder) as up:
      cli = Command(data_dir=folder)
      for name in EXAMPLES:
        (await cli("jobs", "delete", "--yes", name)).ok()
      made = (await cli("jobs", "create", "mine", "--", "/bin/true")).ok().text
      assert await up.interrupt() == 0
    began = monotonic()
    async with running_up(folder) as up:
      run = await cli("run", "mine", "--follow")
      took = monotonic() - began
      assert run.code == 0, run.complaint
      shown = (await cli("jobs", "list", "--json")).ok().json
      assert [job["name"] for job in shown] == ["mine"]
      assert shown[0]["id"] in made
      assert "loaded examples" not in up.log_text()
    # Said to be at most 5 s; this machine may be busy with other tests.
    assert took < 30, f"first task finished after {took:.1f} s"


async def test_a_killed_agent_is_started_again_and_told(folder: Path) -> None:
  with trio.fail_after(LIMIT_S):
    async with running_up(folder, "--no-examples") as up:
      cli = Command(data_dir=folder)
      first = up.child("hetuflow.agent")
      assert first is not None
      first.send_signal(signal.SIGKILL)
      await up.wait_for(lambda: "hetuflow.agent ended" in up.log_text())
      (await cli("jobs", "create", "after", "--", "/bin/true")).ok()
      assert (await cli("run", "after", "--follow")).code == 0
      second = up.child("hetuflow.agent")
      assert second is not None
      assert second.pid != first.pid


async def test_ready_means_that_the_files_of_the_folder_tell_the_way(
  folder: Path,
) -> None:
  with trio.fail_after(LIMIT_S):
    async with running_up(folder, "--no-examples"):
      said = json.loads((folder / "server.json").read_text())
      assert set(said) >= {"url", "pid", "version", "server_id"}
      assert psutil.pid_exists(said["pid"])
      for name in ("admin.key", "agent.token"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
