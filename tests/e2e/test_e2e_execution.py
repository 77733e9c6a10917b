"""What becomes of a task on a real agent: its process, its output, its end."""

import hashlib
import os
import pwd
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
import trio
from support.commands import Command, World
from support.programs import wait_until
from support.work import make_job, output_of, run_job

from hetuflow.client import AsyncClient
from hetuflow.client.calls import tasks

LIMIT_S = 60.0
MB = 1024**2
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TOLD = {
  "HETUFLOW_TASK_ID",
  "HETUFLOW_INSTANCE_ID",
  "HETUFLOW_ATTEMPT",
  "HETUFLOW_SCHEDULED_AT",
  "HETUFLOW_JOB_NAME",
  "TRACEPARENT",
}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


# ── what the process is given ───────────────────────────────────────────────────────


async def test_a_process_gets_exactly_the_promised_environment(
  client: AsyncClient,
) -> None:
  with trio.fail_after(LIMIT_S):
    job = await make_job(client, "/usr/bin/env", "-0", environment={"MINE": "a b"})
    run = await run_job(client, job, day="monday")
    data = await output_of(client, run.last.id)
  found = dict(pair.split("=", 1) for pair in data.decode().split("\0") if pair)
  me = pwd.getpwuid(os.geteuid())
  told = {name: found.pop(name) for name in TOLD}
  assert found == {
    "PATH": PATH,
    "HOME": me.pw_dir,
    "USER": me.pw_name,
    "LOGNAME": me.pw_name,
    "SHELL": me.pw_shell,
    "LANG": "C.UTF-8",
    "MINE": "a b",
    "HETUFLOW_PARAM_DAY": "monday",
  }
  assert told["HETUFLOW_TASK_ID"] == str(run.task.id)
  assert told["HETUFLOW_INSTANCE_ID"] == str(run.last.id)
  assert told["HETUFLOW_ATTEMPT"] == "1"
  assert told["HETUFLOW_JOB_NAME"] == job.name
  assert told["HETUFLOW_SCHEDULED_AT"].endswith("Z")
  assert told["TRACEPARENT"].startswith(f"00-{run.task.id.hex}-")


async def test_a_process_gets_its_input_and_its_folder(
  client: AsyncClient, tmp_path: Path
) -> None:
  with trio.fail_after(LIMIT_S):
    fed = await make_job(client, "cat", stdin="one\ntwo ä\n")
    assert (await run_job(client, fed)).output == "one\ntwo ä\n"
    unfed = await make_job(client, "cat")
    assert (await run_job(client, unfed)).output == ""
    placed = await make_job(client, "pwd", cwd=str(tmp_path))
    assert (await run_job(client, placed)).output == f"{tmp_path}\n"
    lost = await run_job(client, await make_job(client, "pwd", cwd="/no/such"))
  assert lost.task.status == "failed"
  assert lost.last.error_message is not None
  assert "/no/such" in lost.last.error_message


async def test_a_command_is_taken_as_it_is_and_a_shell_gets_its_arguments(
  client: AsyncClient,
) -> None:
  with trio.fail_after(LIMIT_S):
    plain = await make_job(client, "echo", "$HOME", "*", "a  b", "'")
    assert (await run_job(client, plain)).output == "$HOME * a  b '\n"
    script = 'echo "$1-$2-$#"; echo "{{ parameters.x }}"'
    shell = await make_job(
      client, script, "{{ parameters.x }}", "b c", executor="shell"
    )
    run = await run_job(client, shell, x="$(id); `id`")
  assert run.output == "$(id); `id`-b c-2\n{{ parameters.x }}\n"


async def test_a_user_that_does_not_exist_is_a_clear_reason(
  client: AsyncClient,
) -> None:
  with trio.fail_after(LIMIT_S):
    run = await run_job(client, await make_job(client, "id", user="no-such-user"))
  assert run.task.status == "failed"
  assert run.last.error_message == "user 'no-such-user' does not exist on this machine"
  assert run.last.exit_code is None


@as_root
async def test_a_process_runs_as_the_user_it_is_to(client: AsyncClient) -> None:
  script = 'id -un; id -gn; echo "$USER $HOME $(id -G)"; kill -0 1 2>&1'
  nobody = pwd.getpwnam("nobody")
  with trio.fail_after(LIMIT_S):
    job = await make_job(client, script, executor="shell", user="nobody", cwd="/")
    run = await run_job(client, job)
  lines = run.output.splitlines()
  assert lines[0] == "nobody"
  assert lines[2] == f"nobody {nobody.pw_dir} {nobody.pw_gid}"
  assert "permitted" in lines[3]
  assert run.task.status == "failed"


# ── how it ends ─────────────────────────────────────────────────────────────────────


async def test_a_process_that_takes_too_long_is_ended(client: AsyncClient) -> None:
  script = "trap 'echo told; exit 0' TERM; echo on; sleep 604 & wait"
  with trio.fail_after(LIMIT_S):
    job = await make_job(client, script, executor="shell", timeout=1)
    run = await run_job(client, job)
  assert (run.task.status, run.last.status) == ("failed", "timeout")
  assert run.last.reason == "timeout after 1 s"
  assert run.output == "on\ntold\n"
  assert run.last.started_at is not None
  assert run.last.completed_at is not None
  assert 1 <= (run.last.completed_at - run.last.started_at).total_seconds() < 10


