"""An agent with claims, time that passes for it alone, and changes that meet."""

import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import attrs
import trio
from support.members import DEFAULT, make_tasks
from support.world import make_job, query

from hetuflow.errors import Conflict
from hetuflow.protocol.messages import (
  AckOutcome,
  AgentRegisterRequest,
  HeldClaim,
  TaskInstanceUpdate,
)
from hetuflow.protocol.model import (
  AgentCapabilities,
  AgentId,
  InstanceId,
  Job,
  ServerId,
  Task,
  TaskConfig,
  TaskId,
  TaskInstance,
  new_id,
)
from hetuflow.protocol.states import TaskInstanceStatus
from hetuflow.storage.connect import Database, Record
from hetuflow.storage.instances import get_instance
from hetuflow.storage.leader import Term, acquire_leader
from hetuflow.storage.reaping import (
  LostAgent,
  Patience,
  close_lost,
  find_overdue,
  lose_instances,
)
from hetuflow.storage.registration import Registration, register_agent
from hetuflow.storage.tasks import get_task
from hetuflow.storage.transitions import ClaimOffer, claim_tasks, record_updates

__all__ = [
  "PATIENCE",
  "Deed",
  "Worker",
  "close",
  "join",
  "lead",
  "new_job",
  "race",
  "reap",
  "tolerant",
]

PATIENCE = Patience(lease=0.0, term=0.0, lost=120.0)
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)

END_LEASE = query("""
  UPDATE sched_agent SET lease_until = now() - interval '1 millisecond' WHERE id = $id
""")
AGE_CLAIM = query("""
  UPDATE sched_task_instance SET due_at = now() - make_interval(secs => $seconds)
  WHERE id = $id
""")
AGE_LOSS = query("""
  UPDATE sched_task_instance SET lost_at = lost_at - make_interval(secs => $seconds)
  WHERE status = 'lost' AND completed_at = 'infinity'
""")
ROUTES = query("SELECT id FROM sched_route")
WAITERS = query("""
  SELECT count(*) FROM pg_stat_activity
  WHERE datname = current_database() AND wait_event_type = 'Lock'
""")


@attrs.define(kw_only=True)
class Worker:
  """An agent, reduced to what it says; ``session_id`` is that of its last registration."""

  database: Database
  id: AgentId = attrs.field(factory=lambda: AgentId(new_id()))
  session_id: UUID = attrs.field(factory=new_id)
  number: int = 0

  async def register(self, *held: Record) -> Registration:
    """Come, or come back, with these claims."""
    self.session_id, self.number = new_id(), self.number + 1
    request = AgentRegisterRequest(
      protocol_version=1,
      agent_id=self.id,
      epoch=1,
      session_number=self.number,
      name="worker",
      namespace_ids=[DEFAULT],
      capabilities=AgentCapabilities(executors=["process"]),
      held=[
        HeldClaim(
          instance_id=InstanceId(row["instance_id"]),
          namespace_id=DEFAULT,
          claim_token=row["claim_token"],
        )
        for row in held
      ],
    )
    return await register_agent(
      self.database,
      request,
      session_id=self.session_id,
      server_id=ServerId(new_id()),
      lease=30.0,
    )

  async def claim(self, *, run: int = 10, hold: int = 0) -> list[Record]:
    """Claim what there is, due or ahead of its time."""
    rows = await self.database.fetch(ROUTES)
    offer = ClaimOffer(
      namespace_id=DEFAULT,
      agents=[self.id],
      sessions=[self.session_id],
      routes=[row["id"] for row in rows],
      floors=[BEGINNING] * len(rows),
      run_agents=[self.id] * run,
      hold_agents=[self.id] * hold,
    )
    return await claim_tasks(self.database, offer)

  async def report(
    self, claim: Record, status: TaskInstanceStatus, **more: Any
  ) -> AckOutcome | None:
    """Say something of a claim; return what was not simply accepted."""
    if status is TaskInstanceStatus.RUNNING:
      more.setdefault("started_at", datetime.now(UTC))
    update = TaskInstanceUpdate(
      instance_id=claim["instance_id"],
      namespace_id=DEFAULT,
      claim_token=claim["claim_token"],
      status=status,
      **more,
    )
    outcomes = await record_updates(self.database, DEFAULT, [update])
    return outcomes.get(claim["instance_id"])

  async def start(self, job: Job) -> Record:
    """Make a task of a job, claim it and start it."""
    await make_tasks(self.database, job)
    [claim] = await self.claim(run=1)
    assert await self.report(claim, TaskInstanceStatus.RUNNING) is None
    return claim

  async def fall_silent(self) -> None:
    """Let its lease be over."""
    await self.database.fetch(END_LEASE, id=self.id)

  async def age(self, claim: Record, seconds: float) -> None:
    """Let a claim have been due for so long."""
    await self.database.fetch(AGE_CLAIM, id=claim["instance_id"], seconds=seconds)

  async def task(self, claim: Record) -> Task:
    """Read the task of a claim."""
    return await get_task(self.database, TaskId(claim["task_id"]))

  async def instance(self, claim: Record) -> TaskInstance:
    """Read the attempt of a claim."""
    return await get_instance(self.database, InstanceId(claim["instance_id"]))


async def join(database: Database) -> Worker:
  """Make an agent that has registered."""
  made = Worker(database=database)
  await made.register()
  return made


async def new_job(database: Database, **config: Any) -> Job:
  """Make a job under a name of its own."""
  return await make_job(
    database, f"job-{new_id()}", config=TaskConfig(cmd="/bin/true", **config)
  )


async def lead(database: Database) -> Term:
  """Become the leader."""
  term = await acquire_leader(database, ServerId(new_id()), ttl=60.0)
  assert term is not None
  return term


async def reap(database: Database, term: Term) -> list[LostAgent]:
  """Give up what is overdue."""
  overdue = await find_overdue(database, PATIENCE, steady_since=BEGINNING)
  return await lose_instances(database, term, overdue.agents)


async def close(database: Database, term: Term, *, after: float = 0.0) -> int:
  """Wait no longer for what was lost, as if so many seconds had passed since."""
  await database.fetch(AGE_LOSS, seconds=after)
  overdue = await find_overdue(database, PATIENCE, steady_since=BEGINNING)
  closed = await close_lost(database, term, PATIENCE)
  assert overdue.lost is bool(closed)
  return closed


Deed = Callable[[], Awaitable[object]]


async def race(database: Database, *rivals: Deed) -> None:
  """Let rivals meet in the same row: each waits for it, or is done, before the next."""
  lock = query("SELECT id FROM sched_task FOR UPDATE")
  done: list[Deed] = []

  async def run(rival: Deed) -> None:
    """Run one and note that it is done."""
    await rival()
    done.append(rival)

  with trio.fail_after(20):
    async with trio.open_nursery() as nursery, database.transaction() as connection:
      await connection.fetch(lock)
      for number, rival in enumerate(rivals, start=1):
        nursery.start_soon(run, rival)
        while await database.fetchval(WAITERS) + len(done) < number:
          await trio.lowlevel.checkpoint()


async def tolerant(change: Deed) -> None:
  """Make a change that may come too late."""
  with contextlib.suppress(Conflict):
    await change()
