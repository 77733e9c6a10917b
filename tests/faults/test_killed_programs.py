"""Servers, agents and databases are killed in the middle of work; nothing is lost."""

import signal

import psutil
import trio
from fault_checks import (
  all_running,
  check_agreement,
  count_tasks,
  make_tasks,
  succeeded,
  wait_for_end,
)
from fault_stage import Stage
from support.programs import client_of, postmaster_of, wait_until
from support.work import all_of, make_job

from hetuflow.client.calls import system, tasks
from hetuflow.protocol.states import TaskInstanceStatus, TaskStatus

TASKS = 2_000
OUTAGE_S = 3.0


async def test_agent_and_server_killed_amid_2000_processes_lose_and_double_nothing(
  stage: Stage,
) -> None:
  with trio.fail_after(180):
    server = await stage.server()
    agent = await stage.agent(server)
    async with client_of(server) as client:
      job = await make_job(client, "/bin/true")
      ids = await make_tasks(client, job, TASKS)
      await succeeded(client, job, 300)
      agent.kill()
      await trio.sleep(OUTAGE_S)
      agent = await stage.agent(server)
      await succeeded(client, job, 900)
      server.kill()
      await trio.sleep(OUTAGE_S)
      await stage.server_at(server)
      await wait_for_end(client, job, TASKS, within=60)
      await check_agreement(client, job, ids)
      assert await agent.terminate() == 0


async def test_a_killed_postmaster_is_restarted_and_nothing_acknowledged_is_lost(
  stage: Stage,
) -> None:
  with trio.fail_after(120):
    server = await stage.server()
    await stage.agent(server)
    async with client_of(server) as client:
      job = await make_job(client, "/bin/true")
      ids = await make_tasks(client, job, TASKS)
      await succeeded(client, job, 300)
      postmaster = postmaster_of(stage.folder)
      assert postmaster is not None
      postmaster.kill()
      await wait_for_end(client, job, TASKS, within=60)
      await check_agreement(client, job, ids)
      successor = postmaster_of(stage.folder)
      assert successor is not None
      assert successor.pid != postmaster.pid
      assert server.is_running
      # Each part says once that the database is away, not once per try.
      waits = [line for line in server.log_text().splitlines() if "_waits_for_" in line]
      assert 0 < len(waits) < 50


async def test_results_that_were_not_acknowledged_survive_the_agent_s_death(
  stage: Stage,
) -> None:
  with trio.fail_after(120):
    server = await stage.server()
    agent = await stage.agent(server)
    proof = stage.folder / "proof"
    proof.mkdir()
    async with client_of(server) as client:
      job = await make_job(
        client,
        'sleep 1; echo "$HETUFLOW_TASK_ID" >> "$HETUFLOW_PARAM_PROOF/runs"',
        executor="shell",
      )
      items = [{"job_id": str(job.id), "parameters": {"proof": str(proof)}}] * 10
      ids = list((await client.send(tasks.create_tasks(items))).ids)
      await all_running(client, job, len(ids))
      server.kill()
      runs = proof / "runs"
      await wait_until(
        lambda: runs.exists() and len(runs.read_text().splitlines()) == len(ids), 20
      )
      await wait_until(lambda: not task_processes(agent.children()), 20)
      agent.kill()
      server = await stage.server_at(server)
      await stage.agent(server)
      await wait_for_end(client, job, len(ids), within=30)
      attempts = await all_of(client, tasks.list_instances(job_id=job.id))
      # Whatever had reached the journal was delivered; the rest was lost and run again.
      assert len(runs.read_text().splitlines()) == len(attempts)
      await check_agreement(client, job, ids)


async def test_processes_of_a_killed_agent_are_ended_and_their_tasks_run_again(
  stage: Stage,
) -> None:
  with trio.fail_after(120):
    server = await stage.server()
    agent = await stage.agent(server)
    async with client_of(server) as client:
      job = await make_job(
        client, 'test "$HETUFLOW_ATTEMPT" -gt 1 || sleep 60', executor="shell"
      )
      ids = await make_tasks(client, job, 4)
      await all_running(client, job, len(ids))
      orphans = task_processes(agent.children())
      assert len(orphans) >= len(ids)
      agent.kill()
      await stage.agent(server)
      await wait_for_end(client, job, len(ids), within=30)
      await check_agreement(client, job, ids)
      lost = await all_of(
        client, tasks.list_instances(job_id=job.id, status=TaskInstanceStatus.LOST)
      )
      assert len(lost) == len(ids)
      assert not [orphan for orphan in orphans if lives(orphan)]


