"""The end of an agent: drained, refused, killed, and what the next start makes of it."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import trio
from agent_stage import (
  TOKEN,
  make_config,
  make_job,
  make_task,
  running_agent,
)

import hetuflow
from hetuflow.agent.journal import open_journal
from hetuflow.agent.process import find_orphans, scan_instances
from hetuflow.agent.process.stat import read_stat
from hetuflow.agent.program import open_agent
from hetuflow.agent.tree import build_tree
from hetuflow.agent.work.recovery import UNREADABLE
from hetuflow.nursery import render
from hetuflow.protocol.messages import AgentCommandKind, MessageKind
from hetuflow.protocol.states import TaskInstanceStatus as S

ROOT = Path(hetuflow.__file__).parents[1]
SLEEPER = "echo ready; while :; do sleep 0.05; done"
TREE = """\
agent
├─ connection    register, one session, reconnect with backoff
├─ clock         offset to database time, discipline, refusal bound
├─ heartbeat     liveness, metrics, leases renewed
├─ outbox        reports until acknowledged (journal behind it)
├─ executor      slots for what is due
│  └─ instance*  process, stdout, stderr, deadline
├─ wheel         fires what is due, to the millisecond
└─ puller        asks for as much as there are free slots"""


@asynccontextmanager
async def agent_process(gateway, data_dir, *flags, token=TOKEN):
  """Run a real agent program inside the block; killed at its end if need be."""
  argv = [
    *(sys.executable, "-m", "hetuflow.agent", "--server", gateway.url),
    *("--token", token, "--data-dir", str(data_dir), "--name", "agent-under-test"),
    *flags,
  ]
  environment = {k: v for k, v in os.environ.items() if not k.startswith("HETUFLOW_")}
  process = await trio.lowlevel.open_process(
    argv, env=environment, cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True
  )
  try:
    yield process
  finally:
    if process.poll() is None:
      process.kill()
    with trio.CancelScope(shield=True):
      await process.wait()
      await process.stderr.aclose()


async def processes_noted(data_dir, count):
  """Wait until an agent's journal names so many processes."""
  path = next(data_dir.rglob("journal.db"))
  query = "SELECT count(*) FROM claims WHERE pid IS NOT NULL"
  with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
    while reader.execute(query).fetchone() != (count,):  # noqa: ASYNC110 - no event tells
      await trio.sleep(0.02)


async def test_the_tree_is_drawn_as_the_architecture_has_it(gateway, tmp_path):
  async with open_agent(make_config(tmp_path, gateway)) as (supervisor, parts):
    assert render(supervisor) == TREE
    assert render(build_tree(parts)) == TREE


async def test_a_drain_gives_back_what_is_planned_and_lets_the_rest_finish(
  gateway, tmp_path
):
  planned = make_task(due_in=60)
  running, job = (
    make_task(),
    make_job("echo ready; sleep 0.3; echo done", executor="shell"),
  )
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)) as agent:
      await gateway.granted()
      await gateway.dispatch(planned, running, job=job)
      await gateway.until(lambda: gateway.output(running.instance_id))
      agent.supervisor.drain()
      await agent.ended.wait()
  released = await gateway.result(planned.instance_id)
  assert (released.status, released.reason) == (S.RELEASED, "the agent shuts down")
  finished = await gateway.result(running.instance_id)
  assert (finished.status, finished.output) == (S.SUCCEEDED, "ready\ndone\n")
  assert gateway.peer.closed_with == 1001
  assert len(gateway.peers) == 1
  assert gateway.peer.of(MessageKind.ACQUIRE_TASK_REQUEST)[-1].payload.draining


async def test_what_outlasts_the_drain_is_ended_and_reported_as_lost(gateway, tmp_path):
  task, job = make_task(), make_job("trap '' TERM; " + SLEEPER, executor="shell")
  config = make_config(tmp_path, gateway, drain_timeout=0.1, kill_grace=0.1)
  with trio.fail_after(30):
    async with running_agent(config) as agent:
      await gateway.granted()
      await gateway.dispatch(task, job=job)
      await gateway.until(lambda: gateway.output(task.instance_id))
      agent.supervisor.drain()
      await agent.ended.wait()
  result = await gateway.result(task.instance_id)
  assert (result.status, result.reason) == (S.LOST, "agent shut down")
  assert find_orphans(str(task.instance_id)) == []


async def test_the_server_can_shut_an_agent_down(gateway, tmp_path):
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)) as agent:
      await gateway.granted()
      await gateway.command(AgentCommandKind.SHUTDOWN)
      await agent.ended.wait()


