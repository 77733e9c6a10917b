"""Many agents of several servers claim at the same time, and nothing is claimed twice.

At effort 25 there are 50,000 tasks.
"""

import trio
from fault_stage import Stage
from support.effort import scaled
from support.programs import ROOT, Server, client_of, wait_until
from support.proof import VARIABLE, doubled, read_proof
from support.work import make_job
from support.world import query

from hetuflow.client.calls import tasks
from hetuflow.storage.connect import Database

SERVERS = 4
AGENTS = 8
TASKS, FULL_TASKS = 2_000, 50_000
BATCH = 5_000

LEFT = query("""
  SELECT count(*) FROM sched_task
  WHERE namespace_id = 'default' AND completed_at = 'infinity'
""")
ATTEMPTS = query("""
  SELECT t.status::text AS status, t.attempts,
    (SELECT count(*) FROM sched_task_instance AS i
      WHERE i.task_id = t.id AND i.status = 'succeeded') AS accepted,
    count(*) AS tasks
  FROM sched_task AS t
  GROUP BY 1, 2, 3
""")
AGENTS_USED = query("SELECT count(DISTINCT agent_id) FROM sched_task_instance")


async def test_each_of_many_tasks_has_exactly_one_accepted_attempt(
  stage: Stage, database: Database, dsn: str
) -> None:
  count = scaled(TASKS, full=FULL_TASKS)
  with trio.fail_after(180 + count / 50):
    servers: list[Server] = [
      await stage.server(name=f"server-{number}", database_url=dsn)
      for number in range(SERVERS)
    ]
    proof = stage.folder / "proof"
    for number in range(AGENTS):
      await _start_agent(stage, servers[number % SERVERS], number, str(proof))
    async with client_of(servers[0]) as client:
      job = await make_job(client, "proof.note", executor="python")
      for start in range(0, count, BATCH):
        items = [{"job_id": str(job.id)}] * min(BATCH, count - start)
        await client.send(tasks.create_tasks(items))

      async def all_ended() -> bool:
        """Look whether anything is left."""
        left: int = await database.fetchval(LEFT)
        return left == 0

      await wait_until(all_ended, 60 + count / 100, every=0.1)
    found = [dict(row) for row in await database.fetch(ATTEMPTS)]
    used = await database.fetchval(AGENTS_USED)
  once = {"status": "succeeded", "attempts": 1, "accepted": 1, "tasks": count}
  assert found == [once]
  lines = read_proof(proof)
  assert doubled(lines) == []
  assert len({line.task for line in lines}) == len(lines) == count
  assert used > 1
  print(f"{count} tasks on {used} agents of {SERVERS} servers")


async def _start_agent(stage: Stage, server: Server, number: int, proof: str) -> None:
  """Start an agent that writes down what it runs."""
  folder = stage.folder / f"agent-{number}"
  folder.mkdir()
  await stage.agent(
    server,
    *("--import", "support.proof", "--max-concurrent", 20),
    name=f"agent-{number}",
    data_dir=folder,
    env={
      VARIABLE: proof,
      "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
      "HETUFLOW_AGENT_TOKEN": server.token,
    },
  )
