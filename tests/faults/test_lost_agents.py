"""Agents vanish, freeze and come back with work in their hands; real processes, short leases.

What ran is read from a file that the jobs alone write: a line for each start and each end.
"""

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
import trio
from fault_checks import all_running, check_agreement, make_tasks, succeeded
from fault_stage import Stage
from support.programs import Agent, Server, client_of, wait_until
from support.proxy import Proxy, Way
from support.work import Run, all_of, make_job, see_through

from hetuflow.client import AsyncClient
from hetuflow.client.calls import system, tasks
from hetuflow.protocol.model import Job
from hetuflow.protocol.states import TaskInstanceStatus, TaskStatus

LEASE_S = 3.0
RESCUE_S = 5.0
"""Beyond the lease, until a lost attempt has been started anew."""
GRACE_S = 4.0
SETTINGS = {
  "HETUFLOW_SERVER_HEARTBEAT": "0.5",
  "HETUFLOW_SERVER_SESSION_LEASE": str(LEASE_S),
}
IMPATIENT = {**SETTINGS, "HETUFLOW_SERVER_LOST_GRACE": str(GRACE_S)}
# As long as anything of an attempt lives it holds the lock; the first one takes its time.
BODY = """
  exec 9> "{folder}/lock-$HETUFLOW_TASK_ID"
  flock -n 9 || echo "overlap $HETUFLOW_TASK_ID" >> "{folder}/runs"
  echo "start $HETUFLOW_TASK_ID $HETUFLOW_ATTEMPT" >> "{folder}/runs"
  test "$HETUFLOW_ATTEMPT" -gt 1 || sleep {seconds}
  echo "end $HETUFLOW_TASK_ID $HETUFLOW_ATTEMPT" >> "{folder}/runs"
"""


class Proof:
  """What jobs have written."""

  def __init__(self, stage: Stage) -> None:
    self.folder: Path = stage.folder / "proof"
    self.folder.mkdir()

  def body(self, seconds: float) -> str:
    """Make a job's body whose first attempt takes so long."""
    return BODY.format(folder=self.folder, seconds=seconds)

  def lines(self, word: str) -> list[tuple[str, ...]]:
    """Read what was written behind a word, in order."""
    file = self.folder / "runs"
    lines = file.read_text().splitlines() if file.exists() else []
    return [tuple(line.split()[1:]) for line in lines if line.split()[0] == word]

  def attempts(self, word: str, task_id: UUID) -> list[int]:
    """Read of which attempts of a task there is a line."""
    return [int(line[1]) for line in self.lines(word) if line[0] == str(task_id)]


async def settle(server: Server) -> None:
  """Wait until the leader gives up whoever is silent: it has led for a lease."""
  await server.wait_for(lambda: server.events("leader_elected"))
  await trio.sleep(LEASE_S + 1)  # the patience that is configured


async def starts(client: AsyncClient, job: Job, attempt: int) -> list[datetime]:
  """List when attempts of a number have started."""
  found = await all_of(client, tasks.list_instances(job_id=job.id))
  return [e.started_at for e in found if e.attempt == attempt and e.started_at]


async def start_one(client: AsyncClient, job: Job) -> UUID:
  """Make a task and see it running."""
  [task_id] = await make_tasks(client, job, 1)
  await all_running(client, job, 1)
  return task_id


def processes_of(agent: Agent) -> list[psutil.Process]:
  """List what runs below an agent."""
  return [each for each in agent.children() if _is_task(each)]


def _is_task(process: psutil.Process) -> bool:
  """Tell the process of a task from others."""
  try:
    return "HETUFLOW_INSTANCE_ID" in process.environ()
  except psutil.Error:
    return False


def lives(process: psutil.Process) -> bool:
  """Tell whether a process still runs."""
  try:
    return bool(process.status() != psutil.STATUS_ZOMBIE)
  except psutil.NoSuchProcess:
    return False


async def ended_with(client: AsyncClient, task_id: UUID, status: TaskStatus) -> Run:
  """See a task through, and check how it ended."""
  run = await see_through(client, task_id, within=40)
  assert run.task.status is status, run
  return run


async def test_what_a_killed_agent_ran_is_run_by_another_soon_after_its_lease(
  stage: Stage,
) -> None:
  with trio.fail_after(120):
    server, proof = await stage.server(env=SETTINGS), Proof(stage)
    one = await stage.agent(server, name="one")
    async with client_of(server) as client:
      job = await make_job(client, proof.body(600), executor="shell")
      await settle(server)
      ids = await make_tasks(client, job, 3)
      await all_running(client, job, len(ids))
      await stage.agent(server, name="two")
      orphans = processes_of(one)
      one.kill()
      killed_at = datetime.now(UTC)
      await succeeded(client, job, len(ids), within=LEASE_S + 2 * RESCUE_S)
      latest = max(await starts(client, job, 2))
      assert (latest - killed_at).total_seconds() <= LEASE_S + RESCUE_S
      assert any(lives(orphan) for orphan in orphans)
      # Its next start ends what the one before has left, and what it says is no news.
      one = await stage.agent(server, name="one")
      await wait_until(lambda: not any(map(lives, orphans)), 30)
      await wait_until(lambda: len(one.events("orphan_ended")) == len(ids))
      await check_agreement(client, job, ids)


