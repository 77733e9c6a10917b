"""``make demo``: the tour that shows what hetuflow does."""

import subprocess
import sys
from pathlib import Path

import trio
from support.programs import ROOT, environment

LIMIT_S = 180.0
STEPS = 12


async def test_the_demo_takes_all_its_steps(tmp_path: Path) -> None:
  with trio.fail_after(LIMIT_S):
    done = await trio.run_process(
      [
        *(sys.executable, ROOT / "examples" / "demo.py"),
        *("--seconds", "3", "--tasks", "500"),
      ],
      capture_stdout=True,
      stderr=subprocess.STDOUT,
      check=False,
      cwd=tmp_path,
      env=environment(),
    )
  said = done.stdout.decode()
  assert done.returncode == 0, said
  steps = [line for line in said.splitlines() if line.startswith("ok ")]
  assert len(steps) == STEPS, said


async def test_the_demo_fails_where_a_step_does(tmp_path: Path) -> None:
  with trio.fail_after(LIMIT_S):
    done = await trio.run_process(
      [sys.executable, ROOT / "examples" / "demo.py"],
      capture_stdout=True,
      stderr=subprocess.STDOUT,
      check=False,
      cwd=tmp_path,
      # No server takes such a setting.
      env=environment(HETUFLOW_SERVER_HORIZON="soon"),
    )
  said = done.stdout.decode()
  assert done.returncode == 1, said
  assert "failed   1/" in said
  assert "HETUFLOW_SERVER_HORIZON" in said
