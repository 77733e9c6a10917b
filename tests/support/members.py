"""Agents without a network: sessions that are registered in a real database."""

from datetime import UTC, datetime
from typing import Any

from support.world import query

from hetuflow.protocol import wire
from hetuflow.protocol.messages import (
  Ack,
  AgentRegisterRequest,
  DispatchedTask,
  DispatchTaskRequest,
  TaskInstanceUpdate,
)
from hetuflow.protocol.model import (
  AgentCapabilities,
  AgentId,
  Job,
  NamespaceId,
  ServerId,
  TaskForCreate,
  TaskId,
  new_id,
)
from hetuflow.protocol.states import TaskInstanceStatus
from hetuflow.server.scheduling.routing import satisfies
from hetuflow.server.session import Session
from hetuflow.server.sessions import Sessions
from hetuflow.storage.connect import Database, Record
from hetuflow.storage.registration import register_agent
from hetuflow.storage.routes import list_routes
from hetuflow.storage.tasks import create_tasks
from hetuflow.storage.transitions import ClaimOffer, claim_tasks, record_updates

DEFAULT = NamespaceId("default")
COUNT = query("""
  SELECT count(*) FROM sched_task
  WHERE namespace_id = 'default' AND status = $status::task_status
""")
SET_LEASE = query("""
  UPDATE sched_agent SET lease_until = now() + make_interval(secs => $seconds)
  WHERE id = $id
""")


async def join(
  database: Database,
  sessions: Sessions,
  *,
  name: str = "agent",
  labels: dict[str, str] | None = None,
  namespaces: tuple[str, ...] = ("default",),
  run: int = 0,
  hold: int = 0,
  agent_id: AgentId | None = None,
) -> Session:
  """Register an agent and enter its session, with places already granted."""
  session = Session(
    agent_id=agent_id or AgentId(new_id()),
    name=name,
    epoch=1,
    namespace_ids=[NamespaceId(each) for each in namespaces],
    labels=labels or {},
    capabilities=AgentCapabilities(executors=["process"]),
  )
  request = AgentRegisterRequest(
    protocol_version=1,
    agent_id=session.agent_id,
    epoch=1,
    name=name,
    namespace_ids=session.namespace_ids,
    labels=session.labels,
    capabilities=session.capabilities,
  )
  await register_agent(
    database, request, session_id=session.id, server_id=ServerId(new_id()), lease=30.0
  )
  sessions.add(session)
  session.grant(run, hold)
  return session


def messages(session: Session) -> list[Any]:
  """Take the payloads of the frames that wait for an agent."""
  frames = list(session.frames)
  session.frames.clear()
  return [wire.decode_envelope(frame).payload for frame in frames]


def dispatched(session: Session) -> list[DispatchedTask]:
  """Take the tasks that are on their way to an agent."""
  return [
    task
    for payload in messages(session)
    if isinstance(payload, DispatchTaskRequest)
    for task in payload.tasks
  ]


def acks(session: Session) -> list[Ack]:
  """Take the acknowledgements that are on their way to an agent."""
  return [payload for payload in messages(session) if isinstance(payload, Ack)]


async def make_tasks(
  database: Database, job: Job, count: int = 1, **more: Any
) -> list[TaskId]:
  """Make tasks of a job."""
  return await create_tasks(
    database, [TaskForCreate(job_id=job.id, **more) for _ in range(count)]
  )


async def count_tasks(database: Database, status: str) -> int:
  """Count the tasks of the default namespace in a status."""
  count: int = await database.fetchval(COUNT, status=status)
  return count


async def claim_one(database: Database, job: Job) -> Record:
  """Let a fresh agent claim the next task of a job; return the claim."""
  agent = await join(database, Sessions())
  route_id = await database.fetchval(
    query("SELECT route_id FROM sched_job WHERE id = $id"), id=job.id
  )
  [row] = await claim_tasks(
    database,
    ClaimOffer(
      namespace_id=DEFAULT,
      agents=[agent.agent_id],
      sessions=[agent.id],
      routes=[route_id],
      floors=[datetime(1970, 1, 1, tzinfo=UTC)],
      run_agents=[agent.agent_id],
      hold_agents=[],
    ),
  )
  return row


async def claim_all(database: Database, session: Session) -> list[Record]:
  """Let an agent claim everything that is for it, or for agents like it."""
  routes = await list_routes(database, session.namespace_ids)
  found = [route.id for route in routes if satisfies(session, route)]
  return await claim_tasks(
    database,
    ClaimOffer(
      namespace_id=DEFAULT,
      agents=[session.agent_id],
      sessions=[session.id],
      routes=found,
      floors=[datetime(1970, 1, 1, tzinfo=UTC)] * len(found),
      run_agents=[session.agent_id] * 100,
      hold_agents=[],
    ),
  )


async def report(
  database: Database, claims: list[Record], status: TaskInstanceStatus, **more: Any
) -> None:
  """Let the agents of some claims say how they stand."""
  updates = [
    TaskInstanceUpdate(
      instance_id=row["instance_id"],
      namespace_id=DEFAULT,
      claim_token=row["claim_token"],
      status=status,
      **more,
    )
    for row in claims
  ]
  assert await record_updates(database, DEFAULT, updates) == {}
