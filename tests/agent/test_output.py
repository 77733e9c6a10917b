"""Output: byte exact, live, bounded, and never in the way of the process's end."""

import os
import sys
from collections import Counter

import trio

from hetuflow.agent.process import LaunchSpec, terminate_tree
from hetuflow.agent.process.chunks import Chunk
from hetuflow.agent.process.launcher import start_process
from hetuflow.agent.process.output import collect

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HETUFLOW_INSTANCE_ID": f"output-{os.getpid()}"}


def shell(script) -> LaunchSpec:
  """A script for the shell."""
  return LaunchSpec(argv=("/bin/sh", "-c", script), environment=ENVIRONMENT)


def python(code) -> LaunchSpec:
  """A script for Python."""
  return LaunchSpec(argv=(sys.executable, "-S", "-c", code), environment=ENVIRONMENT)


async def gather(spec, *, limit=10 << 20, room=10_000):
  """Run to the end; return what was collected and the chunks."""
  send, receive = trio.open_memory_channel[Chunk](room)
  with trio.fail_after(60):
    done = await collect(await start_process(spec), send=send, limit=limit)
  send.close()
  return done, [chunk async for chunk in receive]


def joined(chunks, stream, size) -> bytearray:
  """Put chunks where their offsets say, zeros elsewhere."""
  whole = bytearray(size)
  for chunk in chunks:
    if chunk.stream == stream:
      whole[chunk.offset : chunk.offset + len(chunk.data)] = chunk.data
  return whole


async def test_bytes_that_are_no_text_arrive_exactly():
  code = "import os; os.write(1, bytes(range(256))*1000); os.write(2, b'\\xff\\xfe\\0')"
  done, chunks = await gather(python(code))
  assert joined(chunks, "stdout", 256_000) == bytes(range(256)) * 1000
  assert joined(chunks, "stderr", 3) == b"\xff\xfe\0"
  assert done.written == {"stdout": 256_000, "stderr": 3}
  assert done.missing == 0
  assert all(len(chunk.data) <= 65536 for chunk in chunks)


async def test_chunks_of_a_stream_follow_each_other_without_a_gap():
  _, chunks = await gather(shell("yes | head -c 1000000"))
  at = 0
  for chunk in chunks:
    assert chunk.offset == at
    at += len(chunk.data)
  assert at == 1_000_000


async def test_output_arrives_while_the_process_still_runs():
  send, receive = trio.open_memory_channel[Chunk](10)
  with trio.fail_after(20):
    running = await start_process(shell("echo alive; exec sleep 1000"))
    async with trio.open_nursery() as nursery:
      nursery.start_soon(lambda: collect(running, send=send))
      assert await receive.receive() == Chunk("stdout", 0, b"alive\n")
      assert running.poll() is None
      assert await terminate_tree(running, grace=5)


async def test_small_writes_are_gathered():
  code = "import os\nfor _ in range(5000): os.write(1, b'x')"
  done, chunks = await gather(python(code))
  assert done.written == {"stdout": 5000}
  assert len(chunks) < 50


async def test_a_flood_keeps_head_and_tail_and_says_what_is_missing():
  code = (
    "import sys\nfor n in range(500_000):\n"
    "  sys.stdout.write(f'{n:0100d}')"  # 50 MB
  )
  done, chunks = await gather(python(code), limit=1_000_000)
  size = 50_000_000
  assert done.written == {"stdout": size}
  assert done.missing == size - 1_000_000
  whole = joined(chunks, "stdout", size)
  assert whole[:100] == b"%0100d" % 0
  assert whole[499_900:500_000] == b"%0100d" % 4999
  assert not any(whole[500_000:500_100])
  assert whole[-500_000:-499_900] == b"%0100d" % 495_000
  assert whole[-100:] == done.tail[-100:] == b"%0100d" % 499_999
  assert len(done.tail) == 4096


async def test_two_floods_share_the_limit():
  script = "yes out | head -c 3000000 & yes err | head -c 3000000 >&2; wait"
  done, chunks = await gather(shell(script), limit=200_000)
  assert sum(len(chunk.data) for chunk in chunks) == 200_000
  assert done.missing == 5_800_000
  assert {chunk.stream for chunk in chunks} == {"stdout", "stderr"}


async def test_a_limit_of_nothing_delivers_nothing_but_the_tail():
  done, chunks = await gather(shell("echo kept"), limit=0)
  assert chunks == []
  assert done.tail == b"kept\n"
  assert done.missing == 5


async def test_a_full_channel_holds_the_process_up_and_loses_nothing():
  send, receive = trio.open_memory_channel[Chunk](0)
  got = 0
  with trio.fail_after(30):
    running = await start_process(shell("yes | head -c 2000000; echo done >&2"))
    async with trio.open_nursery() as nursery:
      nursery.start_soon(lambda: collect(running, send=send))
      got += len((await receive.receive()).data)
      await trio.testing.wait_all_tasks_blocked(0.1)
      # 2 MB do not fit into a pipe and one read: it must be waiting.
      assert running.poll() is None
      while got < 2_000_005:
        got += len((await receive.receive()).data)
  assert running.exit.exit_code == 0


async def test_the_end_is_noted_while_the_consumer_is_slow():
  send, receive = trio.open_memory_channel[Chunk](0)
  with trio.fail_after(20):
    running = await start_process(shell("echo x; exit 3"))
    async with trio.open_nursery() as nursery:
      nursery.start_soon(lambda: collect(running, send=send))
      while running.exit is None:  # noqa: ASYNC110 - nothing tells of it
        await trio.sleep(0.01)
      assert running.exit.exit_code == 3
      assert (await receive.receive()).data == b"x\n"


async def test_a_consumer_that_left_does_not_stop_the_process():
  send, receive = trio.open_memory_channel[Chunk](0)
  receive.close()
  with trio.fail_after(20):
    running = await start_process(shell("yes | head -c 1000000; exit 5"))
    done = await collect(running, send=send)
  assert done.exit.exit_code == 5
  assert done.written == {"stdout": 1_000_000}
  assert done.missing == 1_000_000


class Ticks:
  """Takes chunks and notes at which turn of the loop each was taken."""

  def __init__(self) -> None:
    self.turn = 0
    self.taken: Counter[int] = Counter()

  async def turn_for_ever(self):
    """Count the turns."""
    while True:
      self.turn += 1
      await trio.lowlevel.checkpoint()

  def send_nowait(self, chunk):
    """Take a chunk."""
    self.taken[self.turn] += 1


async def test_a_flood_left_behind_does_not_keep_the_loop_from_others():
  ticks = Ticks()
  script = "yes & yes >&2 & yes & yes >&2 & exit 0"
  with trio.fail_after(30):
    running = await start_process(shell(script))
    async with trio.open_nursery() as nursery:
      nursery.start_soon(ticks.turn_for_ever)
      done = await collect(running, send=ticks, limit=1 << 40, grace=0)
      nursery.cancel_scope.cancel()
  assert done.cut
  assert max(ticks.taken.values()) <= 8


async def test_without_a_consumer_only_the_tail_is_kept():
  with trio.fail_after(20):
    running = await start_process(shell("yes | head -c 1000000; echo the end"))
    done = await collect(running)
  assert done.tail.endswith(b"y\nthe end\n")
  assert len(done.tail) == 4096


async def test_a_process_that_closes_its_streams_early_runs_on():
  done, _ = await gather(shell("echo x; exec >&- 2>&-; sleep 0.2; exit 6"))
  assert done.exit.exit_code == 6
  assert not done.cut
