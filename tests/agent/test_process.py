"""Real processes: started exactly, accounted exactly, ended with all they started."""

import os
import pwd
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest
import trio

from hetuflow.agent.process import (
  LaunchSpec,
  Limits,
  end_orphans,
  find_orphans,
  open_helper,
  registry,
  scan_instances,
  terminate_tree,
)
from hetuflow.agent.process.launcher import start_process
from hetuflow.agent.process.output import collect
from hetuflow.agent.process.stat import read_stat
from hetuflow.agent.process.tree import open_exactly, signal_exactly
from hetuflow.errors import LaunchError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to change the user")
PATH = "/usr/local/bin:/usr/bin:/bin"


def make_spec(*argv, instance="test-instance", env=None, **more) -> LaunchSpec:
  """A command with a clean environment and an instance id of its own."""
  environment = {"PATH": PATH, "HETUFLOW_INSTANCE_ID": f"{instance}-{os.getpid()}"}
  return LaunchSpec(argv=argv, environment=environment | (env or {}), **more)


def shell(script, **more) -> LaunchSpec:
  """A script for the shell."""
  return make_spec("/bin/sh", "-c", script, **more)


async def outcome(spec, **more):
  """Start, collect, and return how it went together with what it wrote."""
  send, receive = trio.open_memory_channel(1000)
  with trio.fail_after(30):
    running = await start_process(spec, helper=more.pop("helper", None))
    done = await collect(running, send=send, **more)
  send.close()
  written = {"stdout": b"", "stderr": b""}
  async for chunk in receive:
    written[chunk.stream] += chunk.data
  return done, written


async def read_line(running) -> bytes:
  """Read the first output of a process: it is where the test wants it."""
  await trio.lowlevel.wait_readable(running.stdout)
  return os.read(running.stdout, 4096)


def open_descriptors() -> int:
  """How many descriptors this process has."""
  return len(os.listdir("/proc/self/fd"))


async def test_exit_code_streams_and_environment_are_exact():
  spec = shell("env -0; echo bad >&2; exit 7", env={"UMLAUT": "ä", "EMPTY": ""})
  done, written = await outcome(spec)
  assert done.exit.exit_code == 7
  assert done.exit.signal is None
  assert written["stderr"] == b"bad\n"
  variables = dict(
    entry.split(b"=", 1) for entry in written["stdout"].split(b"\0") if entry
  )
  variables.pop(b"PWD", None), variables.pop(b"_", None), variables.pop(b"SHLVL", None)
  assert {k.decode(): v.decode() for k, v in variables.items()} == spec.environment


async def test_a_process_leads_its_own_session_with_default_signals_and_no_descriptors():
  leaked = os.open("/dev/null", os.O_RDONLY)
  os.set_inheritable(leaked, True)
  code = (
    "import os,signal;print(os.getsid(0)==os.getpgid(0)==os.getpid(),"
    "sorted(map(int,os.listdir('/proc/self/fd')))[:4],"
    "open('/proc/self/status').read().split('SigBlk:')[1].split()[0])"
  )
  try:
    _, written = await outcome(make_spec(sys.executable, "-S", "-c", code))
  finally:
    os.close(leaked)
  # Descriptor 3 is the listing's own.
  assert written["stdout"] == b"True [0, 1, 2, 3] 0000000000000000\n"


async def test_a_signalled_process_says_so():
  done, _ = await outcome(shell("kill -SEGV $$"))
  assert done.exit.exit_code is None
  assert done.exit.signal == signal.SIGSEGV


async def test_sigpipe_has_its_default_action():
  done, written = await outcome(shell("yes | head -n 1; (yes; echo $? >&2) | true"))
  assert done.exit.exit_code == 0
  assert written["stdout"] == b"y\n"


async def test_standard_input_is_what_was_given_however_long():
  content = bytes(range(256)) * 4096
  done, written = await outcome(make_spec("cat", stdin=content))
  assert written["stdout"] == content
  assert done.missing == 0


async def test_without_standard_input_it_is_empty():
  _, written = await outcome(make_spec("cat"))
  assert written["stdout"] == b""


async def test_cpu_time_and_memory_are_accounted():
  code = "x=bytearray(900<<20)\nn=0\nwhile n<3000000: n+=1"
  done, _ = await outcome(make_spec(sys.executable, "-S", "-c", code))
  assert done.exit.cpu_seconds > 0.05
  assert 900 << 20 < done.exit.max_memory_bytes < 1000 << 20
  assert done.exit.ended_at >= done.exit.started_at
  assert done.exit.seconds > 0.05


