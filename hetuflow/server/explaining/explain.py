"""One explanation: the facts that the task's status asks for, and what they come to."""

from collections.abc import Mapping
from datetime import datetime
from typing import assert_never

import attrs

from hetuflow.protocol.model import AgentId, TaskId
from hetuflow.protocol.model.explain import Explanation, Reason
from hetuflow.protocol.states import TASK_FINAL, TaskStatus
from hetuflow.server.explaining import claimed, ended, queue, waiting
from hetuflow.server.explaining.queue import Outlook
from hetuflow.server.explaining.words import sentence
from hetuflow.storage import explain as storage
from hetuflow.storage.connect import Connection, Database
from hetuflow.storage.explain import Attempt, Circumstances
from hetuflow.storage.statistics import recent_durations

__all__ = ["explain_task"]


@attrs.define
class _Case:
  """What is known of a task, and what has come of it so far."""

  facts: Circumstances
  attempts: list[Attempt]
  free: Mapping[AgentId, int]
  reasons: list[Reason] = attrs.field(factory=list)
  outlook: Outlook = attrs.field(factory=Outlook)


async def explain_task(
  database: Database, task_id: TaskId, *, free: Mapping[AgentId, int]
) -> Explanation:
  """Say why a task is not running, why it runs, or why it ended so.

  Args:
    database: where to read.
    task_id: which task.
    free: the free slots of the agents that are connected here; of others the database
      tells how many they had at their last heartbeat.

  Raises:
    NotFound: there is no such task.
  """
  async with database.connection() as connection:
    facts = await storage.find_circumstances(connection, task_id)
    case = _Case(facts, await storage.list_attempts(connection, task_id), free)
    await _judge(connection, case)
  return Explanation(
    task_id=facts.task.id,
    status=facts.task.status,
    verdict=sentence(case.reasons[0].message),
    reasons=case.reasons,
    since=_since(case),
    expected_start_at=case.outlook.start_at,
    estimated=case.outlook.estimated,
  )


async def _judge(connection: Connection, case: _Case) -> None:
  """Collect the reasons that the status asks for."""
  facts, status = case.facts, case.facts.task.status
  match status:
    case TaskStatus.PAUSED:
      case.reasons += [waiting.paused(facts)]
    case TaskStatus.PENDING | TaskStatus.WAITING_RETRY:
      await _judge_pending(connection, case)
    case TaskStatus.BLOCKED:
      await _judge_blocked(connection, case)
    case TaskStatus.DISPATCHED:
      case.reasons += claimed.held(facts, case.attempts)
      case.outlook = Outlook(start_at=facts.task.due_at)
    case TaskStatus.RUNNING:
      children = await storage.list_children(connection, facts.task.id)
      case.reasons += claimed.under_way(facts, case.attempts, children)
    case (
      TaskStatus.SUCCEEDED
      | TaskStatus.FAILED
      | TaskStatus.CANCELLED
      | TaskStatus.SKIPPED
      | TaskStatus.MISSED
      | TaskStatus.MERGED
    ):
      case.reasons += ended.ended(facts, case.attempts)
    case unknown:
      assert_never(unknown)
  if status not in TASK_FINAL:
    case.reasons += waiting.deadlines(facts)


async def _judge_pending(connection: Connection, case: _Case) -> None:
  """Judge a task that an agent may have as soon as it is due."""
  facts = case.facts
  case.reasons += waiting.postponed(facts, case.attempts)
  due = facts.task.due_at <= facts.now
  agents, outlook = await _judge_agents(connection, case)
  # That an agent is busy now says nothing of a task that is due later.
  case.reasons += [each for each in agents if due or queue.is_lasting(each)]
  case.outlook = outlook if due else Outlook(start_at=facts.task.due_at)
  case.reasons += waiting.remarks(facts, case.attempts)


async def _judge_agents(
  connection: Connection, case: _Case
) -> tuple[list[Reason], Outlook]:
  """Judge who could take the task, and when."""
  facts = case.facts
  selector = facts.selector or {}
  namespace_id, job_id = facts.task.namespace_id, facts.task.job_id
  agents = await storage.list_agents(connection, namespace_id, selector)
  place = await storage.read_place(connection, facts)
  durations = (await recent_durations(connection, [job_id])).get(job_id, [])
  return queue.judge_agents(facts, agents, place, case.free, durations)


async def _judge_blocked(connection: Connection, case: _Case) -> None:
  """Judge a task that a limit concerns and that has no place yet."""
  facts = case.facts
  case.reasons += waiting.postponed(facts, case.attempts)
  place = await storage.read_place(connection, facts)
  full = queue.full_lane(facts, place)
  holders = await storage.list_holders(
    connection, facts.task.namespace_id, facts.lane if full else None
  )
  job_ids = list({facts.task.job_id, *(holder.job_id for holder in holders)})
  durations = await recent_durations(connection, job_ids)
  if facts.task.due_at > facts.now:
    case.outlook = Outlook(start_at=facts.task.due_at)
  else:
    reasons, case.outlook = queue.judge_limits(facts, place, holders, durations)
    case.reasons += reasons
  case.reasons += waiting.planner(facts)
  agents, _ = await _judge_agents(connection, case)
  case.reasons += [each for each in agents if queue.is_lasting(each)]
  case.reasons += waiting.remarks(facts, case.attempts)


def _since(case: _Case) -> datetime:
  """Say since when a task is as it is."""
  task, attempts = case.facts.task, case.attempts
  if task.completed_at is not None:
    return task.completed_at
  match task.status:
    case TaskStatus.RUNNING if attempts and attempts[0].started_at is not None:
      return attempts[0].started_at
    case TaskStatus.DISPATCHED if attempts:
      return attempts[0].dispatched_at
    case _:
      return task.updated_at
