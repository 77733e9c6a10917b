"""Two limiters, agents and users at the same time, in a random order.

A trigger in the database looks at every change while it is made, and a query after each
round at what was committed side by side.
"""

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import attrs
import pytest
import trio
from support.members import DEFAULT, join
from support.world import make_job, query

from hetuflow.errors import Conflict
from hetuflow.nursery import Wakeup
from hetuflow.protocol import wire
from hetuflow.protocol.messages import TaskInstanceUpdate
from hetuflow.protocol.model import Job, ServerId, TaskConfig, TaskForCreate, new_id
from hetuflow.protocol.states import TaskInstanceStatus
from hetuflow.server.scheduling.bindings import Bindings
from hetuflow.server.scheduling.limiter import Limiter
from hetuflow.server.session import Session
from hetuflow.server.sessions import Sessions
from hetuflow.storage.connect import Database, Record
from hetuflow.storage.tasks import create_tasks
from hetuflow.storage.transitions import (
  ClaimOffer,
  claim_tasks,
  pause_task,
  record_updates,
  request_cancel,
  resume_task,
  revive_task,
)

ROUNDS = 60
OPERATIONS = 4
"""Users and agents at the same time in a round."""
MAX_RUNNING = 5
BOTTOM = datetime(1970, 1, 1, tzinfo=UTC)

# A lane may have as many holders as the most generous of their jobs allows.
WATCH = """
  CREATE VIEW places AS
  SELECT t.lane, count(*) AS holders, max(CASE
    WHEN j.max_concurrent IS NOT NULL THEN j.max_concurrent
    WHEN j.concurrency_key IS NOT NULL OR j.overlap <> 'allow' THEN 1
    ELSE 1000000 END) AS places
  FROM sched_task AS t JOIN sched_job AS j ON j.id = t.job_id
  WHERE t.completed_at = 'infinity' AND t.lane IS NOT NULL
    AND t.status IN ('pending', 'dispatched', 'running', 'waiting_retry')
  GROUP BY t.lane;

  CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN
    IF EXISTS (SELECT FROM places WHERE holders > places)
      OR (SELECT sum(holders) FROM places)
        > (SELECT max_running FROM sched_namespace WHERE id = 'default')
    THEN RAISE EXCEPTION 'too many: %', (SELECT json_agg(p) FROM places AS p);
    END IF;
    RETURN NULL;
  END $$;

  CREATE TRIGGER watch AFTER INSERT OR UPDATE ON sched_task
  FOR EACH STATEMENT EXECUTE FUNCTION watch()
"""
EXCESS = query("""
  SELECT lane FROM places WHERE holders > places
  UNION ALL
  SELECT 'namespace' FROM places
  HAVING sum(holders) > (SELECT max_running FROM sched_namespace WHERE id = 'default')
""")
# The first of each lane that waits although there is a place.
LEFT = query("""
  WITH first AS (
    SELECT DISTINCT ON (t.lane) t.lane, t.id, CASE
      WHEN j.max_concurrent IS NOT NULL THEN j.max_concurrent
      WHEN j.concurrency_key IS NOT NULL OR j.overlap <> 'allow' THEN 1
      ELSE 1000000 END AS places
    FROM sched_task AS t JOIN sched_job AS j ON j.id = t.job_id
    WHERE t.completed_at = 'infinity' AND t.lane IS NOT NULL AND t.status = 'blocked'
      AND t.due_at <= now()
    ORDER BY t.lane, t.rank_at
  )
  SELECT first.lane, first.id FROM first
  LEFT JOIN places ON places.lane = first.lane
  WHERE COALESCE(places.holders, 0) < first.places
    AND COALESCE((SELECT sum(holders) FROM places), 0) < COALESCE(
      (SELECT max_running FROM sched_namespace WHERE id = 'default'), 1000000)
""")
LIVE = query("""
  SELECT id, status FROM sched_task WHERE completed_at = 'infinity' ORDER BY id
""")
SOME = query("""
  SELECT id FROM sched_task WHERE status = ANY($statuses::text[]::task_status[])
  ORDER BY id
""")
ATTEMPTS = query("""
  SELECT id, claim_token, status FROM sched_task_instance
  WHERE completed_at = 'infinity' AND status IN ('dispatched', 'running') ORDER BY id
""")
HURRY = query("""
  UPDATE sched_task SET due_at = now(), rank_at = now() - priority * interval '1 minute'
  WHERE completed_at = 'infinity' AND status = 'waiting_retry' AND due_at > now()
""")
LIMIT = query("""
  UPDATE sched_namespace SET max_running = $max_running::integer WHERE id = 'default'
""")
RATED = query("SELECT 'job:' || id FROM sched_job WHERE rate_count IS NOT NULL")
ROUTE = query("SELECT id FROM sched_route ORDER BY id")