async def test_memory_below_our_own_peak_is_unknown_rather_than_wrong():
  done, _ = await outcome(make_spec("true"))
  assert done.exit.max_memory_bytes is None


async def test_uncaptured_output_goes_nowhere():
  done, written = await outcome(shell("echo x; exit 3", capture=False))
  assert done.exit.exit_code == 3
  assert written == {"stdout": b"", "stderr": b""}


async def test_the_working_directory_is_entered(tmp_path):
  _, written = await outcome(make_spec("pwd", cwd=str(tmp_path)))
  assert written["stdout"] == f"{tmp_path}\n".encode()


async def test_a_relative_program_is_seen_from_the_working_directory(tmp_path):
  program = tmp_path / "job"
  program.write_text("#!/bin/sh\necho here\n")
  program.chmod(0o755)
  _, written = await outcome(make_spec("./job", cwd=str(tmp_path)))
  assert written["stdout"] == b"here\n"


async def failure(spec, **more) -> str:
  """What is said when a start fails; nothing may be left open."""
  with trio.fail_after(20):
    with pytest.raises(LaunchError) as caught:
      await start_process(spec, **more)
  return str(caught.value)


@pytest.fixture
def plain_file(tmp_path):
  """A file nobody may execute."""
  path = tmp_path / "plain"
  path.write_text("data")
  return path


@pytest.mark.parametrize("limits", [Limits(), Limits(max_open_files=64)])
async def test_failures_to_start_are_said_in_words(tmp_path, plain_file, limits):
  broken = tmp_path / "broken"
  broken.write_text("#!/no/such/interpreter\n")
  broken.chmod(0o755)
  no_format = tmp_path / "noformat"
  no_format.write_text("echo no first line\n")
  no_format.chmod(0o755)
  expected = {
    ("/no/such",): "cannot start '/no/such': no such file or directory",
    ("no-such-program",): "cannot start 'no-such-program': not found in PATH",
    (str(plain_file),): f"cannot start '{plain_file}': permission denied",
    (str(broken),): f"cannot start '{broken}': its interpreter does not exist",
    (str(no_format),): (
      f"cannot start '{no_format}': not an executable format (a script needs a #! line)"
    ),
    ("true", "x" * 4_000_000): (
      "cannot start 'true': its arguments and environment are too long"
    ),
  }
  async with open_helper() as helper:
    for argv, words in expected.items():
      assert await failure(make_spec(*argv, limits=limits), helper=helper) == words
    spec = make_spec("true", cwd="/no/such/folder", limits=limits)
    words = "working directory '/no/such/folder' does not exist"
    assert await failure(spec, helper=helper) == words
    spec = make_spec("true", cwd=str(plain_file), limits=limits)
    assert "cannot enter working directory" in await failure(spec, helper=helper)


async def test_what_cannot_be_expressed_is_refused():
  assert "NUL" in await failure(make_spec("echo", "a\0b"))
  assert "character" in await failure(make_spec("echo", "a\ud800b"))
  assert "environment variable" in await failure(make_spec("true", env={"A=B": "x"}))
  assert "no command" in await failure(make_spec())


async def test_an_unknown_user_is_said_in_words():
  words = await failure(make_spec("true", user="no-such-user"))
  assert words == "user 'no-such-user' does not exist on this machine"


async def test_failures_leave_no_descriptor_and_no_child(tmp_path):
  await failure(make_spec("/no/such"))
  before, known = open_descriptors(), set(registry.known)
  for _ in range(20):
    await failure(make_spec("/no/such"))
    await failure(make_spec("true", cwd="/no/such"))
  await failure(make_spec("true", user="no-such-user"))
  assert open_descriptors() == before
  assert registry.known == known


@pytest.fixture
def few_descriptors():
  """Allow only so many more descriptors; None is as many as ever."""
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  filler = [os.open(os.devnull, os.O_RDONLY)]
  while filler[-1] < 100:  # no gaps below, so that the highest number counts
    filler.append(os.dup(filler[0]))

  def allow(more):
    limit = soft if more is None else filler[-1] + 1 + more
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))

  yield allow
  allow(None)
  for fd in filler:
    os.close(fd)


async def attempt(spec) -> str:
  """Run to the end if there are descriptors enough; return what was said or `ended`."""
  with trio.fail_after(20):
    try:
      running = await start_process(spec)
    except LaunchError as error:
      return str(error)
    try:
      await collect(running)
    except OSError as error:
      return f"{error.strerror}, reaped: {running.exit is not None}"
  return "ended"


async def test_standard_input_that_finds_no_room_is_a_clear_failure():
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  before = open_descriptors()
  resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
  try:
    words = await failure(make_spec("cat", stdin=bytes(100_000)))
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert words == "cannot start 'cat': file too large"
  assert open_descriptors() == before