async def test_what_ended_unheard_counts_when_its_agent_comes_back_in_time(
  stage: Stage, nursery: trio.Nursery
) -> None:
  with trio.fail_after(120):
    server, proof = await stage.server(env=SETTINGS), Proof(stage)
    line = Proxy(server.port)
    await nursery.start(line.run)
    agent = await stage.agent(server, "--server", line.gateway)
    async with client_of(server) as client:
      await settle(server)
      job = await make_job(client, proof.body(1), executor="shell")
      long = await make_job(client, proof.body(12), executor="shell")
      ids = [await start_one(client, each) for each in (job, long)]
      line.stall(list(Way))
      await wait_until(lambda: proof.attempts("end", ids[0]))
      await wait_until(lambda: server.events("agent_lost"), 20)
      # One is over and its result on record, the other goes on over a restart of neither.
      line.heal()
      for task_id in ids:
        run = await ended_with(client, task_id, TaskStatus.SUCCEEDED)
        assert (run.task.attempts, len(run.attempts)) == (1, 1)
        assert proof.attempts("start", task_id) == [1]
    assert agent.is_running


async def test_results_that_a_killed_agent_had_on_record_count_after_its_loss(
  stage: Stage, nursery: trio.Nursery
) -> None:
  with trio.fail_after(120):
    server, proof = await stage.server(env=SETTINGS), Proof(stage)
    line = Proxy(server.port)
    await nursery.start(line.run)
    agent = await stage.agent(server, "--server", line.gateway)
    async with client_of(server) as client:
      await settle(server)
      job = await make_job(client, proof.body(1), executor="shell")
      task_id = await start_one(client, job)
      line.stall(list(Way))
      await wait_until(lambda: proof.attempts("end", task_id))
      await wait_until(lambda: not processes_of(agent))
      await wait_until(lambda: server.events("agent_lost"), 20)
      agent.kill()
      line.heal()
      await stage.agent(server, "--server", line.gateway)
      run = await ended_with(client, task_id, TaskStatus.SUCCEEDED)
    assert (run.task.attempts, len(run.attempts)) == (1, 1)
    assert proof.attempts("start", task_id) == [1]


async def test_a_frozen_agent_starts_nothing_that_another_has_by_then(
  stage: Stage,
) -> None:
  with trio.fail_after(180):
    server, proof = await stage.server(env=SETTINGS), Proof(stage)
    one = await stage.agent(server, name="one")
    async with client_of(server) as client:
      await client.send(system.update_namespace("default", {"lead": 8.0, "lease": 2.0}))
      await settle(server)
      running = await make_job(client, proof.body(600), executor="shell")
      ending = await make_job(client, proof.body(1), executor="shell")
      planned = await make_job(client, proof.body(0), executor="shell")
      ids = [await start_one(client, each) for each in (running, ending)]
      due_at = datetime.now(UTC) + timedelta(seconds=5)
      items = [{"job_id": str(planned.id), "scheduled_at": due_at.isoformat()}] * 20
      held = list((await client.send(tasks.create_tasks(items))).ids)

      async def holds_all() -> bool:
        """Tell whether the agent has them all on its wheel."""
        found = await client.send(system.list_agents(name="one"))
        return found.items[0].metrics.held == len(held)

      await wait_until(holds_all, 4)
      children = processes_of(one)
      one.suspend()
      frozen_at = datetime.now(UTC)
      assert frozen_at < due_at
      await stage.agent(server, name="two")
      await succeeded(client, planned, len(held), within=30)
      for job in (running, ending):
        await succeeded(client, job, 1, within=30)
      assert any(map(lives, children))  # nobody could tell them
      one.resume()
      await wait_until(lambda: not any(map(lives, children)), 20)
      await wait_until(lambda: len(one.events("session_opened")) > 1)
      # It goes on as an agent like any other.
      extra = await make_job(client, "/bin/true")
      ids_more = await make_tasks(client, extra, 20)
      await succeeded(client, extra, len(ids_more))
      for job, those in ((planned, held), (running, ids[:1]), (ending, ids[1:])):
        await check_agreement(client, job, those)
      for task_id in held:
        # The first attempt was lost before it began.
        assert proof.attempts("start", task_id) == [2]
    assert Counter(proof.lines("start")).most_common(1)[0][1] == 1


async def test_a_frozen_agent_that_wakes_before_it_is_given_up_goes_on(
  stage: Stage,
) -> None:
  with trio.fail_after(120):
    server, proof = await stage.server(env=SETTINGS), Proof(stage)
    agent = await stage.agent(server)
    async with client_of(server) as client:
      await settle(server)
      job = await make_job(client, proof.body(5), executor="shell")
      task_id = await start_one(client, job)
      agent.suspend()
      await trio.sleep(LEASE_S / 2)
      agent.resume()
      run = await ended_with(client, task_id, TaskStatus.SUCCEEDED)
      assert len(run.attempts) == 1
    assert not server.events("agent_lost")