@attrs.define(kw_only=True)
class Bustle:
  """Users and agents who do as the dice say."""

  database: Database
  dice: random.Random
  jobs: list[Job]
  agent: Session
  routes: list[int]

  async def act(self) -> None:
    """Do something."""
    acts: list[Callable[[], Awaitable[Any]]] = [
      *([self.ask] * 3),
      *([self.claim] * 4),
      *([self.report] * 6),
      self.cancel,
      self.pause,
      self.resume,
      self.revive,
    ]
    with suppress(Conflict):  # somebody else was faster
      await self.dice.choice(acts)()

  async def ask(self) -> None:
    """Make some tasks."""
    items = [
      TaskForCreate(
        job_id=self.dice.choice(self.jobs).id,
        parameters={"key": self.dice.choice("ab")},
        priority=self.dice.randint(-1, 1),
      )
      for _ in range(self.dice.randint(1, 6))
    ]
    await create_tasks(self.database, items)

  async def claim(self) -> None:
    """Take what there is."""
    await claim_tasks(
      self.database,
      ClaimOffer(
        namespace_id=DEFAULT,
        agents=[self.agent.agent_id],
        sessions=[self.agent.id],
        routes=self.routes,
        floors=[BOTTOM] * len(self.routes),
        run_agents=[self.agent.agent_id] * self.dice.randint(1, 8),
        hold_agents=[self.agent.agent_id] * 3,
      ),
    )

  async def report(self) -> None:
    """Let some attempts go on or end, in one way or another."""
    found = await self.database.fetch(ATTEMPTS)
    chosen = self.dice.sample(found, min(len(found), self.dice.randint(1, 3)))
    await record_updates(
      self.database, DEFAULT, [self._update(attempt) for attempt in chosen]
    )

  def _update(self, attempt: Record) -> TaskInstanceUpdate:
    """Choose what becomes of an attempt."""
    statuses = ["succeeded", "failed", "lost"]
    statuses += ["running", "released"] if attempt["status"] == "dispatched" else []
    return TaskInstanceUpdate(
      instance_id=attempt["id"],
      namespace_id=DEFAULT,
      claim_token=attempt["claim_token"],
      status=TaskInstanceStatus(self.dice.choice(statuses)),
      exit_code=1,
    )

  async def cancel(self) -> None:
    """Cancel some task."""
    if (id := await self._some("blocked", "pending", "running")) is not None:
      await request_cancel(self.database, id)

  async def pause(self) -> None:
    """Pause some task."""
    if (id := await self._some("blocked", "pending", "waiting_retry")) is not None:
      await pause_task(self.database, id)

  async def resume(self) -> None:
    """Let some paused task go on."""
    if (id := await self._some("paused")) is not None:
      await resume_task(self.database, id)

  async def revive(self) -> None:
    """Ask for some task once more."""
    if (id := await self._some("succeeded", "failed", "cancelled")) is not None:
      await revive_task(self.database, id)

  async def _some(self, *statuses: str) -> Any:
    """Choose a task in one of these statuses."""
    found: list[UUID] = [
      row["id"] for row in await self.database.fetch(SOME, statuses=list(statuses))
    ]
    return self.dice.choice(found) if found else None


async def make_jobs(database: Database) -> list[Job]:
  """Make jobs with all kinds of limits, and one without."""
  retrying: dict[str, Any] = {"cmd": "/bin/true", "max_retries": 1}
  limits: list[dict[str, Any]] = [
    {},
    {"max_concurrent": 1},
    {"max_concurrent": 3},
    {"overlap": "skip"},
    {"overlap": "queue", "max_concurrent": 2},
    {"overlap": "replace"},
    {"concurrency_key": "{{ parameters.key }}"},
    {"concurrency_key": "{{ parameters.key }}", "max_concurrent": 2},
    {"concurrency_key": "{{ parameters.key }}", "overlap": "skip"},
    {"rate_limit": {"count": 100, "seconds": 1.0}},
  ]
  return [
    await make_job(database, f"job-{number}", config=load_config(retrying | more))
    for number, more in enumerate(limits)
  ]


def load_config(values: dict[str, Any]) -> TaskConfig:
  """Read a configuration as it comes."""
  return wire.load(TaskConfig, values)


def make_limiter(database: Database) -> Limiter:
  """Make a limiter that is bound to the default namespace and called pass by pass."""
  bindings = Bindings(ServerId(new_id()))
  bindings.replace({DEFAULT: 1})
  return Limiter(database, bindings, Wakeup())


async def settle(limiter: Limiter) -> None:
  """Let a limiter give places until there is nothing more to do at once."""
  limiter.hint(f"limits:{DEFAULT}")
  while await limiter.limit_once() == 0:
    pass


@pytest.mark.parametrize(("seed", "max_running"), [(1, None), (2, MAX_RUNNING), (3, 1)])
async def test_whatever_happens_at_the_same_time_no_limit_is_overrun(
  database: Database, seed: int, max_running: int | None
) -> None:
  async with database.connection() as connection:
    await connection.execute_script(WATCH)
  await database.fetch(LIMIT, max_running=max_running)
  jobs = await make_jobs(database)
  bustle = Bustle(
    database=database,
    dice=random.Random(seed),
    jobs=jobs,
    agent=await join(database, Sessions()),
    routes=[row["id"] for row in await database.fetch(ROUTE)],
  )
  limiters = [make_limiter(database) for _ in range(2)]
  with trio.fail_after(240):
    for _ in range(ROUNDS):
      async with trio.open_nursery() as nursery:
        for limiter in limiters:
          nursery.start_soon(settle, limiter)
        for _ in range(OPERATIONS):
          nursery.start_soon(bustle.act)
      assert await database.fetch(EXCESS) == []
    assert min(limiter.promoted for limiter in limiters) > 0
    await settle(limiters[0])
    await check_nobody_is_left(database, limiters[0])
    await drain(bustle, limiters[1])
  assert await database.fetch(LIVE) == []


async def check_nobody_is_left(database: Database, limiter: Limiter) -> None:
  """Check that nobody waits for a place that is free."""
  while rows := await database.fetch(LEFT):
    # Those of a rate come with time.
    lanes = {row["lane"] for row in rows}
    assert lanes == {await database.fetchval(RATED)}, lanes
    await settle(limiter)


async def drain(bustle: Bustle, limiter: Limiter) -> None:
  """Let everything end that there is."""
  while await bustle.database.fetch(LIVE):
    await settle(limiter)
    await bustle.database.fetch(HURRY)
    await bustle.claim()
    await bustle.report()
    await bustle.resume()
