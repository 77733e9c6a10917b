"""Results reach the server whatever happens in between: once recorded, never lost."""

import pytest
import trio
from agent_stage import make_config, make_job, make_task, running_agent, settled

from hetuflow.agent import function, functions
from hetuflow.agent.journal import open_journal
from hetuflow.agent.process import scan_instances
from hetuflow.agent.reporting import lane
from hetuflow.protocol.messages import AckOutcome, MessageKind
from hetuflow.protocol.states import TaskInstanceStatus as S

UPDATE, LOG = MessageKind.TASK_INSTANCE_UPDATE, MessageKind.TASK_LOG


def carrying(gateway, instance_id, kind=UPDATE):
  """List the messages that carry the result or output of an attempt."""
  field = "updates" if kind is UPDATE else "chunks"
  return [
    message
    for peer in gateway.peers
    for message in peer.of(kind)
    if any(each.instance_id == instance_id for each in getattr(message.payload, field))
  ]


async def test_what_is_not_acknowledged_is_sent_again_as_the_same_message(
  gateway, tmp_path, monkeypatch
):
  monkeypatch.setattr(lane, "RESEND_SECONDS", 0.05)
  gateway.silent = {UPDATE}
  task = make_task()
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)) as agent:
      await gateway.granted()
      await gateway.dispatch(task, job=make_job())
      await gateway.until(lambda: len(carrying(gateway, task.instance_id)) == 3)
      gateway.silent = set()
      await gateway.until(lambda: not len(agent.parts.outbox))
  sent = carrying(gateway, task.instance_id)
  assert len({message.message_id for message in sent}) == 1
  assert len({message.payload.updates[0].completed_at for message in sent}) == 1


async def test_after_a_reconnect_output_comes_again_before_the_result(
  gateway, tmp_path
):
  gateway.silent = {UPDATE, LOG}
  task, job = make_task(), make_job("/bin/echo", args=["kept"])
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)) as agent:
      await gateway.granted()
      await gateway.dispatch(task, job=job)
      await gateway.result(task.instance_id)
      gateway.silent = set()
      await gateway.peer.socket.aclose(1011, "gone wrong")
      again = await gateway.registered(sessions=2)
      assert [each.instance_id for each in again.register.held] == [task.instance_id]
      await gateway.until(lambda: not len(agent.parts.instances))
  kinds = [each.message_kind for each in again.messages]
  assert kinds.index(LOG) < kinds.index(UPDATE)
  assert gateway.output(task.instance_id) == b"kept\n"
  assert len({m.message_id for m in carrying(gateway, task.instance_id, LOG)}) == 1


async def test_the_result_follows_even_much_output(gateway, tmp_path):
  script = "i=0; while [ $i -lt 40 ]; do head -c 65536 /dev/zero; i=$((i+1)); done"
  task, job = make_task(), make_job(script, executor="shell")
  config = make_config(tmp_path, gateway, max_output_buffer=64 * 1024)
  with trio.fail_after(30):
    async with running_agent(config):
      await gateway.granted()
      await gateway.dispatch(task, job=job)
      result = await gateway.result(task.instance_id)
      assert result.metrics.output_bytes == 40 * 65536
      assert len(gateway.output(task.instance_id)) == 40 * 65536
  assert result.output == "\N{REPLACEMENT CHARACTER}" * 4096


async def test_results_and_their_output_survive_a_restart(gateway, tmp_path):
  gateway.silent = {UPDATE, LOG}
  task, job = make_task(), make_job("/bin/echo", args=["kept"])
  config = make_config(tmp_path, gateway)
  with trio.fail_after(30):
    async with running_agent(config):
      await gateway.granted()
      await gateway.dispatch(task, job=job)
      await gateway.result(task.instance_id)
    gateway.silent = set()
    first = gateway.peers[:]
    gateway.peers.clear()
    async with running_agent(config) as agent:
      peer = await gateway.registered()
      assert [each.instance_id for each in peer.register.held] == [task.instance_id]
      assert peer.register.epoch == first[0].register.epoch + 1
      assert peer.register.agent_id == first[0].register.agent_id
      result = await gateway.result(task.instance_id)
      assert (result.status, result.output) == (S.SUCCEEDED, "kept\n")
      assert gateway.output(task.instance_id) == b"kept\n"
      await gateway.until(lambda: not len(agent.parts.outbox))
      await agent.parts.outbox.drain()
    async with open_journal(config.folder) as journal:
      recovered = journal.load()
      assert (recovered.claims, recovered.outbox) == ((), ())


