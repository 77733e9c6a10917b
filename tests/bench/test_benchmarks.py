"""Each benchmark runs by itself, tells the truth in its last line, leaves nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

ROOT = Path(__file__).parents[2]
TIME_LIMIT_S = 120.0
POLL_S = 0.02


async def start(name: str, *options: str, folder: Path) -> trio.Process:
  """Start a benchmark whose temporary files go below a folder of the test."""
  return await trio.lowlevel.open_process(
    [sys.executable, str(ROOT / "bench" / f"{name}.py"), *options],
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    env={**os.environ, "PYTHONPATH": str(ROOT), "HETUFLOW_BENCH_MARK": str(folder)},
    start_new_session=True,
  )


def descendants(folder: Path) -> list[psutil.Process]:
  """Find what lives of a benchmark, wherever it has gone: all inherit its mark."""
  found = []
  for process in psutil.process_iter():
    try:
      if process.environ().get("HETUFLOW_BENCH_MARK") == str(folder):
        found.append(process)
    except psutil.Error:
      continue
  return found


def remains(folders: set[str]) -> list[str]:
  """Find which folders still exist, and what still works in one: PostgreSQL too."""
  left = [folder for folder in folders if Path(folder).exists()]
  for process in psutil.process_iter():
    try:
      place = process.cwd()
    except psutil.Error:
      continue
    if any(place.startswith(folder) for folder in folders):
      left.append(str(process))
  return left


async def run(name: str, *options: str, folder: Path) -> tuple[dict[str, Any], str]:
  """Run a benchmark; return its last line, read, and everything before it."""
  with trio.fail_after(TIME_LIMIT_S):
    process = await start(name, *options, folder=folder)
    assert process.stdout is not None
    said = b"".join([data async for data in process.stdout]).decode()
    code = await process.wait()
  assert code == 0, said
  *lines, last = said.splitlines()
  figures: dict[str, Any] = json.loads(last)
  assert figures["benchmark"] == name
  assert figures["correct"] is True
  assert figures["machine"]["cpus"] >= 1
  assert descendants(folder) == []
  return figures, "\n".join(lines)


def assert_ordered(latency: dict[str, float]) -> None:
  """Demand of the figures of a latency that they can be true."""
  points = [latency[name] for name in ("min", "p50", "p99", "p99.9", "max")]
  assert points == sorted(points)
  assert points[0] > 0


async def test_dispatch_counts_tasks_cpu_seconds_and_statements(
  tmp_path: Path,
) -> None:
  figures, said = await run(
    "dispatch", "--tasks", "50", "--runs", "1", "--profile", folder=tmp_path
  )
  assert (figures["tasks"], figures["runs"]) == (50, 1)
  rates = figures["tasks_per_second"]
  assert 0 < rates["min"] <= rates["median"] <= rates["max"]
  assert set(figures["cpu_seconds_per_1000"]) == {"server", "agent", "postgres"}
  assert figures["transactions_per_1000"]["median"] > 0
  assert "run 1:" in said
  statements = figures["profile"]["statements"]
  assert statements["claim_tasks"]["count"] >= 1
  assert statements["record_updates"]["execute_ms"] > 0
  assert set(figures["profile"]["functions"]) <= {"server", "agent"}


async def test_process_compares_with_the_machine_itself(tmp_path: Path) -> None:
  figures, said = await run(
    "process", "--json", "--tasks", "40", "--runs", "1", folder=tmp_path
  )
  assert said == ""
  assert set(figures["reference_per_second"]) == {"posix_spawn", "trio"}
  ours = figures["tasks_per_second"]["median"]
  bare = figures["reference_per_second"]["posix_spawn"]["median"]
  assert figures["ratio"] == pytest.approx(ours / bare, rel=0.02)


async def test_lateness_finds_nothing_early_and_every_second_once(
  tmp_path: Path,
) -> None:
  figures, _ = await run(
    "lateness",
    *("--rate", "20", "--seconds", "1", "--noop-rate", "100", "--noop-seconds", "0.5"),
    *("--cron", "3", "--ahead", "2"),
    folder=tmp_path,
  )
  assert figures["early"] == {"processes": 0, "processes_reported": 0, "noop": 0}
  assert (figures["processes"]["tasks"], figures["noop"]["tasks"]) == (20, 50)
  assert_ordered(figures["processes"]["start_error_ms"])
  assert_ordered(figures["noop"]["reported_start_error_ms"])
  cron = figures["cron"]
  assert cron["seconds"] == cron["instances"] == 3
  assert (cron["missing"], cron["doubled"], cron["early"]) == (0, 0, 0)


async def test_trigger_measures_from_the_call_to_the_process(tmp_path: Path) -> None:
  figures, _ = await run("trigger", "--runs", "5", folder=tmp_path)
  assert figures["runs"] == 5
  assert_ordered(figures["start_ms"])
  assert_ordered(figures["answer_ms"])


async def test_failover_measures_kills_and_stops_of_leaders_and_of_others(
  tmp_path: Path,
) -> None:
  figures, said = await run(
    "failover", "--rounds", "1", "--namespaces", "10", folder=tmp_path
  )
  assert (figures["rounds"], figures["namespaces"]) == (1, 10)
  killed, stopped = figures["leader_killed"], figures["leader_stopped"]
  assert 0 < stopped["leader_ms"]["median"] < killed["leader_ms"]["median"]
  for kind in (killed, stopped):
    assert kind["leader_ms"]["median"] <= kind["bindings_ms"]["median"]
  assert set(figures["follower_killed"]) == {"bindings_ms"}
  assert "Traceback" not in said


async def test_schedules_are_planned_each_and_counted(tmp_path: Path) -> None:
  figures, _ = await run(
    "schedules",
    *("--schedules", "120", "--jobs", "3", "--minutes", "0.05"),
    folder=tmp_path,
  )
  assert figures["tasks_per_second"] > 0
  assert figures["most_behind"] == 0
  assert 0 < figures["empty_pass_ms"]["p50"] <= figures["empty_pass_ms"]["max"]


async def test_backlog_compares_with_an_empty_queue(tmp_path: Path) -> None:
  figures, _ = await run(
    "backlog",
    *("--tasks", "40", "--runs", "1", "--idle", "100", "--history", "100"),
    folder=tmp_path,
  )
  assert set(figures["ratios"]) == {"idle tasks", "idle tasks and history"}
  assert (figures["idle"], figures["history"]) == (200, 100)


async def test_an_interrupted_benchmark_leaves_no_process_and_no_folder(
  tmp_path: Path,
) -> None:
  with trio.fail_after(TIME_LIMIT_S):
    process = await start("dispatch", "--runs", "1000", folder=tmp_path)
    assert process.stdout is not None
    said = b""
    while b"run 1:" not in said:
      said += await process.stdout.receive_some()
    folders = {
      word
      for each in descendants(tmp_path)
      for word in each.cmdline()
      if word.startswith("/tmp/hfbench-")
    }
    assert folders
    process.send_signal(signal.SIGINT)
    code = await process.wait()
  assert code == 130
  assert descendants(tmp_path) == []
  assert not remains(folders)
