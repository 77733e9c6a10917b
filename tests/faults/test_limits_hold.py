"""Limits hold while agents and servers are killed, and no place is lost.

Each attempt takes one of as many locks as its lane has places, and holds it for as long as
anything of it lives: who finds none has proved that too many ran at the same time. At
effort 50 there are 20,000 tasks.
"""

import random
from collections import Counter
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import trio
from fault_stage import Stage
from support.effort import EFFORT, scaled
from support.programs import Agent, Server, client_of, wait_until
from support.work import make_job, run_job
from support.world import query

from hetuflow.client import AsyncClient
from hetuflow.client.calls import tasks
from hetuflow.protocol.model import Job
from hetuflow.storage.connect import Database

SERVERS = 4
AGENTS = 8
TASKS, FULL_TASKS = 400, 20_000
KILLS, FULL_KILLS = 10, 200
KEYS = "abcdef"
PLACES = 3
"""Of each key; a job that runs alone has one."""
ALONE_SHARE = 20
"""One in so many tasks is of the job that runs alone."""
BATCH = 5_000
# What a killed agent has left running ends long before its lease.
SETTINGS = {
  "HETUFLOW_SERVER_HEARTBEAT": "0.5",
  "HETUFLOW_SERVER_SESSION_LEASE": "3",
  "HETUFLOW_SERVER_LOST_GRACE": "5",
}
BODY = """
  cd "{folder}"
  say() {{
    now=$(cut -d' ' -f1 /proc/uptime)
    echo "$1 $2 $HETUFLOW_TASK_ID $HETUFLOW_ATTEMPT $$ $now" >> runs
  }}
  for place in $(seq {places}); do
    exec 9>> "$1.$place"
    if flock -n 9; then found=$place; break; fi
  done
  test -n "$found" || say over "$1"
  say begin "$1"
  sleep 0.$(($$ % 10))
  say end "$1"
"""

LEFT = query("""
  SELECT count(*) FROM sched_task
  WHERE namespace_id = 'default' AND completed_at = 'infinity'
""")
OUTCOMES = query("""
  SELECT status::text AS status, count(*) AS count FROM sched_task GROUP BY status
""")
LOST = query("SELECT count(*) FROM sched_task_instance WHERE status = 'lost'")


class Fleet:
  """Servers, agents that know all of them, and what befalls them."""

  def __init__(self, stage: Stage, dsn: str, seed: int) -> None:
    self.stage = stage
    self.dsn = dsn
    self.dice = random.Random(seed)
    self.servers: list[Server] = []
    self.agents: list[Agent] = []

  async def start(self) -> None:
    """Start all programs."""
    for number in range(SERVERS):
      self.servers.append(
        await self.stage.server(
          name=f"server-{number}", database_url=self.dsn, env=SETTINGS
        )
      )
    for number in range(AGENTS):
      (self.stage.folder / f"agent-{number}").mkdir()
      self.agents.append(await self._agent(number))

  async def strike(self) -> None:
    """Kill an agent or a server; the next start of it comes at once, or in a while."""
    await trio.sleep(0.2 + self.dice.random() / 2)
    if self.dice.random() < 0.7:
      number = self.dice.randrange(AGENTS)
      self.agents[number].kill()
      await trio.sleep(self.dice.choice([0, 0, 4]))
      self.agents[number] = await self._agent(number)
    else:
      number = self.dice.randrange(SERVERS)
      former = self.servers[number]
      former.kill()
      await trio.sleep(self.dice.choice([0, 0, 3]))
      self.servers[number] = await self.stage.server_at(
        former, name=former.name, database_url=self.dsn, env=SETTINGS
      )

  async def _agent(self, number: int) -> Agent:
    """Start an agent, from another server on for each; it need not have a session."""
    first = number % SERVERS
    flags: list[object] = ["--max-concurrent", 10]
    for server in self.servers[first:] + self.servers[:first]:
      flags += ["--server", server.gateway]
    agent = await self.stage.agent(
      self.servers[first],
      *flags,
      name=f"agent-{number}",
      data_dir=self.stage.folder / f"agent-{number}",
      env={"HETUFLOW_AGENT_TOKEN": self.servers[first].token},
      wait=False,
    )
    await agent.wait_for(lambda: agent.events("child_started"))
    return agent


