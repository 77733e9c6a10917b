"""What this machine can do without a scheduler: /bin/true per second.

A program of its own, so that nothing else of a benchmark lives in the process that
spawns. Called as ``python bare.py posix_spawn|trio COUNT``; prints the rate. The first
kind uses posix_spawn with a captured pipe and wait4 from two threads, the second
``trio.run_process``. Nothing is stored.
"""

import os
import sys
import threading
import time

import trio

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}
THREADS = 2
CONCURRENT = 8
"""Of ``trio.run_process``: 4 to 16 are equally fast."""
READ_BYTES = 65_536


def spawn_bare(count: int) -> float:
  """Run /bin/true so many times from two threads; return how many a second."""
  share = count // THREADS

  def work() -> None:
    """Run a share, one after the other."""
    for _ in range(share):
      _spawn_one()

  threads = [threading.Thread(target=work) for _ in range(THREADS)]
  began = time.perf_counter()
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  return share * THREADS / (time.perf_counter() - began)


def _spawn_one() -> None:
  """Run one, read its output to the end, and take its exit code and rusage."""
  reader, writer = os.pipe()
  actions = [(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_DUP2, writer, 2)]
  pid = os.posix_spawn("/bin/true", ["true"], ENVIRONMENT, file_actions=actions)
  os.close(writer)
  while os.read(reader, READ_BYTES):
    pass
  os.close(reader)
  _, status, _ = os.wait4(pid, 0)
  if status != 0:
    raise RuntimeError(f"/bin/true ended with {status}")


async def spawn_with_trio(count: int) -> float:
  """Run /bin/true so many times, some at once; return how many a second."""
  share = count // CONCURRENT

  async def work() -> None:
    """Run a share, one after the other."""
    for _ in range(share):
      await trio.run_process(["/bin/true"], capture_stdout=True, capture_stderr=True)

  began = time.perf_counter()
  async with trio.open_nursery() as nursery:
    for _ in range(CONCURRENT):
      nursery.start_soon(work)
  return share * CONCURRENT / (time.perf_counter() - began)


def main() -> None:
  """Do what the arguments say and print the rate."""
  kind, count = sys.argv[1], int(sys.argv[2])
  print(
    spawn_bare(count) if kind == "posix_spawn" else trio.run(spawn_with_trio, count)
  )


if __name__ == "__main__":
  main()
