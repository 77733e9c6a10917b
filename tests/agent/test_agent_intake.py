"""What is dispatched is on record and runs, whatever holds up the talk with the server."""

from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
from agent_stage import make_config, make_job, make_task, running_agent, settled

from hetuflow.agent.instances import Stage
from hetuflow.agent.journal import open_journal
from hetuflow.agent.link import websocket
from hetuflow.agent.work.intake import JOURNAL_FULL, WITHOUT_CONFIG
from hetuflow.protocol.messages import AgentCommandKind, MessageKind
from hetuflow.protocol.states import TaskInstanceStatus as S

ACK = MessageKind.ACK


@asynccontextmanager
async def no_sending(agent):
  """Keep the agent from sending inside the block, as a server does that reads nothing."""
  session = agent.parts.connection._link.session
  async with session._socket._stream_lock:
    yield


async def found(agent, task):
  """Wait until the agent has a task in its hands, and return it."""
  return await settled(lambda: agent.parts.instances.get(task.instance_id))


async def test_a_task_runs_though_the_server_takes_no_acknowledgement(
  gateway, tmp_path
):
  ran = tmp_path / "ran"
  task, job = make_task(), make_job("/bin/touch", args=[str(ran)])
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)) as agent:
      await gateway.granted()
      async with no_sending(agent):
        await gateway.dispatch(task, job=job)
        instance = await found(agent, task)
        await settled(lambda: instance.stage is Stage.FINISHED)
      await gateway.result(task.instance_id)
  assert ran.exists()


@pytest.mark.parametrize("how", ["cancelled", "superseded", "given back"])
async def test_what_ends_before_it_is_on_record_leaves_nothing_there(
  gateway, tmp_path, how
):
  first, second = make_task(due_in=60.0), make_task(due_in=60.0)
  config = make_config(tmp_path, gateway)
  with trio.fail_after(30):
    async with running_agent(config) as agent:
      await gateway.granted()
      async with no_sending(agent):
        await gateway.dispatch(first, job=make_job())
        await found(agent, first)
        # It waits behind the acknowledgement of the first one.
        await gateway.dispatch(second, job=make_job())
        instance = await found(agent, second)
        if how == "cancelled":
          await gateway.command(AgentCommandKind.CANCEL, second.instance_id)
          await settled(lambda: instance.stage is Stage.FINISHED)
        elif how == "superseded":
          agent.parts.outbox._supersede([second.instance_id])
        else:
          await agent.parts.intake.give_back()
      if how != "superseded":
        status = S.CANCELLED if how == "cancelled" else S.RELEASED
        assert (await gateway.result(second.instance_id)).status is status
      await gateway.until(lambda: len(gateway.peer.of(ACK)) == 2)
      await gateway.until(lambda: not len(agent.parts.outbox))
      await agent.parts.outbox.drain()
    async with open_journal(config.folder) as journal:
      held = [claim.instance_id for claim in journal.load().claims]
  assert str(second.instance_id) not in held


async def test_what_finds_no_room_after_its_session_is_given_back_in_words(
  gateway, tmp_path, monkeypatch
):
  monkeypatch.setattr(websocket, "GOODBYE_SECONDS", 0.05)
  large = make_task(due_in=60.0, parameters={"x": "y" * 1_200_000})
  second = make_task()
  config = make_config(tmp_path, gateway, journal_limit=1024**2)
  with trio.fail_after(30):
    async with running_agent(config) as agent:
      await gateway.granted()
      async with no_sending(agent):
        await gateway.dispatch(large, job=make_job())
        await gateway.dispatch(second, job=make_job())
        await found(agent, second)
        agent.parts.connection._link.session.end()
        register = (await gateway.registered(sessions=2)).register
        assert second.instance_id in [each.instance_id for each in register.held]
      result = await gateway.result(second.instance_id)
      assert (result.status, result.reason) == (S.RELEASED, JOURNAL_FULL)
      await gateway.until(lambda: not agent.parts.instances.get(second.instance_id))


def environments():
  """Yield the environment of every process that may be looked at."""
  for file in Path("/proc").glob("[0-9]*/environ"):
    with suppress(OSError):
      yield file.read_bytes()


async def test_an_agent_whose_journal_breaks_ends_and_so_does_what_it_runs(
  gateway, tmp_path
):
  task, job = make_task(), make_job("/bin/sleep", args=["60"])

  async def work_with_a_broken_journal():
    async with running_agent(make_config(tmp_path, gateway)) as agent:
      await gateway.granted()
      await gateway.dispatch(task, job=job)
      await gateway.started(task.instance_id)
      agent.parts.outbox._journal._file.apply = lambda _: 1 / 0
      await gateway.dispatch(make_task(), job=job)
      await agent.ended.wait()

  with trio.fail_after(30), pytest.raises(BaseExceptionGroup) as caught:
    await work_with_a_broken_journal()
  assert caught.group_contains(ZeroDivisionError)
  mark = f"HETUFLOW_INSTANCE_ID={task.instance_id}".encode()
  assert not any(mark in environment for environment in environments())


async def test_a_task_that_comes_without_its_configuration_fails(gateway, tmp_path):
  task = make_task(config="j:2")
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      await gateway.granted()
      await gateway.dispatch(task, job=make_job())
      result = await gateway.result(task.instance_id)
  assert (result.status, result.reason) == (S.FAILED, WITHOUT_CONFIG)


async def test_a_refused_batch_that_comes_again_is_granted_once(gateway, tmp_path):
  large = {"x": "y" * 400_000}
  blocks = [make_task(due_in=60.0, parameters=large) for _ in range(3)]
  tasks = [make_task(due_in=60.0) for _ in range(3)]
  config = make_config(tmp_path, gateway, journal_limit=1024**2, hold=10)
  with trio.fail_after(30):
    async with running_agent(config) as agent:
      await gateway.granted()
      await gateway.dispatch(*blocks, job=make_job())
      await settled(lambda: agent.parts.intake._journal.full)
      again = await gateway.dispatch(*tasks, job=make_job())
      await settled(lambda: not agent.parts.intake._batches)
      await settled(lambda: len(agent.parts.instances) == len(blocks))
      await gateway.command(AgentCommandKind.CANCEL, blocks[0].instance_id)
      await gateway.result(blocks[0].instance_id)
      await settled(lambda: not agent.parts.intake._journal.full)
      await gateway.dispatch(*tasks, job=make_job(), message_id=again)
      await gateway.until(
        lambda: [m for m in gateway.peer.of(ACK) if m.payload.message_id == again]
      )
      granted = [
        each.payload.hold for each in gateway.peer.of(MessageKind.ACQUIRE_TASK_REQUEST)
      ]
      assert sum(granted) <= 10 + 1  # the place of the one that was cancelled