@pytest.mark.parametrize("limits", [Limits(), Limits(max_processes=9999)])
async def test_running_out_of_descriptors_is_a_clear_failure(few_descriptors, limits):
  spec = make_spec("true", limits=limits)
  await outcome(spec)
  before, known = open_descriptors(), set(registry.known)
  said = []
  for more in range(20):
    few_descriptors(more)
    try:
      said.append(await attempt(spec))
    finally:
      few_descriptors(None)
    assert open_descriptors() == before
    assert registry.known == known
  first = said.index("ended")
  assert first > 4
  assert set(said[first:]) == {"ended"}
  for words in said[:first]:
    assert "no room" in words or words == "Too many open files, reaped: True"
  assert not registry.strangers()


async def test_finished_processes_leave_no_descriptor():
  await outcome(make_spec("true"))
  before = open_descriptors()
  for _ in range(20):
    await outcome(shell("echo x"))
  assert open_descriptors() == before
  assert not registry.strangers()


@as_root
async def test_a_process_runs_as_its_user_with_the_groups_of_that_user():
  user = pwd.getpwnam("nobody")
  async with open_helper() as helper:
    spec = make_spec("id", user="nobody")
    _, written = await outcome(spec, helper=helper)
    assert f"uid={user.pw_uid}(nobody)".encode() in written["stdout"]
    assert b"root" not in written["stdout"]
    _, written = await outcome(make_spec("ps", "-o", "ppid=", user="nobody"))
    assert str(os.getpid()).encode() in written["stdout"]


@as_root
async def test_what_the_user_may_not_do_is_said_in_words(tmp_path):
  closed = tmp_path / "closed"
  closed.mkdir(mode=0o700)
  words = await failure(make_spec("true", user="nobody", cwd=str(closed)))
  assert words == f"cannot enter working directory '{closed}': permission denied"


async def test_limits_are_set_before_the_program_runs():
  limits = Limits(max_open_files=77, max_cpu_seconds=9, max_memory_bytes=1 << 30)
  async with open_helper() as helper:
    spec = shell("ulimit -n; ulimit -t; ulimit -v; ulimit -Ht", limits=limits)
    _, written = await outcome(spec, helper=helper)
  assert written["stdout"].split() == [b"77", b"9", b"1048576", b"14"]


async def test_the_helper_gives_a_process_its_streams_and_nothing_else():
  spec = shell("echo ready; exec sleep 1000", limits=Limits(max_open_files=99))
  async with open_helper() as helper:
    with trio.fail_after(10):  # the start has an end before the process
      running = await start_process(spec, helper=helper)
    assert await read_line(running) == b"ready\n"
    assert sorted(os.listdir(f"/proc/{running.pid}/fd")) == ["0", "1", "2"]
    assert await terminate_tree(running, grace=0)
    running.close()


async def test_the_helper_serves_many_and_is_replaced_when_it_dies():
  limits = Limits(max_open_files=99)
  async with open_helper() as helper:
    for _ in range(5):
      done, _ = await outcome(shell("exit 4", limits=limits), helper=helper)
      assert done.exit.exit_code == 4
    os.kill(helper._pid, signal.SIGKILL)
    done, _ = await outcome(shell("exit 5", limits=limits), helper=helper)
    assert done.exit.exit_code == 5


@pytest.fixture
def many_descriptors():
  """Allow as many descriptors as hundreds of starts under way take."""
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  if hard < 8192:
    pytest.skip("too few descriptors allowed")
  resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 8192), hard))
  yield
  resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("number", [signal.SIGCONT, signal.SIGKILL])
async def test_more_may_start_at_once_than_the_helper_takes(many_descriptors, number):
  limits = Limits(max_open_files=99)
  before, codes = open_descriptors(), []

  async def one(helper, instance="first"):
    spec = make_spec("true", instance=instance, limits=limits, capture=False)
    done, _ = await outcome(spec, helper=helper)
    codes.append(done.exit.exit_code)

  async with open_helper() as helper:
    await one(helper)
    os.kill(helper._pid, signal.SIGSTOP)
    async with trio.open_nursery() as nursery:
      for n in range(400):
        nursery.start_soon(one, helper, f"i{n}")
      await trio.testing.wait_all_tasks_blocked()
      os.kill(helper._pid, number)
  assert codes == [0] * 401
  assert open_descriptors() == before


