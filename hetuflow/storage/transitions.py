"""Every status change of tasks and instances, set-based and guarded by the database.

The statements carry the guards of ``protocol.states``: a change that the table does not
list matches no row. What an agent reports is believed only with the claim token of the
current attempt.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import attrs

from hetuflow.errors import Conflict, Unavailable
from hetuflow.protocol.messages import AckOutcome, TaskInstanceUpdate
from hetuflow.protocol.model import NamespaceId, Task, TaskId
from hetuflow.protocol.states import TaskStatus
from hetuflow.storage.connect import Connection, Database, Record
from hetuflow.storage.lanes import lane_of, reason_of
from hetuflow.storage.rows import repeated
from hetuflow.storage.sql import Query, load_queries
from hetuflow.storage.tasks import get_task

__all__ = [
  "ClaimOffer",
  "claim_tasks",
  "fail_claims",
  "load_configs",
  "pause_task",
  "record_updates",
  "request_cancel",
  "resume_task",
  "revive_task",
]

_sql = load_queries("transitions")

REASON_LENGTH = 500
RECORD_TRIES = 10
"""How often a report is written again because others changed its rows meanwhile."""


@attrs.frozen(kw_only=True)
class ClaimOffer:
  """What agents of one set of routes offer to take in one namespace.

  ``agents`` and ``sessions`` stand side by side; ``run_agents`` and ``hold_agents`` name
  the agent of each single place; ``routes`` and ``floors`` stand side by side.
  """

  namespace_id: NamespaceId
  agents: Sequence[UUID]
  sessions: Sequence[UUID]
  routes: Sequence[int]
  floors: Sequence[datetime]
  run_agents: Sequence[UUID]
  hold_agents: Sequence[UUID]


async def claim_tasks(
  executor: Database | Connection, offer: ClaimOffer
) -> list[Record]:
  """Claim as many tasks as are offered places for, in one statement.

  Returns:
    One row per claim: instance_id, task_id, agent_id, claim_token, attempt, job_id,
    job_version, route_id, scheduled_at, due_at, rank_at, parameters, held, lease, and
    delay, the seconds since it was due.
  """
  return await executor.fetch(_sql.claim_tasks, **attrs.asdict(offer, recurse=False))


async def fail_claims(
  executor: Database | Connection,
  namespace_id: NamespaceId,
  claims: Sequence[tuple[UUID, UUID, str]],
) -> None:
  """Fail tasks that were claimed and cannot be handed out; they are not retried.

  Args:
    executor: where to run.
    namespace_id: of the tasks.
    claims: task instance, claim token and why, for people; one that is not, or no
      longer, claimed so is left alone.
  """
  await executor.fetch(
    _sql.fail_claims,
    namespace_id=namespace_id,
    ids=[instance_id for instance_id, _, _ in claims],
    claim_tokens=[claim_token for _, claim_token, _ in claims],
    reasons=[reason[:REASON_LENGTH] for _, _, reason in claims],
  )


async def load_configs(
  executor: Database | Connection, versions: Sequence[tuple[UUID, int]]
) -> list[Record]:
  """Read frozen configurations, which never change, as job_id, version, name, config."""
  return await executor.fetch(
    _sql.load_configs,
    job_ids=[job_id for job_id, _ in versions],
    versions=[version for _, version in versions],
  )


async def record_updates(
  executor: Database | Connection,
  namespace_id: NamespaceId,
  updates: Sequence[TaskInstanceUpdate],
) -> dict[UUID, AckOutcome]:
  """Write reports of one namespace and move their tasks along, in one statement.

  Args:
    executor: where to run.
    namespace_id: of every update.
    updates: at most one per instance and claim token.

  Returns:
    What became of the instances whose report was not simply accepted: ``duplicate`` was
    already so, ``stale`` was refused.

  Raises:
    Unavailable: the database is away, or others do not stop changing the rows.
  """
  outcomes: dict[UUID, AckOutcome] = {}
  waiting = sorted(updates, key=lambda update: update.instance_id)
  for _ in range(RECORD_TRIES):
    rows = await _record(executor, namespace_id, waiting)
    if len(rows) == len(waiting) and not any(row["again"] for row in rows):
      return outcomes
    known = {row["id"] for row in rows}
    unmatched = [update for update in waiting if update.instance_id not in known]
    if unmatched:
      outcomes |= await _classify(executor, namespace_id, unmatched)
    again = {row["id"] for row in rows if row["again"]}
    if not again:
      return outcomes
    waiting = [update for update in waiting if update.instance_id in again]
  raise Unavailable("record_updates: the instances or tasks kept changing")


async def _record(
  executor: Database | Connection,
  namespace_id: NamespaceId,
  updates: Sequence[TaskInstanceUpdate],
) -> list[Record]:
  """Run the statement once; a row for each update that matched, or is to be repeated."""
  return await executor.fetch(
    _sql.record_updates,
    namespace_id=namespace_id,
    ids=[update.instance_id for update in updates],
    claim_tokens=[update.claim_token for update in updates],
    statuses=[update.status for update in updates],
    reasons=[update.reason for update in updates],
    started=[update.started_at for update in updates],
    completed=[update.completed_at for update in updates],
    exit_codes=[update.exit_code for update in updates],
    error_messages=[update.error_message for update in updates],
    outputs=[update.output for update in updates],
    metrics=[update.metrics or {} for update in updates],
  )


async def _classify(
  executor: Database | Connection,
  namespace_id: NamespaceId,
  unmatched: Sequence[TaskInstanceUpdate],
) -> dict[UUID, AckOutcome]:
  """Tell repeated reports from refused ones."""
  rows = await executor.fetch(
    _sql.find_finished,
    namespace_id=namespace_id,
    ids=[update.instance_id for update in unmatched],
    claim_tokens=[update.claim_token for update in unmatched],
    statuses=[update.status for update in unmatched],
  )
  known = {row["id"] for row in rows}
  return {
    update.instance_id: (
      AckOutcome.DUPLICATE if update.instance_id in known else AckOutcome.STALE
    )
    for update in unmatched
  }


async def request_cancel(database: Database, task_id: TaskId) -> Task:
  """Cancel a task at once, or ask the agent that has it; asking again is harmless.

  Raises:
    NotFound: there is no such task.
    Conflict: it has already ended otherwise.
  """
  changed = await database.fetchrow(_sql.request_cancel, id=task_id)
  task = await get_task(database, task_id)
  if changed is None and task.status is not TaskStatus.CANCELLED:
    raise Conflict(f"the task has already ended: {task.status}")
  return task


async def pause_task(database: Database, task_id: TaskId) -> Task:
  """Keep a waiting task from being claimed; a place that it had is free.

  Raises:
    NotFound: there is no such task.
    Conflict: it is not waiting.
  """
  return await _move(database, _sql.pause_task, task_id, "paused")


async def resume_task(database: Database, task_id: TaskId) -> Task:
  """Let a paused task be claimed again, once it has its place if it has a limit.

  Raises:
    NotFound: there is no such task.
    Conflict: it is not paused.
  """
  blocked = await _blocked_by(database, task_id)
  return await _move(database, _sql.resume_task, task_id, "resumed", blocked=blocked)


@repeated
async def revive_task(database: Database, task_id: TaskId) -> Task:
  """Give a finished task one more attempt, due now, and judged anew by its limits.

  Raises:
    NotFound: there is no such task.
    Conflict: it has not ended, or it is part of a broadcast that has.
  """
  async with database.transaction() as connection:
    row = await connection.fetchrow(_sql.lock_ended, id=task_id)
    lane = None if row is None else await _lane_anew(connection, row)
    return await _move(
      connection,
      _sql.revive_task,
      task_id,
      "retried",
      lane=lane,
      blocked=None if lane is None else reason_of(lane),
    )


async def _lane_anew(connection: Connection, row: Record) -> str | None:
  """Say whose limit a task that has ended is to wait for now.

  Raises:
    Conflict: it is part of a broadcast that has ended, which held its place.
  """
  if row["parent_id"] is None:
    return lane_of(row, row["max_running"], row["parameters"])
  if await connection.fetchval(_sql.keep_broadcast, id=row["parent_id"]) is None:
    raise Conflict("its broadcast has ended; only the whole can be retried")
  lane: str | None = row["lane"]
  return lane


async def _blocked_by(database: Database, task_id: TaskId) -> str | None:
  """Say what a task will wait for; None if no limit concerns it."""
  lane = await database.fetchval(_sql.get_lane, id=task_id)
  return None if lane is None else reason_of(lane)


async def _move(
  executor: Database | Connection,
  query: Query,
  task_id: TaskId,
  participle: str,
  **values: Any,
) -> Task:
  """Run a guarded change of one task and return it as it is then."""
  changed = await executor.fetchrow(query, id=task_id, **values)
  task = await get_task(executor, task_id)
  if changed is None:
    raise Conflict(f"a task that is {task.status} cannot be {participle}")
  return task
