"""Broadcasts, daemons and intervals from the end, on real servers and agents."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
import trio
from support.programs import (
  Agent,
  Server,
  client_of,
  running_agent,
  running_server,
  wait_until,
)
from support.work import all_of, make_job, see_through

from hetuflow.client import AsyncClient
from hetuflow.client.calls import jobs, schedules, system, tasks
from hetuflow.protocol.model import Job, Task, TaskInstance
from hetuflow.protocol.states import TaskInstanceStatus, TaskStatus

LIMIT_S = 150.0


@pytest.fixture
async def server(folder: Path) -> AsyncIterator[Server]:
  """A server whose agents' word holds for six seconds."""
  env = {"HETUFLOW_SERVER_HEARTBEAT": "1", "HETUFLOW_SERVER_SESSION_LEASE": "6"}
  async with running_server(folder, env=env) as running:
    yield running


@pytest.fixture
async def api(server: Server) -> AsyncIterator[AsyncClient]:
  """A client of that server."""
  async with client_of(server) as opened:
    yield opened


async def start_agents(
  stack: AsyncExitStack, server: Server, count: int
) -> dict[UUID, Agent]:
  """Start agents with folders of their own until the stack is left; map them by id."""
  agents: dict[UUID, Agent] = {}
  async with client_of(server) as client:
    for number in range(count):
      name = f"agent-{number}"
      home = server.data_dir / name
      home.mkdir()
      flags = ("--token", server.token, "--label", f"number={number}")
      agent = await stack.enter_async_context(
        running_agent(server, *flags, name=name, data_dir=home)
      )
      [found] = (await client.send(system.list_agents(name=name))).items
      agents[UUID(str(found.id))] = agent
  return agents


async def running_of(client: AsyncClient, job: Job) -> list[TaskInstance]:
  """List the attempts of a job that run."""
  call = tasks.list_instances(job_id=job.id, status=TaskInstanceStatus.RUNNING)
  return await all_of(client, call)


async def wait_running(
  client: AsyncClient, job: Job, count: int, *, without: frozenset[UUID] = frozenset()
) -> list[TaskInstance]:
  """Wait until so many attempts of a job run, none of them on certain agents."""

  found: list[TaskInstance] = []

  async def look() -> bool:
    """Tell whether they are as many."""
    found[:] = await running_of(client, job)
    return len(found) == count and not any(each.agent_id in without for each in found)

  await wait_until(look, 60.0, every=0.1)
  return found


def process_of(agent: Agent, word: str) -> psutil.Process:
  """Find the process of an agent that was started with a word."""
  [process] = [each for each in agent.children() if word in each.cmdline()[:2]]
  return process


async def make_daemon(client: AsyncClient, replicas: int) -> Job:
  """Make a job that is kept running so many times."""
  daemon = {"kind": "daemon", "replicas": replicas}
  return await make_job(client, "sleep", "1000", schedules=[daemon])


async def schedule_of(client: AsyncClient, job: Job) -> UUID:
  """Find the one schedule of a job."""
  [schedule] = await all_of(client, schedules.list_schedules(job_id=job.id))
  return UUID(str(schedule.id))


async def parts_of(client: AsyncClient, parent: Task) -> list[Task]:
  """List the parts of a broadcast."""
  return await all_of(client, tasks.list_tasks(parent_id=parent.id))


async def test_a_broadcast_runs_on_every_agent_and_says_what_failed(
  server: Server, api: AsyncClient
) -> None:
  with trio.fail_after(LIMIT_S):
    async with AsyncExitStack() as stack:
      agents = await start_agents(stack, server, 3)
      good = await make_job(api, "sh", "-c", "echo $HETUFLOW_JOB_NAME", broadcast=True)
      started = await api.send(jobs.run_job(good.id))
      run = await see_through(api, started.id)
      assert (run.task.status, run.attempts) == (TaskStatus.SUCCEEDED, [])
      parts = await parts_of(api, started)
      runs = [await see_through(api, part.id) for part in parts]
      assert {each.last.agent_id for each in runs} == set(agents)
      assert {each.output for each in runs} == {f"{good.name}\n"}
      # One of the three fails: the one that is the first to make the folder does not.
      folder = server.data_dir / "once"
      bad = await make_job(api, "mkdir", str(folder), broadcast=True)
      started = await api.send(jobs.run_job(bad.id))
      run = await see_through(api, started.id)
      assert run.task.status is TaskStatus.FAILED
      assert run.task.reason == "2 of 3 parts did not succeed: 2 failed"
      ends = Counter(part.status for part in await parts_of(api, started))
      assert ends == {TaskStatus.SUCCEEDED: 1, TaskStatus.FAILED: 2}