async def test_many_waiters_see_the_same_end():
  ends = []

  async def wait_for(running):
    ends.append(await running.wait())

  with trio.fail_after(10):
    running = await start_process(shell("read x; exit 9", stdin=b"\n"))
    async with trio.open_nursery() as nursery:
      for _ in range(3):
        nursery.start_soon(wait_for, running)
    running.close()
  assert [end.exit_code for end in ends] == [9, 9, 9]


TRACER = """
import ctypes, sys
print(ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), None, None), flush=True)
input()
"""


async def test_a_process_that_a_debugger_holds_ends_when_it_lets_go():
  ends = []

  async def read_to_end(running):
    ends.append((await collect(running)).exit)

  async def wait_for(running):
    ends.append(await running.wait())

  with trio.fail_after(20):
    running = await start_process(make_spec("sleep", "1000"))
    tracer = subprocess.Popen(  # noqa: ASYNC220 - a pipe to it is all there is
      [sys.executable, "-S", "-c", TRACER, str(running.pid)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
    )
    with tracer:
      if tracer.stdout.readline() != b"0\n":
        pytest.skip("may not trace here")
      os.kill(running.pid, signal.SIGKILL)
      async with trio.open_nursery() as nursery:
        nursery.start_soon(read_to_end, running)
        nursery.start_soon(wait_for, running)
        await trio.testing.wait_all_tasks_blocked()
        tracer.stdin.close()
  assert [end.signal for end in ends] == [signal.SIGKILL] * 2


async def test_a_start_that_hangs_does_not_keep_what_is_left_behind_from_being_reaped():
  hangs, go_on = trio.Event(), threading.Event()
  token = trio.lowlevel.current_trio_token()

  def wait() -> float:
    token.run_sync_soon(hangs.set)
    go_on.wait(20)
    return time.time()

  async def start() -> None:
    running = await start_process(make_spec("true", instance="hangs"), wall=wait)
    await running.wait()
    running.close()

  with trio.fail_after(20):
    async with trio.open_nursery() as nursery:
      nursery.start_soon(start)
      await hangs.wait()
      try:
        await outcome(shell("(true &) & wait; exit 0"), grace=0)
        assert registry.strangers() == []
      finally:
        go_on.set()


async def test_what_was_let_go_of_before_its_end_is_reaped_with_the_next():
  with trio.fail_after(20):
    running = await start_process(make_spec("sleep", "1000"))
    running.close()
    with open_exactly(running.pid, running.start_time) as pidfd:
      os.kill(running.pid, signal.SIGKILL)
      await trio.lowlevel.wait_readable(pidfd)
    await outcome(make_spec("true"))
  assert read_stat(running.pid) is None


async def killed(script, *, grace, leader_gone=False):
  """Start a script, wait for its first line, end its tree; return exit and orphans."""
  with trio.fail_after(30):
    running = await start_process(shell(script))
    await read_line(running)
    if leader_gone:
      await running.wait()
    assert await terminate_tree(running, grace=grace)
    ended = await running.wait()
    running.close()
  return ended, find_orphans(f"test-instance-{os.getpid()}")


async def test_a_polite_process_ends_by_sigterm():
  ended, left = await killed(
    "trap 'exit 3' TERM; echo; while :; do sleep 0.01; done", grace=10
  )
  assert (ended.exit_code, left) == (3, [])


async def test_a_process_that_ignores_sigterm_is_killed():
  ended, left = await killed("trap '' TERM; echo; while :; do sleep 1; done", grace=0.2)
  assert (ended.signal, left) == (signal.SIGKILL, [])


async def test_a_stopped_child_gets_its_sigterm():
  script = "sleep 1000 & kill -STOP $!; echo; kill -STOP $$; wait"
  ended, left = await killed(script, grace=10)
  assert (ended.signal, left) == (signal.SIGTERM, [])
  assert ended.seconds < 8


async def test_a_grandchild_in_a_session_of_its_own_is_ended():
  script = "setsid sh -c 'trap \"\" TERM; echo; while :; do sleep 1; done' & wait"
  _, left = await killed(script, grace=0.2)
  assert left == []


async def test_a_double_forked_daemon_outlives_its_parent_but_not_its_task():
  script = "(setsid sh -c 'echo; exec sleep 1000' </dev/null 2>/dev/null &)"
  _, left = await killed(script, grace=5, leader_gone=True)
  assert left == []


async def test_a_storm_of_children_is_ended():
  script = "for i in $(seq 25); do sleep 1000 & setsid sleep 1000 & done; echo; wait"
  _, left = await killed(script, grace=5)
  assert left == []


async def test_children_that_fork_on_while_being_killed_are_ended():
  script = (
    "f() { while :; do (trap '' TERM; sleep 0.05; :) & sleep 0.01; done; }; "
    "trap '' TERM; f & f & echo; wait"
  )
  _, left = await killed(script, grace=0.1)
  assert left == []


async def test_a_daemon_with_closed_streams_does_not_survive_its_task():
  script = "setsid sleep 1000 </dev/null >/dev/null 2>&1 & exit 0"
  done, _ = await outcome(shell(script), grace=2)
  assert done.exit.exit_code == 0
  assert done.leftovers
  assert done.gone
  assert not done.cut
  assert find_orphans(f"test-instance-{os.getpid()}") == []
  assert not registry.strangers()


async def test_a_stream_held_open_does_not_hold_the_end():
  begin = time.monotonic()
  done, written = await outcome(shell("echo first; setsid sleep 1000 & exit 4"))
  assert done.exit.exit_code == 4
  assert written["stdout"] == b"first\n"
  assert done.cut
  assert done.leftovers
  assert time.monotonic() - begin < 8
  assert find_orphans(f"test-instance-{os.getpid()}") == []


async def test_a_stream_that_never_falls_silent_does_not_hold_the_end():
  script = "(trap '' TERM; while echo more; do sleep 0.05; done) & exit 0"
  done, _ = await outcome(shell(script), grace=0.1)
  assert done.cut
  assert done.gone


async def test_a_cancelled_collection_leaves_nothing():
  with trio.fail_after(20):
    running = await start_process(shell("trap '' TERM; sleep 1000 & echo; wait"))
    async with trio.open_nursery() as nursery:
      nursery.start_soon(collect, running)
      await trio.testing.wait_all_tasks_blocked(0.05)
      nursery.cancel_scope.cancel()
  assert running.exit is not None
  assert find_orphans(f"test-instance-{os.getpid()}") == []


async def test_orphans_of_an_earlier_agent_are_found_and_ended():
  instance = f"orphan-{os.getpid()}"
  with trio.fail_after(20):
    running = await start_process(
      shell("setsid sh -c 'echo; exec sleep 1000' & wait", instance="orphan")
    )
    await read_line(running)
    found = find_orphans(instance)
    assert (running.pid, running.start_time) in found
    assert scan_instances()[instance] == found
    assert await end_orphans(instance, grace=5)
    assert find_orphans(instance) == []
    await running.wait()
    running.close()


async def test_a_recycled_pid_is_not_signalled():
  with trio.fail_after(10):
    running = await start_process(make_spec("sleep", "1000"))
    start = read_stat(running.pid).start_time
    assert not signal_exactly(running.pid, start + 1, signal.SIGKILL)
    assert running.poll() is None
    assert signal_exactly(running.pid, start, signal.SIGKILL)
    assert (await running.wait()).signal == signal.SIGKILL
    assert not signal_exactly(running.pid, start, signal.SIGKILL)
    assert not running.signal_group(signal.SIGKILL)
    running.close()


async def test_a_foreign_session_with_our_old_number_is_left_alone():
  with trio.fail_after(10):
    old = await start_process(make_spec("true", instance="old"))
    await old.wait()
    other = await start_process(make_spec("sleep", "1000", instance="other"))
    # As if the kernel had given the number of the first to the second.
    old.pid = other.pid
    assert await terminate_tree(old, grace=0)
    assert other.poll() is None
    assert await terminate_tree(other, grace=0)
    other.close()
    old.close()


async def test_processes_run_side_by_side_with_their_own_output():
  results = {}

  async def one(n):
    results[n] = await outcome(shell(f"echo {n}; exit {n}", instance=f"i{n}"))

  async with trio.open_nursery() as nursery:
    for n in range(50):
      nursery.start_soon(one, n)
  for n, (done, written) in results.items():
    assert done.exit.exit_code == n
    assert written["stdout"] == f"{n}\n".encode()


FIRST_STARTS = """
import os, sys, threading
from concurrent.futures import ThreadPoolExecutor
from hetuflow.agent.process.spawn import spawn

sys.setswitchinterval(1e-6)
null = os.open(os.devnull, os.O_RDWR)
gate = threading.Barrier(16)

def start(_):
  gate.wait()
  pid = spawn("/bin/true", ["true"], {}, cwd=None, streams=(null, null, null))
  return os.waitpid(pid, 0)[1]

with ThreadPoolExecutor(16) as pool:
  print(sum(map(bool, pool.map(start, range(16)))))
"""


@pytest.mark.parametrize("attempt", range(10))
def test_the_first_starts_of_a_program_may_come_from_many_threads_at_once(attempt):
  done = subprocess.run(
    [sys.executable, "-c", FIRST_STARTS], capture_output=True, text=True, timeout=60
  )
  assert (done.stdout, done.stderr) == ("0\n", "")
