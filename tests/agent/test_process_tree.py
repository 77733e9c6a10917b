"""Who belongs to a tree, and that it is told to end once, whatever it looks like."""

import os
import signal
import subprocess
import sys
import threading

import pytest
import trio

from hetuflow.agent.process import LaunchSpec, census, terminate_tree
from hetuflow.agent.process.launcher import start_process
from hetuflow.agent.process.stat import read_stat
from hetuflow.agent.process.tree import open_exactly

LEADERLESS = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(1000,)).start()
ctypes.CDLL(None).pthread_exit(None)
"""
COUNTER = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
print("ready", flush=True)
count = 0
while signal.sigtimedwait({signal.SIGTERM}, 0.3 if count else 60):
  count += 1
print(count, flush=True)
"""
HIDDEN = """
import trio
from hetuflow.agent.process.launcher import start_process
from hetuflow.agent.process import LaunchSpec, terminate_tree

async def main():
  spec = LaunchSpec(argv=("sleep", "1000"), environment={"PATH": "/usr/bin:/bin"})
  running = await start_process(spec)
  print(await terminate_tree(running, grace=5), running.poll().signal)

trio.run(main)
"""


def python(code, **environment) -> LaunchSpec:
  """A script for Python."""
  return LaunchSpec(argv=(sys.executable, "-S", "-c", code), environment=environment)


async def test_a_process_whose_first_thread_has_ended_is_not_taken_for_dead():
  with trio.fail_after(20):
    running = await start_process(python(LEADERLESS))
    while read_stat(running.pid).state != "Z":  # noqa: ASYNC110 - nothing tells of it
      await trio.sleep(0.01)
    assert running.poll() is None
    assert await terminate_tree(running, grace=0)
    assert running.poll().signal == signal.SIGKILL
    running.close()


async def test_every_process_gets_one_sigterm():
  with trio.fail_after(60):
    for _ in range(5):
      running = await start_process(python(COUNTER))
      await trio.lowlevel.wait_readable(running.stdout)
      os.read(running.stdout, 100)
      assert await terminate_tree(running, grace=30)
      assert os.read(running.stdout, 100) == b"1\n"
      running.close()


def test_a_number_that_a_thread_has_by_now_is_no_process():
  leave = threading.Event()
  thread = threading.Thread(target=leave.wait)
  thread.start()
  try:
    with open_exactly(thread.native_id, 0) as pidfd:
      assert pidfd is None
  finally:
    leave.set()
    thread.join()


async def test_many_trees_that_end_at_once_share_the_reading_of_the_table(monkeypatch):
  readings = []
  read = census._read

  async def count() -> census.Census:
    readings.append(await read())
    return readings[-1]

  monkeypatch.setattr(census, "_read", count)
  with trio.fail_after(60):
    trees = [await start_process(python("input()")) for _ in range(40)]
    async with trio.open_nursery() as nursery:
      for running in trees:
        nursery.start_soon(lambda running=running: terminate_tree(running, grace=0))
  for running in trees:
    assert running.exit is not None
    running.close()
  assert len(readings) < 40  # each of them needs three


async def test_a_census_under_way_is_left_to_another_when_its_reader_is_cancelled():
  found = []

  async def take():
    found.append(await census.take_census())

  with trio.fail_after(20):
    async with trio.open_nursery() as nursery:
      with trio.CancelScope() as scope:
        scope.cancel()
        await census.take_census()
      nursery.start_soon(take)
      nursery.start_soon(take)
  assert len(found) == 2
  assert {1} <= {stat.pid for stat in found[0].stats}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to hide processes")
def test_processes_hidden_by_the_kernel_do_not_keep_ours_from_ending():
  script = (
    "mount -t proc -o hidepid=1 proc /proc && "
    f'exec setpriv --bounding-set -sys_ptrace "{sys.executable}" -c "$0"'
  )
  done = subprocess.run(
    ["unshare", "--mount", "sh", "-c", script, HIDDEN],
    capture_output=True,
    text=True,
    timeout=60,
    cwd="/",
    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
  )
  if "mount" in done.stderr or "unshare" in done.stderr:
    pytest.skip("no mount namespaces here")
  assert (done.stdout, done.stderr) == ("True 15\n", "")
