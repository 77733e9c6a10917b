"""Programs are killed, frozen and stopped, and lines broken, in a random order.

Each seed is one order of faults; how they fall in time is left to the machine. What the
jobs did is read from a file that they alone write.
"""

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
import trio
from fault_checks import check_agreement, succeeded
from fault_stage import Stage
from support.programs import Agent, Server, client_of, postmaster_of, wait_until
from support.proxy import Proxy, Way
from support.work import all_of, make_job

from hetuflow.client import ApiError, AsyncClient, ServerUnreachable
from hetuflow.client.calls import tasks
from hetuflow.protocol.model import Job

FAULTS = 12
TASKS = 40
"""Made with each fault, half of them processes."""
SETTINGS = {"HETUFLOW_SERVER_HEARTBEAT": "0.5", "HETUFLOW_SERVER_SESSION_LEASE": "3"}
FREEZES_S = (0.3, 1.5, 4.0)
"""Shorter than two heartbeats, longer, and longer than a lease."""
# The lock is held for as long as anything of the attempt lives.
BODY = """
  exec 9> "{folder}/lock-$HETUFLOW_TASK_ID"
  flock -n 9 || echo "overlap $HETUFLOW_TASK_ID $HETUFLOW_ATTEMPT" >> "{folder}/runs"
  echo "start $HETUFLOW_TASK_ID $HETUFLOW_ATTEMPT" >> "{folder}/runs"
  sleep 0.$(($$ % 10))
  echo "end $HETUFLOW_TASK_ID $HETUFLOW_ATTEMPT" >> "{folder}/runs"
"""


class Chaos:
  """One server and two agents, each behind a line of its own, and what befalls them."""

  def __init__(self, stage: Stage, server: Server, dice: random.Random) -> None:
    self.stage = stage
    self.server = server
    self.dice = dice
    self.lines = [Proxy(server.port) for _ in range(2)]
    self.agents: list[Agent] = []

  async def start(self, nursery: trio.Nursery) -> None:
    """Start the lines and the agents."""
    for number, line in enumerate(self.lines):
      await nursery.start(line.run)
      self.agents.append(await self._agent(number))

  async def strike(self) -> str:
    """Let one thing happen, see it over, and return what it was."""
    faults: list[Callable[[], Awaitable[None]]] = [
      self.kill_agent,
      self.kill_server,
      self.kill_postmaster,
      self.stop_agent,
      self.freeze,
      self.stall,
      self.break_lines,
    ]
    fault = self.dice.choice(faults)
    await fault()
    return fault.__name__

  async def kill_agent(self) -> None:
    """Kill an agent; the next start of it comes at once."""
    number = self.dice.randrange(len(self.agents))
    self.agents[number].kill()
    self.agents[number] = await self._agent(number)

  async def stop_agent(self) -> None:
    """Stop an agent in good order."""
    number = self.dice.randrange(len(self.agents))
    assert await self.agents[number].terminate() == 0
    self.agents[number] = await self._agent(number)

  async def kill_server(self) -> None:
    """Kill the server; the next start of it comes at once."""
    self.server.kill()
    self.server = await self.stage.server_at(self.server, env=SETTINGS)

  async def kill_postmaster(self) -> None:
    """Kill the database, which the server starts again."""
    if (postmaster := postmaster_of(self.stage.folder)) is not None:
      postmaster.kill()

  async def freeze(self) -> None:
    """Stop a program for a while."""
    program = self.dice.choice([self.server, *self.agents])
    program.suspend()
    await trio.sleep(self.dice.choice(FREEZES_S))
    program.resume()

  async def stall(self) -> None:
    """Let nothing pass in a direction for a while, then all of it."""
    line = self.dice.choice(self.lines)
    line.stall(self.dice.choice([[Way.UP], [Way.DOWN], list(Way)]))
    await trio.sleep(self.dice.choice(FREEZES_S))
    line.heal()

  async def break_lines(self) -> None:
    """Break off all connections."""
    for line in self.lines:
      line.reset()

  async def _agent(self, number: int) -> Agent:
    """Start an agent on its line; it runs then, but need not have a session."""
    line = self.lines[number]
    agent = await self.stage.agent(
      self.server, "--server", line.gateway, name=f"agent-{number}", wait=False
    )
    await agent.wait_for(lambda: agent.events("child_started"))
    return agent


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_befalls_the_programs_each_task_succeeds_once(
  stage: Stage, nursery: trio.Nursery, seed: int
) -> None:
  with trio.fail_after(240):
    server = await stage.server(env=SETTINGS)
    chaos = Chaos(stage, server, random.Random(seed))
    await chaos.start(nursery)
    folder = stage.folder / "proof"
    folder.mkdir()
    async with client_of(server) as client:
      # However often an agent is killed, that is no fault of the task.
      lasting: dict[str, Any] = {"max_lost": 100, "kill_grace": 1.0}
      body = BODY.format(folder=folder)
      processes = await make_job(client, body, executor="shell", **lasting)
      noops = await make_job(client, "hetuflow.noop", executor="python", **lasting)
      made: dict[UUID, list[UUID]] = {processes.id: [], noops.id: []}
      story: list[str] = []
      for _ in range(FAULTS):
        for job in (processes, noops):
          made[job.id] += await _make_tasks(client, job, len(story))
        story.append(await chaos.strike())
      for job in (processes, noops):
        await succeeded(client, job, len(made[job.id]), within=60)
        await check_agreement(client, job, made[job.id])
      attempts = await all_of(client, tasks.list_instances(job_id=processes.id))
    _check_proof(folder, {(str(each.task_id), str(each.attempt)) for each in attempts})
    assert not _left_behind(folder)
    for program in (chaos.server, *chaos.agents):
      assert program.is_running
    assert not [log for log in stage.logs() if "Traceback" in log]


async def _make_tasks(client: AsyncClient, job: Job, round: int) -> list[UUID]:
  """Make tasks once, however often that has to be asked for."""
  items = [
    {"job_id": str(job.id), "idempotency_key": f"{job.id}-{round}-{number}"}
    for number in range(TASKS // 2)
  ]

  async def make() -> list[UUID]:
    """Ask once; a server that is away now may be back soon."""
    with suppress(ServerUnreachable, ApiError):
      return list((await client.send(tasks.create_tasks(items))).ids)
    return []

  return list(await wait_until(make, 30, every=0.1))


def _check_proof(folder: Path, attempts: set[tuple[str, str]]) -> None:
  """Check what the jobs have written: no attempt ran twice, no two of a task at once."""
  lines = [line.split() for line in (folder / "runs").read_text().splitlines()]
  assert [line for line in lines if line[0] == "overlap"] == []
  counts = Counter(tuple(line) for line in lines)
  assert [line for line, count in counts.items() if count > 1] == []
  assert {(task, attempt) for _, task, attempt in lines} <= attempts


def _left_behind(folder: Path) -> list[psutil.Process]:
  """Find processes of the jobs that still live: they hold a lock."""
  found = []
  for process in psutil.process_iter():
    with suppress(psutil.Error):
      if any(Path(file.path).parent == folder for file in process.open_files()):
        found.append(process)
  return found
