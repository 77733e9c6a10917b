"""Replicas: what is kept going, read and changed in the database.

Everything that changes happens in a transaction that holds the schedule's row, after
reading anew behind that lock: of two servers, or a server and an editor, one goes first
and the other sees what it did. A server that dies in the middle has done nothing. Should
all of that fail, the database refuses a second live task of a replica.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby
from uuid import UUID

from hetuflow.protocol.model import new_id
from hetuflow.protocol.states import AgentStatus, ScheduleKind, TaskStatus
from hetuflow.schedule import Timing, jitter
from hetuflow.storage.connect import Connection, Database, Record
from hetuflow.storage.lanes import lane_of, reason_of
from hetuflow.storage.routes import intern_route, matching_agents, share_agent_routes
from hetuflow.storage.rows import Executor
from hetuflow.storage.sql import load_queries
from hetuflow.storage.upkeep import (
  Keeping,
  Replica,
  Upkeep,
  first_start,
  judge,
  pause_after,
)

__all__ = ["keep_schedule", "read_keepings", "restart_intervals", "stop_daemon"]

_sql = load_queries("replicas")


async def read_keepings(
  executor: Executor,
  *,
  namespaces: Sequence[str] | None = None,
  id: UUID | None = None,
) -> list[Keeping]:
  """Read the schedules that keep something going, as they are now.

  Args:
    executor: where to read.
    namespaces: of which namespaces; None: of all.
    id: only this one.
  """
  rows = await executor.fetch(_sql.read_replicas, namespaces=namespaces, id=id)
  return [
    _keeping(list(group)) for _, group in groupby(rows, lambda row: row["schedule_id"])
  ]


def _keeping(rows: Sequence[Record]) -> Keeping:
  """Build a schedule from the rows of its replicas, of which there is at least one."""
  first = rows[0]
  return Keeping(
    schedule_id=first["schedule_id"],
    namespace_id=first["namespace_id"],
    daemon=first["kind"] == ScheduleKind.DAEMON,
    wanted=_wanted(first),
    interval=timedelta(seconds=first["interval_seconds"] or 0),
    start_at=first["start_at"],
    end_at=first["end_at"],
    read_at=first["read_at"],
    replicas=[_replica(row) for row in rows if row["replica"] is not None],
  )


def _wanted(row: Record) -> int:
  """Say how many replicas a schedule keeps going now."""
  now, start_at, end_at = row["read_at"], row["start_at"], row["end_at"]
  if not row["enabled"] or (end_at is not None and now > end_at):
    return 0
  if row["max_runs"] is not None and row["run_count"] >= row["max_runs"]:
    return 0
  if row["kind"] != ScheduleKind.DAEMON:
    return 1
  wanted: int = row["replicas"]
  return wanted if start_at is None or now >= start_at else 0


def _replica(row: Record) -> Replica:
  """Build a replica from its row."""
  status, agent_status = row["status"], row["agent_status"]
  return Replica(
    number=row["replica"],
    task_id=row["task_id"],
    failures=row["failures"],
    next_at=row["next_at"],
    status=None if status is None else TaskStatus(status),
    due_at=row["due_at"],
    ending=bool(row["ending"]),
    stale=bool(row["stale"]),
    started_at=row["started_at"],
    agent_id=row["agent_id"],
    agent_status=None if agent_status is None else AgentStatus(agent_status),
    connected=bool(row["connected"]),
    leased=bool(row["leased"]),
  )


async def keep_schedule(
  database: Database, schedule_id: UUID, *, horizon: timedelta
) -> Upkeep | None:
  """Do what is to be done for one schedule, in one transaction.

  Args:
    database: where.
    schedule_id: of the schedule.
    horizon: how far ahead the task of an interval is planned.

  Returns:
    What was done, None when somebody else has the schedule in hand or it is gone. There
    may be more to do after it.

  Raises:
    Conflict: somebody has revived an earlier task of a replica, which is still live.
  """
  async with database.transaction() as connection:
    held = await connection.fetchrow(_sql.hold_schedule, id=schedule_id)
    if held is None:
      return None
    # Behind the lock: what was read before it may have been done by others since.
    found = await read_keepings(connection, id=schedule_id)
    if not found:
      return None
    [keeping] = found
    upkeep = judge(keeping, horizon=horizon)
    await _make(connection, keeping, upkeep)
    await _settle(connection, keeping, upkeep)
    await _stop(connection, keeping, upkeep, held)
    for due_at, group in groupby(upkeep.due, lambda replica: replica.next_at):
      if due_at is not None:
        await _start(connection, keeping, list(group), held, due_at)
    return upkeep


async def _make(connection: Connection, keeping: Keeping, upkeep: Upkeep) -> None:
  """Make missing replicas, which wait for their first start."""
  if upkeep.missing:
    await connection.fetch(
      _sql.insert_replicas,
      schedule_id=keeping.schedule_id,
      namespace_id=keeping.namespace_id,
      replicas=upkeep.missing,
      next_at=first_start(keeping),
    )


async def _settle(connection: Connection, keeping: Keeping, upkeep: Upkeep) -> None:
  """Let replicas wait whose task has ended, or that are to wait otherwise than they do."""
  waits = [(replica.number, 0, next_at) for replica, next_at in upkeep.waits]
  if upkeep.ended:
    rows = await connection.fetch(
      _sql.read_ends,
      ids=[replica.task_id for replica in upkeep.ended],
      namespace_id=keeping.namespace_id,
    )
    ends = {row["id"]: dict(row) for row in rows}
    for replica in upkeep.ended:
      failures, next_at = pause_after(keeping, replica, ends.get(replica.task_id))
      waits.append((replica.number, failures, next_at))
  if waits:
    await connection.fetch(
      _sql.settle_replicas,
      schedule_id=keeping.schedule_id,
      replicas=[number for number, _, _ in waits],
      failures=[failures for _, failures, _ in waits],
      next=[next_at for _, _, next_at in waits],
    )


async def _stop(
  connection: Connection, keeping: Keeping, upkeep: Upkeep, held: Record
) -> None:
  """Cancel what is to be stopped, and what can run elsewhere while its agent drains."""
  stops = list(upkeep.stops)
  if upkeep.moves and await _places(connection, keeping, held):
    stops += [
      (replica.task_id, "its agent drains")
      for replica in upkeep.moves
      if replica.task_id is not None
    ]
  if stops:
    await connection.fetch(
      _sql.stop_replicas,
      namespace_id=keeping.namespace_id,
      ids=[task_id for task_id, _ in stops],
      reasons=[reason for _, reason in stops],
    )


async def _places(
  connection: Connection, keeping: Keeping, held: Record
) -> dict[UUID, int]:
  """Find the agents that can take a replica now, each with how much it runs."""
  wish = (keeping.schedule_id, keeping.namespace_id, held["selector"])
  found = await matching_agents(connection, [wish])
  rows = await connection.fetch(
    _sql.count_running, agents=found.get(keeping.schedule_id, [])
  )
  return {row["agent_id"]: row["running"] for row in rows}


async def _start(
  connection: Connection,
  keeping: Keeping,
  replicas: Sequence[Replica],
  held: Record,
  due_at: datetime,
) -> None:
  """Make the next tasks of replicas that start at one time."""
  lane = None
  agents: list[UUID | None] = [None] * len(replicas)
  routes = [held["route_id"]] * len(replicas)
  if keeping.daemon:
    due_at = scheduled_at = keeping.read_at
    agents, routes = await _place(connection, keeping, len(replicas), held)
  else:
    lane = lane_of(held, held["max_running"], held["parameters"])
    timing = Timing(kind="time", run_at=due_at, jitter_seconds=held["jitter_seconds"])
    scheduled_at = due_at + jitter(timing, due_at, str(keeping.schedule_id))
  await connection.fetch(
    _sql.start_replicas,
    schedule_id=keeping.schedule_id,
    replicas=[replica.number for replica in replicas],
    task_ids=[new_id() for _ in replicas],
    agents=agents,
    routes=routes,
    lane=lane,
    reason=None if lane is None else reason_of(lane),
    planned_at=due_at,
    scheduled_at=scheduled_at,
  )


async def _place(
  connection: Connection, keeping: Keeping, count: int, held: Record
) -> tuple[list[UUID | None], list[int]]:
  """Choose agents for replicas: those with the fewest of this daemon, then with the least.

  Where nobody has a free place the tasks go the way of any other of the job: they wait,
  and whoever matches and is the first to have one takes them.

  Returns:
    The agents, None for any, and the routes that lead to them.
  """
  running = await _places(connection, keeping, held)
  if not running:
    selector = {
      name: value for name, value in held["selector"].items() if name != "broadcast"
    }
    route = await intern_route(connection, keeping.namespace_id, selector)
    return [None] * count, [route] * count
  busy = Counter(each.agent_id for each in keeping.replicas if each.live)
  chosen: list[UUID] = []
  for _ in range(count):
    best = min(
      running, key=lambda agent_id: (busy[agent_id], running[agent_id], agent_id)
    )
    busy[best] += 1
    chosen.append(best)
  routes = await share_agent_routes(
    connection, [(keeping.namespace_id, agent_id) for agent_id in chosen]
  )
  return list(chosen), [routes[keeping.namespace_id, agent_id] for agent_id in chosen]


async def stop_daemon(
  connection: Connection, namespace_id: str, schedule_id: UUID
) -> None:
  """Cancel what a daemon has running, in a transaction that deletes its schedule."""
  rows = await connection.fetch(_sql.list_live_replicas, schedule_id=schedule_id)
  if rows:
    await connection.fetch(
      _sql.stop_replicas,
      namespace_id=namespace_id,
      ids=[row["task_id"] for row in rows],
      reasons=["its schedule is deleted"] * len(rows),
    )


async def restart_intervals(connection: Connection, schedule_id: UUID) -> None:
  """Let the interval of an edited schedule count from now, where it is counting."""
  await connection.fetch(_sql.restart_intervals, id=schedule_id)