async def test_a_job_that_must_not_be_repeated_runs_at_most_once(stage: Stage) -> None:
  with trio.fail_after(120):
    server, proof = await stage.server(env=IMPATIENT), Proof(stage)
    one = await stage.agent(server, name="one")
    async with client_of(server) as client:
      await settle(server)
      job = await make_job(
        client, proof.body(600), executor="shell", on_lost="fail", max_retries=3
      )
      task_id = await start_one(client, job)
      await stage.agent(server, name="two")
      one.kill()
      await wait_until(lambda: server.events("agent_lost"), LEASE_S + RESCUE_S)
      task = await client.send(tasks.get_task(task_id))
      assert (task.status, task.reason) == (TaskStatus.RUNNING, "lost")
      run = await ended_with(client, task_id, TaskStatus.FAILED)
      assert (run.task.reason, run.last.status) == ("lost", TaskInstanceStatus.LOST)
      waited = run.task.completed_at - task.updated_at  # type: ignore[operator]  # it has ended
      assert GRACE_S <= waited.total_seconds() <= GRACE_S + RESCUE_S
      await stage.agent(server, name="one")
    assert proof.attempts("start", task_id) == [1]


@pytest.mark.parametrize("alone", [True, False])
async def test_only_what_must_run_alone_is_ended_by_an_agent_that_hears_nobody(
  stage: Stage, nursery: trio.Nursery, alone: bool
) -> None:
  with trio.fail_after(120):
    server, proof = await stage.server(env=SETTINGS), Proof(stage)
    line = Proxy(server.port)
    await nursery.start(line.run)
    one = await stage.agent(server, "--server", line.gateway, name="one")
    limit: dict[str, Any] = {"overlap": "queue"} if alone else {}
    async with client_of(server) as client:
      await settle(server)
      job = await make_job(client, proof.body(600), executor="shell", **limit)
      task_id = await start_one(client, job)
      await stage.agent(server, name="two")
      [*children] = processes_of(one)
      line.stall(list(Way))
      run = await ended_with(client, task_id, TaskStatus.SUCCEEDED)
      assert proof.attempts("start", task_id) == [1, 2]
      # Where two may run at a time the first goes on until it hears of the second.
      assert any(map(lives, children)) is not alone
      assert bool(proof.lines("overlap")) is not alone
      line.heal()
      await wait_until(lambda: not any(map(lives, children)), 30)
      again = await see_through(client, task_id)
      assert again.task == run.task
      assert [e.status for e in again.attempts] == [
        TaskInstanceStatus.LOST,
        TaskInstanceStatus.SUCCEEDED,
      ]


@pytest.mark.parametrize("kill", [True, False])
async def test_what_is_cancelled_while_its_agent_is_away_ends_with_the_lease(
  stage: Stage, kill: bool
) -> None:
  with trio.fail_after(120):
    server, proof = await stage.server(env=SETTINGS), Proof(stage)
    agent = await stage.agent(server)
    async with client_of(server) as client:
      await settle(server)
      job = await make_job(client, proof.body(600), executor="shell")
      task_id = await start_one(client, job)
      children = processes_of(agent)
      agent.suspend()
      if kill:
        [attempt] = await all_of(client, tasks.list_instances(job_id=job.id))
        await client.send(tasks.kill_instance(attempt.id))
      else:
        await client.send(tasks.cancel_task(task_id))
      task = await client.send(tasks.get_task(task_id))
      assert task.status is TaskStatus.RUNNING
      assert task.cancel_requested_at is not None
      run = await ended_with(client, task_id, TaskStatus.CANCELLED)
      waited = run.task.completed_at - task.cancel_requested_at  # type: ignore[operator]  # it has ended
      assert waited.total_seconds() <= LEASE_S + RESCUE_S
      agent.resume()
      await wait_until(lambda: not any(map(lives, children)), 20)
    assert proof.attempts("start", task_id) == [1]


async def test_a_kill_gives_no_time_to_clean_up_and_a_cancel_does(stage: Stage) -> None:
  stubborn = 'trap "" TERM; echo ready; while :; do sleep 0.1; done'
  with trio.fail_after(120):
    server = await stage.server(env=SETTINGS)
    await stage.agent(server)
    async with client_of(server) as client:
      job = await make_job(client, stubborn, executor="shell", kill_grace=60.0)
      task_id = await start_one(client, job)
      [attempt] = await all_of(client, tasks.list_instances(job_id=job.id))

      async def has_begun() -> bool:
        """Tell whether it ignores SIGTERM by now."""
        page = await client.send(tasks.log_page(attempt.id))
        return bool(page.items)

      await wait_until(has_begun)
      await client.send(tasks.cancel_task(task_id))
      await trio.sleep(2)  # much shorter than its grace
      assert (await client.send(tasks.get_task(task_id))).completed_at is None
      await client.send(tasks.kill_instance(attempt.id))
      run = await ended_with(client, task_id, TaskStatus.CANCELLED)
      assert run.last.status is TaskInstanceStatus.CANCELLED
      assert run.last.exit_code == 128 + 9