async def test_no_more_run_than_may_while_programs_are_killed(
  stage: Stage, database: Database, dsn: str
) -> None:
  count = scaled(TASKS, full=FULL_TASKS)
  kills = scaled(KILLS, full=FULL_KILLS)
  with trio.fail_after(240 + count / 5 + 15 * kills):
    fleet = Fleet(stage, dsn, seed=round(EFFORT * 10))
    await fleet.start()
    proof = stage.folder / "proof"
    proof.mkdir()
    async with client_of(fleet.servers[0]) as client:
      alone, shared = await _make_jobs(client, proof)
    made: list[UUID] = []
    for part in _parts(count, kills):
      async with client_of(fleet.servers[0]) as client:
        made += await _make_tasks(client, alone, ["alone"] * (part // ALONE_SHARE))
        keys = list(islice(cycle(KEYS), part - part // ALONE_SHARE))
        made += await _make_tasks(client, shared, keys)
      await fleet.strike()
    await wait_until(lambda: _all_ended(database), 180 + count / 5, every=0.2)
    outcomes = {row["status"]: row["count"] for row in await database.fetch(OUTCOMES)}
    lost = await database.fetchval(LOST)
    async with client_of(fleet.servers[0]) as client:
      # Every place of every lane is free again.
      for key in KEYS:
        assert (await run_job(client, shared, key=key)).task.status == "succeeded"
      assert (await run_job(client, alone)).task.status == "succeeded"
  assert outcomes == {"succeeded": count}
  most, begun = _check_proof(proof, {str(id) for id in made})
  assert not [log for log in stage.logs() if "Traceback" in log]
  assert lost > 0
  print(
    f"{count} tasks, {begun} attempts, {kills} kills, {lost} attempts lost,"
    f" at the same time {most}"
  )


def _parts(count: int, parts: int) -> list[int]:
  """Cut a number into parts that are about as large."""
  bounds = [count * number // parts for number in range(parts + 1)]
  return [after - before for before, after in pairwise(bounds)]


async def _make_jobs(client: AsyncClient, proof: Path) -> tuple[Job, Job]:
  """Make a job that runs alone, and one that shares the places of its keys."""
  # However often an agent is killed, that is no fault of the task.
  common: dict[str, Any] = {"executor": "shell", "max_lost": 1_000, "kill_grace": 1.0}
  alone = await make_job(
    client,
    BODY.format(folder=proof, places=1),
    "alone",
    max_concurrent=1,
    **common,
  )
  shared = await make_job(
    client,
    BODY.format(folder=proof, places=PLACES),
    "{{ parameters.key }}",
    concurrency_key="{{ parameters.key }}",
    max_concurrent=PLACES,
    **common,
  )
  return alone, shared


async def _make_tasks(client: AsyncClient, job: Job, keys: list[str]) -> list[UUID]:
  """Make tasks that are due now."""
  made: list[UUID] = []
  for start in range(0, len(keys), BATCH):
    items = [
      {"job_id": str(job.id), "parameters": {"key": key}}
      for key in keys[start : start + BATCH]
    ]
    made += (await client.send(tasks.create_tasks(items))).ids
  return made


async def _all_ended(database: Database) -> bool:
  """Tell whether nothing is left to be done."""
  left: int = await database.fetchval(LEFT)
  return left == 0


def _check_proof(proof: Path, made: set[str]) -> tuple[dict[str, int], int]:
  """Check what was written; return the most at the same time per lane, and attempts."""
  lines = [line.split() for line in (proof / "runs").read_text().splitlines()]
  assert [line for line in lines if line[0] == "over"] == []
  counts = Counter((word, task, attempt) for word, _, task, attempt, *_ in lines)
  assert [line for line, count in counts.items() if count > 1] == []
  ended = {(task, attempt) for word, task, attempt in counts if word == "end"}
  assert made <= {task for task, _ in ended}
  running: Counter[str] = Counter()
  most: Counter[str] = Counter()
  for word, lane, task, attempt, *_ in lines:
    # An attempt that was killed has no end; its lock was free by the next one's.
    if (task, attempt) in ended:
      running[lane] += 1 if word == "begin" else -1
      most[lane] = max(most[lane], running[lane])
  assert most["alone"] == 1
  assert all(0 < most[key] <= PLACES for key in KEYS), most
  return dict(most), sum(word == "begin" for word, *_ in lines)