@pytest.mark.parametrize("how", ["process", "function"])
async def test_what_had_ended_is_not_lost_though_its_output_found_no_room(
  gateway, tmp_path, monkeypatch, how
):
  monkeypatch.setattr(functions, "_functions", dict(functions._functions))
  gateway.silent = {LOG}
  # More than there is room for, and no more beyond that than the pipe holds.
  script = "head -c 100000 /dev/zero; exit 3"
  job = make_job(script, executor="shell")
  if how == "function":
    function("print")(lambda: "x" * 300_000)
    job = make_job("print", executor="python")
  task, behind = make_task(), make_task()
  config = make_config(tmp_path, gateway, max_output_buffer=64 * 1024)
  with trio.fail_after(30):
    async with running_agent(config) as agent:
      await gateway.granted()
      await gateway.dispatch(task, job=job)
      backlog = agent.parts.outbox._backlog
      await settled(lambda: backlog._room.statistics().tasks_waiting)
      await settled(lambda: str(task.instance_id) not in scan_instances())
      # Whoever waits for room keeps its slot.
      await gateway.dispatch(behind, job=make_job())
      await gateway.result(behind.instance_id)
      assert agent.parts.instances.running == 1
    gateway.silent = set()
    async with running_agent(config):
      result = await gateway.result(task.instance_id)
  expected = (S.FAILED, "exit code 3") if how == "process" else (S.SUCCEEDED, None)
  assert (result.status, result.reason) == expected


async def test_a_result_finds_room_in_the_journal_once_its_output_is_acknowledged(
  gateway, tmp_path, monkeypatch
):
  monkeypatch.setattr(lane, "RESEND_SECONDS", 0.2)
  gateway.silent = {LOG}
  task = make_task()
  job = make_job("head -c 3000000 /dev/zero", executor="shell")
  config = make_config(tmp_path, gateway, journal_limit=1024**2)
  with trio.fail_after(30):
    async with running_agent(config) as agent:
      await gateway.granted()
      await gateway.dispatch(task, job=job)
      await settled(lambda: agent.parts.outbox._journal._disk_full)
      gateway.silent = set()
      assert (await gateway.result(task.instance_id)).status is S.SUCCEEDED
  assert len(gateway.output(task.instance_id)) == 3_000_000


async def test_what_is_stale_is_killed_and_not_spoken_of_again(gateway, tmp_path):
  task = make_task()
  gateway.outcomes = {task.instance_id: AckOutcome.STALE}
  pid_file = tmp_path / "pid"
  script = (
    'echo $$ > "$1.new"; mv "$1.new" "$1"; trap "" TERM; while :; do sleep 0.05; done'
  )
  job = make_job(script, executor="shell", args=[str(pid_file)])
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)) as agent:
      await gateway.granted()
      await gateway.dispatch(task, job=job)
      await gateway.started(task.instance_id)
      await gateway.until(lambda: not len(agent.parts.instances))
      await agent.parts.crowd.wait_empty()
      await gateway.dispatch(other := make_task(), job=make_job())
      await gateway.result(other.instance_id)
  assert [each.status for each in gateway.updates(task.instance_id)] == [S.RUNNING]


async def test_an_invalid_report_is_not_sent_for_ever(gateway, tmp_path):
  task = make_task()
  gateway.outcomes = {task.instance_id: AckOutcome.INVALID}
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)) as agent:
      await gateway.granted()
      await gateway.dispatch(task, job=make_job())
      await gateway.result(task.instance_id)
      await gateway.until(lambda: not len(agent.parts.outbox))
      assert not len(agent.parts.instances)


@pytest.mark.parametrize("due_in", [-0.01, 30.0])
async def test_superseded_claims_are_dropped_at_registration(gateway, tmp_path, due_in):
  task, job = make_task(due_in=due_in), make_job("/bin/sleep", args=["60"])
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)) as agent:
      await gateway.granted()
      await gateway.dispatch(task, job=job)
      await gateway.until(lambda: gateway.peer.of(MessageKind.ACK))
      gateway.superseded = [task.instance_id]
      await gateway.peer.socket.aclose(1011, "gone wrong")
      again = await gateway.registered(sessions=2)
      assert [each.instance_id for each in again.register.held] == [task.instance_id]
      await agent.parts.crowd.wait_empty()
      assert not len(agent.parts.instances)
      assert not len(agent.parts.wheel)
      gateway.superseded = []
      await gateway.peer.socket.aclose(1011, "gone wrong")
      assert (await gateway.registered(sessions=3)).register.held == []
  assert all(each.status is S.RUNNING for each in gateway.updates(task.instance_id))