async def test_planned_tasks_fire_on_time_while_the_server_is_away(
  stage: Stage,
) -> None:
  with trio.fail_after(120):
    server = await stage.server()
    agent = await stage.agent(server)
    async with client_of(server) as client:
      await client.send(system.update_namespace("default", {"lead": 20.0}))
      job = await make_job(
        client,
        "hetuflow.noop",
        executor="python",
        schedules=[{"kind": "cron", "cron_expression": "* * * * * *"}],
      )

      async def holds_many() -> bool:
        """Tell whether the agent has what comes next."""
        found = await client.send(system.list_agents(name=agent.name))
        return found.items[0].metrics.held >= 15

      await wait_until(holds_many, 30)
      server.kill()
      await trio.sleep(8)  # the outage that is tested
      await stage.server_at(server)
      await succeeded(client, job, 20)
      done = await all_of(
        client,
        tasks.list_instances(job_id=job.id, status=TaskInstanceStatus.SUCCEEDED),
      )
      times = sorted(each.scheduled_at for each in done)
      assert len(set(times)) == len(times)
      assert (times[-1] - times[0]).total_seconds() == len(times) - 1
      errors = [each.start_error_ms for each in done]
      assert all(error is not None and 0 <= error < 1_000 for error in errors)


async def test_of_two_servers_on_one_folder_the_other_goes_on_when_one_is_killed(
  stage: Stage,
) -> None:
  with trio.fail_after(120):
    first = await stage.server(name="first")
    second = await stage.server(name="second")
    agent = await stage.agent(
      first, "--server", first.gateway, "--server", second.gateway
    )
    async with client_of(second) as client:
      listed = await all_of(client, system.list_servers())
      assert {each.name for each in listed if each.alive} == {"first", "second"}
      job = await make_job(client, "/bin/true")
      ids = await make_tasks(client, job, 600)
      await succeeded(client, job, 100)
      first.kill()
      await wait_for_end(client, job, len(ids), within=60)
      await check_agreement(client, job, ids)
    assert await agent.terminate() == 0
    assert postmaster_of(stage.folder) is not None
    assert await second.terminate() == 0
    assert postmaster_of(stage.folder) is None


async def test_a_server_asked_to_stop_under_load_leaves_nothing_behind(
  stage: Stage,
) -> None:
  with trio.fail_after(120):
    server = await stage.server()
    await stage.agent(server)
    async with client_of(server) as client:
      job = await make_job(client, "/bin/true")
      ids = await make_tasks(client, job, 600)
      await succeeded(client, job, 100)
      assert await server.terminate(within=20) == 0
      assert postmaster_of(stage.folder) is None
      assert not (stage.folder / "server.json").exists()
      assert not list((stage.folder / "servers").iterdir())
      await stage.server_at(server)
      await wait_for_end(client, job, len(ids), within=60)
      await check_agreement(client, job, ids)


async def test_an_agent_asked_to_stop_under_load_gives_back_what_it_has_not_begun(
  stage: Stage,
) -> None:
  with trio.fail_after(120):
    server = await stage.server()
    agent = await stage.agent(server)
    async with client_of(server) as client:
      job = await make_job(client, "/bin/true")
      ids = await make_tasks(client, job, 600)
      await succeeded(client, job, 100)
      assert await agent.terminate(within=20) == 0
      assert await count_tasks(client, job, TaskStatus.DISPATCHED) == 0
      assert await count_tasks(client, job, TaskStatus.RUNNING) == 0
      await stage.agent(server)
      await wait_for_end(client, job, len(ids), within=60)
      await check_agreement(client, job, ids)


async def test_a_second_signal_stops_a_draining_server_at_once(stage: Stage) -> None:
  with trio.fail_after(60):
    server = await stage.server()
    server.process.send_signal(signal.SIGTERM)
    server.process.send_signal(signal.SIGTERM)
    # Signals of one kind may be merged by the kernel into one.
    assert await server.wait(within=20) in (0, 1)


def task_processes(processes: list[psutil.Process]) -> list[psutil.Process]:
  """Keep the processes of tasks among the descendants of an agent."""
  found = []
  for process in processes:
    try:
      if "HETUFLOW_INSTANCE_ID" in process.environ():
        found.append(process)
    except psutil.Error:
      continue
  return found


def lives(process: psutil.Process) -> bool:
  """Tell whether a process still runs; whoever inherits a dead one may leave it so."""
  try:
    return bool(process.status() != psutil.STATUS_ZOMBIE)
  except psutil.NoSuchProcess:
    return False