async def test_an_agent_stopped_at_once_leaves_nothing_running(gateway, tmp_path):
  task, job = make_task(), make_job("trap '' TERM; " + SLEEPER, executor="shell")
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      await gateway.granted()
      await gateway.dispatch(task, job=job)
      await gateway.until(lambda: gateway.output(task.instance_id))
    assert find_orphans(str(task.instance_id)) == []
    async with running_agent(make_config(tmp_path, gateway)):
      result = await gateway.result(task.instance_id)
  assert (result.status, result.reason) == (S.LOST, "agent shut down")


async def test_sigterm_drains_the_program_and_it_exits_clean(gateway, tmp_path):
  task, job = (
    make_task(),
    make_job("echo ready; sleep 0.3; echo done", executor="shell"),
  )
  with trio.fail_after(60):
    async with agent_process(gateway, tmp_path) as process:
      await gateway.granted()
      await gateway.dispatch(task, job=job)
      await gateway.until(lambda: gateway.output(task.instance_id))
      process.send_signal(signal.SIGTERM)
      assert await process.wait() == 0
  assert (await gateway.result(task.instance_id)).status is S.SUCCEEDED


async def test_a_refused_token_ends_the_program_with_code_2(gateway, tmp_path):
  with trio.fail_after(60):
    async with agent_process(gateway, tmp_path, token="wrong") as process:
      said = b""
      async for part in process.stderr:
        said += part
      assert await process.wait() == 2
  assert b"the server refuses the token" in said


async def test_a_replaced_program_exits_with_code_1(gateway, tmp_path):
  with trio.fail_after(60):
    async with agent_process(gateway, tmp_path) as process:
      await gateway.granted()
      await gateway.peer.socket.aclose(4003, "newer")
      assert await process.wait() == 1
  assert len(gateway.peers) == 1


async def test_after_a_kill_orphans_are_ended_and_reported_as_lost(gateway, tmp_path):
  gateway.silent = {MessageKind.TASK_LOG}
  marked, unmarked, planned = make_task(), make_task(), make_task(due_in=3600)
  shell = make_job("trap '' TERM; " + SLEEPER, executor="shell", kill_grace=0.2)
  stubborn = 'trap "" TERM; echo $$; while :; do sleep 0.05; done'
  clean = make_job(
    f"exec env -i PATH=$PATH sh -c '{stubborn}'", executor="shell", kill_grace=0.2
  )
  with trio.fail_after(60):
    async with agent_process(gateway, tmp_path) as process:
      await gateway.granted()
      await gateway.dispatch(marked, planned, job=shell)
      await gateway.dispatch(unmarked, job=clean)
      for task in (marked, unmarked):
        await gateway.until(lambda task=task: gateway.output(task.instance_id))
      await processes_noted(tmp_path, 2)
      process.kill()
      await process.wait()
    assert str(marked.instance_id) in scan_instances()
    assert str(unmarked.instance_id) not in scan_instances()
    pid = int(gateway.output(unmarked.instance_id))
    assert read_stat(pid).alive
    gateway.peers.clear()
    async with agent_process(gateway, tmp_path) as process:
      peer = await gateway.registered()
      held = {each.instance_id for each in peer.register.held}
      assert planned.instance_id in held
      for task in (marked, unmarked):
        result = await gateway.result(task.instance_id)
        assert (result.status, result.reason) == (S.LOST, "the agent was restarted")
      assert str(marked.instance_id) not in scan_instances()
      assert (stat := read_stat(pid)) is None or not stat.alive
      assert gateway.updates(planned.instance_id) == []
      await gateway.command(AgentCommandKind.CANCEL, planned.instance_id)
      assert (await gateway.result(planned.instance_id)).status is S.CANCELLED
  assert peer.register.epoch == 2


@pytest.mark.parametrize("payload", [b"\xff", b"{}", b"[]"])
async def test_claims_that_cannot_be_read_are_ended_reported_and_forgotten(
  gateway, tmp_path, payload
):
  running, planned = make_task(), make_task(due_in=3600)
  with trio.fail_after(60):
    async with agent_process(gateway, tmp_path) as process:
      await gateway.granted()
      await gateway.dispatch(running, planned, job=make_job(SLEEPER, executor="shell"))
      await gateway.until(lambda: gateway.output(running.instance_id))
      process.kill()
      await process.wait()
    (file,) = tmp_path.glob("agents/*/journal.db")
    with closing(sqlite3.connect(file)) as journal, journal:
      journal.execute("UPDATE claims SET payload = ?", (payload,))
    async with agent_process(gateway, tmp_path) as process:
      lost = await gateway.result(running.instance_id)
      assert (lost.status, lost.reason) == (S.LOST, "the agent was restarted")
      assert str(running.instance_id) not in scan_instances()
      released = await gateway.result(planned.instance_id)
      assert (released.status, released.reason) == (S.RELEASED, UNREADABLE)
      process.terminate()
      assert await process.wait() == 0
  async with open_journal(file.parent) as journal:
    assert journal.load().claims == ()