async def test_a_process_that_does_not_listen_is_killed(client: AsyncClient) -> None:
  script = "trap '' TERM; while :; do sleep 0.1; done"
  with trio.fail_after(LIMIT_S):
    job = await make_job(client, script, executor="shell", timeout=0.5, kill_grace=0.5)
    run = await run_job(client, job)
  assert run.last.status == "timeout"
  assert run.last.exit_code == 137


async def test_retries_wait_longer_each_time_until_one_succeeds(
  client: AsyncClient,
) -> None:
  script = 'echo "attempt $HETUFLOW_ATTEMPT"; test "$HETUFLOW_ATTEMPT" -ge 3'
  with trio.fail_after(LIMIT_S):
    job = await make_job(
      client,
      script,
      executor="shell",
      max_retries=5,
      retry_interval=0.5,
      retry_backoff=2.0,
    )
    run = await run_job(client, job)
  assert run.task.status == "succeeded"
  assert run.task.attempts == 3
  assert [each.exit_code for each in run.attempts] == [1, 1, 0]
  assert run.output == "attempt 3\n"
  pauses = [
    (after.started_at - before.completed_at).total_seconds()
    for before, after in pairwise(run.attempts)
    if after.started_at is not None and before.completed_at is not None
  ]
  # A pause may vary, so that failures at one time do not all come back at one time.
  assert 0.25 <= pauses[0] < 5
  assert 0.5 <= pauses[1] < 6


async def test_retries_end(client: AsyncClient) -> None:
  with trio.fail_after(LIMIT_S):
    job = await make_job(client, "false", max_retries=2, retry_interval=0.1)
    run = await run_job(client, job)
    picky = await make_job(
      client, "exit 3", executor="shell", max_retries=2, retry_on_exit_codes=[4]
    )
    once = await run_job(client, picky)
  assert (run.task.status, len(run.attempts)) == ("failed", 3)
  assert (once.task.status, len(once.attempts)) == ("failed", 1)


async def test_what_a_process_leaves_behind_does_not_hold_its_task_up(
  client: AsyncClient,
) -> None:
  script = "sleep 605 & echo $!"
  with trio.fail_after(LIMIT_S):
    run = await run_job(client, await make_job(client, script, executor="shell"))
    assert run.task.status == "succeeded"
    left = Path(f"/proc/{run.output.strip()}")
    await wait_until(lambda: not left.exists(), 10)


# ── what it prints ──────────────────────────────────────────────────────────────────


async def test_a_megabyte_of_output_arrives_byte_by_byte(
  client: AsyncClient, cli: Command, tmp_path: Path
) -> None:
  script = f"head -c {MB} /dev/urandom > d && cat d && sha256sum d >&2"
  with trio.fail_after(LIMIT_S):
    job = await make_job(client, script, executor="shell", cwd=str(tmp_path))
    run = await run_job(client, job)
    assert run.last.metrics.output_bytes > MB
    digest = (await output_of(client, run.last.id, "stderr"))[:64].decode()
    data = await output_of(client, run.last.id)
    printed = (await cli("logs", run.last.id, "--stream", "stdout")).ok().out
  assert len(data) == MB
  assert sha256(data) == digest
  assert printed == data


def sha256(data: bytes) -> str:
  """Return the SHA-256 in hexadecimal."""
  return hashlib.sha256(data).hexdigest()


async def test_output_that_is_no_text_is_kept_as_it_is(
  client: AsyncClient, world: World
) -> None:
  raw = bytes(range(256)) + "ä€😀".encode() + b"\xe2\x82"
  octal = "".join(f"\\{byte:03o}" for byte in raw)
  with trio.fail_after(LIMIT_S):
    run = await run_job(client, await make_job(client, "printf", octal))
    assert await output_of(client, run.last.id) == raw
    async with httpx.AsyncClient() as http:
      answer = await http.get(
        f"{world.server.url}/api/v1/task-instances/{run.last.id}/logs",
        params={"stream": "stdout"},
        headers={
          "Authorization": f"Bearer {world.server.key}",
          "Accept": "text/plain",
        },
      )
  assert answer.content == raw
  assert "ä€😀" in run.output


async def test_output_beyond_its_limit_is_cut_and_the_process_goes_on(
  client: AsyncClient,
) -> None:
  script = "yes | head -c 100000; echo done >&2; exit 5"
  with trio.fail_after(LIMIT_S):
    job = await make_job(client, script, executor="shell", max_output_size=10_000)
    run = await run_job(client, job)
    data = await output_of(client, run.last.id)
  assert run.last.exit_code == 5
  assert len(data) <= 10_000
  assert data.startswith(b"y\ny\n")


async def test_output_nobody_wants_is_not_kept(client: AsyncClient) -> None:
  with trio.fail_after(LIMIT_S):
    run = await run_job(client, await make_job(client, "ls", "/", capture_output=False))
    assert run.task.status == "succeeded"
    assert run.output == ""
    page = await client.send(tasks.log_page(run.last.id))
  assert page.items == []