async def test_planned_tasks_fire_while_the_server_is_away(gateway, tmp_path):
  task, job = make_task(due_in=0.5), make_job("/bin/echo", args=["alone"])
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)) as agent:
      await gateway.granted()
      await gateway.dispatch(task, job=job)
      await gateway.until(lambda: gateway.peer.of(MessageKind.ACK))
      gateway.rejects = 503
      await gateway.peer.socket.aclose(1001, "going away")
      await settled(
        lambda: agent.parts.instances.get(task.instance_id).stage == "finished"
      )
      gateway.rejects = None
      result = await gateway.result(task.instance_id)
  assert result.started_at >= task.due_at


async def test_an_agent_started_without_a_server_fires_what_its_journal_holds(
  gateway, tmp_path
):
  soon = make_task(due_in=0.7)
  over = make_task(due_in=0.001, lease=-1.0)
  config = make_config(tmp_path, gateway)
  with trio.fail_after(30):
    async with running_agent(config) as agent:
      await gateway.granted()
      agent.parts.executor.submit = lambda _: None  # what is due stays where it is
      await gateway.dispatch(soon, over, job=make_job("/bin/echo", args=["alone"]))
      await gateway.until(lambda: gateway.peer.of(MessageKind.ACK))
    gateway.peers.clear()
    gateway.rejects = 503
    async with running_agent(config) as agent:
      await settled(
        lambda: agent.parts.instances.get(soon.instance_id).stage == "finished"
      )
      gateway.rejects = None
      result = await gateway.result(soon.instance_id)
      assert (result.status, result.output) == (S.SUCCEEDED, "alone\n")
      assert result.started_at >= soon.due_at
      released = await gateway.result(over.instance_id)
      assert (released.status, released.reason) == (S.RELEASED, "lease expired")


async def test_a_full_journal_takes_nothing_new_and_drops_nothing(gateway, tmp_path):
  gateway.silent = {UPDATE}
  tasks = [make_task(parameters={"x": "y" * 200_000}) for _ in range(8)]
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway, journal_limit=1024**2)):
      await gateway.granted()
      await gateway.dispatch(*tasks, job=make_job())
      for task in tasks:
        await gateway.result(task.instance_id)
      refused = await gateway.dispatch(other := make_task(), job=make_job())
      await gateway.peer.socket.aclose(1011, "gone wrong")
      gateway.silent = set()
      again = await gateway.registered(sessions=2)
      assert len(again.register.held) == 8
      # It asks for tasks again only when the reports that filled it are acknowledged.
      await gateway.granted()
      kinds = [each.message_kind for each in again.messages]
      assert kinds.index(UPDATE) < kinds.index(MessageKind.ACQUIRE_TASK_REQUEST)
      await gateway.dispatch(other, job=make_job())
      await gateway.result(other.instance_id)
  acks = [each.payload.message_id for each in gateway.peers[0].of(MessageKind.ACK)]
  assert refused not in acks
  assert len(gateway.updates(other.instance_id)) == 1


def test_a_lane_keeps_reports_of_one_message_together():
  reports = [
    lane.Report(instance_id=make_task().instance_id, key="", body=b"{}")
    for _ in range(700)
  ]
  road = lane.Lane(UPDATE, "updates")
  for report in reports:
    road.add(report)
  road.void(reports[0].instance_id)
  first, second = road.take(), road.take()
  assert [len(first.reports), len(second.reports)] == [500, 199]
  assert road.land(first.message_id) == reports[1:501]
  assert road.land(first.message_id) is None
  assert len(road) == 199


def test_a_message_is_no_larger_than_it_may_be_but_for_a_report_that_is():
  road = lane.Lane(LOG, "chunks")
  for size in (3000, 3000, 3000, 9000, 10):
    body = b'"' + b"x" * (size - 2) + b'"'
    road.add(lane.Report(instance_id=make_task().instance_id, key="", body=body))
  flights = []
  while (flight := road.take(7000)) is not None:
    flights.append(flight)
  assert [len(flight.reports) for flight in flights] == [2, 1, 1, 1]
  assert [len(bytes(flight.payload)) > 7000 for flight in flights] == [0, 0, 1, 0]
