"""Tasks, one planned occurrence each, and task instances, their attempts."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

import attrs

from hetuflow.client.call import Call, Page, get, listing, patch, post
from hetuflow.client.logs import log_page
from hetuflow.protocol.model import (
  Explanation,
  Task,
  TaskForCreate,
  TaskForUpdate,
  TaskInstance,
)

__all__ = [
  "Made",
  "cancel_task",
  "create_task",
  "create_tasks",
  "explain_task",
  "get_instance",
  "get_task",
  "kill_instance",
  "list_instances",
  "list_tasks",
  "log_page",
  "retry_task",
  "update_task",
]


@attrs.frozen(kw_only=True)
class Made:
  """The ids of new tasks, in the order in which they were asked for."""

  ids: list[UUID]


def list_tasks(
  *,
  namespace_id: str | None = None,
  job_id: UUID | None = None,
  schedule_id: UUID | None = None,
  parent_id: UUID | None = None,
  status: str | None = None,
  limit: int | None = None,
) -> Call[Page[Task]]:
  """Describe the list of tasks, newest first, filtered by what is given."""
  query = {
    "namespace_id": namespace_id,
    "job_id": job_id,
    "schedule_id": schedule_id,
    "parent_id": parent_id,
    "status": status,
    "limit": limit,
  }
  return listing(Task, "tasks", query=query)


def get_task(task_id: UUID) -> Call[Task]:
  """Describe the reading of one task."""
  return get(Task, "tasks", task_id)


def explain_task(task_id: UUID) -> Call[Explanation]:
  """Describe the question why a task is as it is."""
  return get(Explanation, "tasks", task_id, "explain")


def create_task(task: TaskForCreate | dict[str, Any]) -> Call[Task]:
  """Describe the making of one task."""
  return post(Task, "tasks", body=task)


def create_tasks(tasks: Iterable[TaskForCreate | dict[str, Any]]) -> Call[Made]:
  """Describe the making of many tasks; all are made or none."""
  return post(Made, "tasks", "batch", body={"items": list(tasks)})


def update_task(task_id: UUID, change: TaskForUpdate | dict[str, Any]) -> Call[Task]:
  """Describe a change of a task that is not dispatched yet."""
  return patch(Task, "tasks", task_id, body=change)


def cancel_task(task_id: UUID) -> Call[Task]:
  """Describe that a task is to be cancelled; one that runs ends when its agent says so."""
  return post(Task, "tasks", task_id, "cancel")


def retry_task(task_id: UUID) -> Call[Task]:
  """Describe that a task which has ended is to run again."""
  return post(Task, "tasks", task_id, "retry")


def list_instances(
  *,
  namespace_id: str | None = None,
  task_id: UUID | None = None,
  job_id: UUID | None = None,
  agent_id: UUID | None = None,
  status: str | None = None,
  limit: int | None = None,
) -> Call[Page[TaskInstance]]:
  """Describe the list of task instances, newest first, filtered by what is given."""
  query = {
    "namespace_id": namespace_id,
    "task_id": task_id,
    "job_id": job_id,
    "agent_id": agent_id,
    "status": status,
    "limit": limit,
  }
  return listing(TaskInstance, "task-instances", query=query)


def get_instance(instance_id: UUID) -> Call[TaskInstance]:
  """Describe the reading of one task instance."""
  return get(TaskInstance, "task-instances", instance_id)


def kill_instance(instance_id: UUID) -> Call[TaskInstance]:
  """Describe that what runs is to be killed at once."""
  return post(TaskInstance, "task-instances", instance_id, "kill")