async def test_a_broadcast_that_is_cancelled_ends_everywhere(
  server: Server, api: AsyncClient
) -> None:
  with trio.fail_after(LIMIT_S):
    async with AsyncExitStack() as stack:
      await start_agents(stack, server, 2)
      job = await make_job(api, "sleep", "1000", broadcast=True)
      started = await api.send(jobs.run_job(job.id))
      await wait_running(api, job, 2)
      await api.send(tasks.cancel_task(started.id))
      run = await see_through(api, started.id)
      assert run.task.status is TaskStatus.CANCELLED
      assert {part.status for part in await parts_of(api, started)} == {"cancelled"}


async def test_a_daemon_is_spread_restarted_and_stopped(
  server: Server, api: AsyncClient
) -> None:
  with trio.fail_after(LIMIT_S):
    async with AsyncExitStack() as stack:
      agents = await start_agents(stack, server, 3)
      job = await make_daemon(api, 3)
      found = await wait_running(api, job, 3)
      assert {each.agent_id for each in found} == set(agents)
      # Killed young: its next start waits for a second.
      victim = found[0]
      process_of(agents[victim.agent_id], "sleep").kill()
      ended = await see_through(api, victim.task_id)
      assert ended.task.status is TaskStatus.FAILED
      after = await wait_running(api, job, 3)
      [fresh] = [each for each in after if each.id not in {one.id for one in found}]
      assert fresh.started_at is not None
      assert ended.task.completed_at is not None
      pause = fresh.started_at - ended.task.completed_at
      assert timedelta(seconds=1) <= pause < timedelta(seconds=10)
      schedule_id = await schedule_of(api, job)
      await api.send(schedules.update_schedule(schedule_id, {"replicas": 1}))
      [left] = await wait_running(api, job, 1)
      assert left.id in {each.id for each in after}
      await api.send(schedules.disable_schedule(schedule_id))
      await wait_running(api, job, 0)
      await api.send(schedules.enable_schedule(schedule_id))
      await wait_running(api, job, 1)
      await api.send(schedules.delete_schedule(schedule_id))
      await wait_running(api, job, 0)


async def test_a_daemon_leaves_an_agent_that_dies(
  server: Server, api: AsyncClient
) -> None:
  with trio.fail_after(LIMIT_S):
    async with AsyncExitStack() as stack:
      agents = await start_agents(stack, server, 2)
      job = await make_daemon(api, 2)
      found = await wait_running(api, job, 2)
      assert {each.agent_id for each in found} == set(agents)
      dead = found[0].agent_id
      orphan = process_of(agents[dead], "sleep")
      agents[dead].kill()
      try:
        after = await wait_running(api, job, 2, without=frozenset([dead]))
      finally:
        orphan.kill()
      assert {each.agent_id for each in after} == set(agents) - {dead}


async def test_an_interval_from_the_end_starts_that_long_after_it(
  server: Server, api: AsyncClient
) -> None:
  with trio.fail_after(LIMIT_S):
    async with AsyncExitStack() as stack:
      await start_agents(stack, server, 1)
      wish: dict[str, Any] = {
        "kind": "time",
        "interval_seconds": 2,
        "fixed_delay": True,
        "max_runs": 3,
      }
      job = await make_job(api, "sleep", "1", schedules=[wish])

      async def ended() -> list[TaskInstance] | None:
        """Return the attempts once all three have succeeded."""
        call = tasks.list_instances(job_id=job.id, status="succeeded")
        done = await all_of(api, call)
        return done[::-1] if len(done) == 3 else None

      runs: list[TaskInstance] = await wait_until(ended, 60.0, every=0.1)
      for before, after in pairwise(runs):
        assert after.started_at is not None
        assert before.completed_at is not None
        pause = after.started_at - before.completed_at
        assert timedelta(seconds=1.9) < pause < timedelta(seconds=4)
      listed = await all_of(api, tasks.list_tasks(job_id=job.id))
      assert len(listed) == 3
