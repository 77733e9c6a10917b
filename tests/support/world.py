"""Short ways to what tests need in the database."""

from datetime import datetime
from typing import Any
from uuid import UUID

import attrs

from hetuflow.protocol.messages import TaskInstanceUpdate
from hetuflow.protocol.model import (
  AgentForCreate,
  AgentId,
  InstanceId,
  Job,
  JobForCreate,
  NamespaceForCreate,
  NamespaceId,
  Schedule,
  ScheduleForCreate,
  ServerId,
  TaskConfig,
  TaskId,
  TaskInstanceForCreate,
  new_id,
)
from hetuflow.protocol.states import LogStream, ScheduleKind, TaskInstanceStatus
from hetuflow.server.scheduling.bindings import Bindings
from hetuflow.storage.agents import create_agent
from hetuflow.storage.connect import Database, Record
from hetuflow.storage.instances import create_instance
from hetuflow.storage.jobs import create_job
from hetuflow.storage.logs import LogWrite, append_chunks
from hetuflow.storage.namespaces import create_namespace
from hetuflow.storage.schedules import create_schedule
from hetuflow.storage.sql import Query, parse_queries
from hetuflow.storage.transitions import record_updates


async def make_namespace(database: Database, id: str = "default") -> None:
  """Make a namespace; the default one is there from the beginning."""
  if id != "default":
    await create_namespace(database, NamespaceForCreate(id=id))


async def make_job(database: Database, name: str = "backup", **more: Any) -> Job:
  """Make a job that does nothing."""
  wish = {"config": TaskConfig(cmd="/bin/true")} | more
  return await create_job(database, JobForCreate(name=name, **wish))


async def make_schedule(database: Database, job: Job, **more: Any) -> Schedule:
  """Make a schedule that fires each minute."""
  wish: dict[str, Any] = {"kind": ScheduleKind.CRON, "cron_expression": "* * * * *"}
  return await create_schedule(
    database, ScheduleForCreate(**(wish | {"job_id": job.id} | more))
  )


BIND_ALL = """
  INSERT INTO sched_binding AS b (namespace_id, server_id)
  SELECT id, $server_id FROM sched_namespace
  ON CONFLICT (namespace_id) DO UPDATE
  SET server_id = excluded.server_id,
    epoch = b.epoch + (b.server_id <> excluded.server_id)::integer
  RETURNING namespace_id, epoch
"""


async def bind_all(database: Database, server_id: UUID | None = None) -> Bindings:
  """Bind every namespace to a server, as its leader would, and tell it."""
  bindings = Bindings(ServerId(server_id or new_id()))
  rows = await database.fetch(query(BIND_ALL), server_id=bindings.server_id)
  bindings.replace({row["namespace_id"]: row["epoch"] for row in rows})
  return bindings


def query(text: str) -> Query:
  """Make a query out of SQL with named parameters."""
  return parse_queries(f"-- name: test\n{text}")["test"]


INSERT_TASK = query("""
  INSERT INTO sched_task (
    id, namespace_id, job_id, job_version, schedule_id, occurrence, status, route_id,
    planned_at, scheduled_at, due_at, rank_at, attempts, claim_token
  )
  SELECT gen_random_uuid(), s.namespace_id, s.job_id, 1, s.id, $planned_at::text,
    $status::task_status, j.route_id, $at, $at, $at, $at, $attempts,
    CASE WHEN $status IN ('dispatched', 'running') THEN gen_random_uuid() END
  FROM sched_schedule AS s JOIN sched_job AS j ON j.id = s.job_id
  WHERE s.id = $schedule_id
  RETURNING id
""")
LIST_TASKS = query("""
  SELECT planned_at, status FROM sched_task
  WHERE schedule_id = $schedule_id ORDER BY planned_at
""")


async def plan_task(
  database: Database,
  schedule: Schedule,
  at: datetime,
  *,
  status: str = "pending",
  attempts: int = 0,
) -> None:
  """Put a planned task of a schedule into the database, as if it had been planned."""
  await database.fetch(
    INSERT_TASK,
    schedule_id=schedule.id,
    planned_at=at.isoformat(),
    at=at,
    status=status,
    attempts=attempts,
  )


async def planned_times(database: Database, schedule: Schedule) -> list[datetime]:
  """Read for when a schedule has tasks."""
  rows = await database.fetch(LIST_TASKS, schedule_id=schedule.id)
  return [row["planned_at"] for row in rows]


READ_CURSOR = query("""
  SELECT cursor_at, next_plan_at, taken, revision, run_count, enabled
  FROM sched_schedule WHERE id = $id
""")
READ_CLOCK = query("SELECT clock_timestamp()")


async def read_cursor(database: Database, schedule: Schedule) -> Record:
  """Read how far a schedule is planned."""
  row = await database.fetchrow(READ_CURSOR, id=schedule.id)
  assert row is not None
  return row


async def read_clock(database: Database) -> datetime:
  """Read the database's clock."""
  now: datetime = await database.fetchval(READ_CLOCK)
  return now


READ_CLAIM = query("""
  SELECT namespace_id, claim_token FROM sched_task_instance WHERE id = $id
""")


@attrs.frozen(kw_only=True)
class Attempt:
  """A running attempt, as its agent knows it."""

  database: Database
  id: InstanceId
  namespace_id: NamespaceId
  claim_token: UUID

  async def print(self, stream: LogStream, offset: int, data: bytes) -> None:
    """Say something."""
    write = LogWrite(
      instance_id=self.id,
      claim_token=self.claim_token,
      stream=stream,
      offset=offset,
      data=data,
    )
    await append_chunks(self.database, self.namespace_id, [write])

  async def end(self, exit_code: int = 0, at: datetime | None = None) -> None:
    """Report the end, now or at the time that the agent takes for now."""
    succeeded, failed = TaskInstanceStatus.SUCCEEDED, TaskInstanceStatus.FAILED
    now = at or await read_clock(self.database)
    update = TaskInstanceUpdate(
      instance_id=self.id,
      namespace_id=self.namespace_id,
      claim_token=self.claim_token,
      status=failed if exit_code else succeeded,
      started_at=now,
      completed_at=now,
      exit_code=exit_code,
    )
    assert await record_updates(self.database, self.namespace_id, [update]) == {}


async def start_attempt(database: Database, task_id: TaskId) -> Attempt:
  """Claim a task for an agent that has not connected."""
  agent_id = AgentId(new_id())
  agent = AgentForCreate(
    id=agent_id, namespace_ids=[NamespaceId("default")], name=f"agent-{agent_id}"
  )
  await create_agent(database, agent)
  instance = await create_instance(
    database, TaskInstanceForCreate(task_id=task_id, agent_id=agent_id)
  )
  row = await database.fetchrow(READ_CLAIM, id=instance.id)
  assert row is not None
  return Attempt(
    database=database,
    id=instance.id,
    namespace_id=row["namespace_id"],
    claim_token=row["claim_token"],
  )
