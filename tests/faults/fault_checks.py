"""What must hold after every fault, read from a running server."""

from collections import Counter, defaultdict
from uuid import UUID

import trio
from support.programs import wait_until
from support.work import all_of

from hetuflow.client import ApiError, AsyncClient, ServerUnreachable
from hetuflow.client.calls import tasks
from hetuflow.protocol.model import Job, Task, TaskInstance
from hetuflow.protocol.states import TaskInstanceStatus, TaskStatus

__all__ = [
  "all_running",
  "check_agreement",
  "count_tasks",
  "make_tasks",
  "succeeded",
  "wait_for_end",
]

ENDED = {
  TaskInstanceStatus.SUCCEEDED,
  TaskInstanceStatus.FAILED,
  TaskInstanceStatus.TIMEOUT,
  TaskInstanceStatus.CANCELLED,
}
"""What an accepted finish looks like."""


async def make_tasks(client: AsyncClient, job: Job, count: int) -> list[UUID]:
  """Make tasks that are due now."""
  items = [{"job_id": str(job.id)}] * count
  return list((await client.send(tasks.create_tasks(items))).ids)


async def count_tasks(client: AsyncClient, job: Job, status: TaskStatus) -> int:
  """Count the tasks of a job in a status."""
  return len(await all_of(client, tasks.list_tasks(job_id=job.id, status=status)))


async def succeeded(
  client: AsyncClient, job: Job, count: int, within: float = 60.0
) -> None:
  """Wait until so many tasks of a job have succeeded."""
  await _reach(client, job, TaskStatus.SUCCEEDED, count, within)


async def all_running(client: AsyncClient, job: Job, count: int) -> None:
  """Wait until every task of a job has been started."""
  await _reach(client, job, TaskStatus.RUNNING, count, 30.0)


async def wait_for_end(
  client: AsyncClient, job: Job, count: int, within: float
) -> None:
  """Wait until all tasks of a job have succeeded."""
  await succeeded(client, job, count, within)


async def _reach(
  client: AsyncClient, job: Job, status: TaskStatus, count: int, within: float
) -> None:
  """Wait until so many tasks of a job are in a status; say what they are in if not."""

  async def look() -> bool:
    """Look once; a server that is away now may be back soon."""
    try:
      return await count_tasks(client, job, status) >= count
    except (ServerUnreachable, ApiError):
      return False

  try:
    await wait_until(look, within, every=0.05)
  except trio.TooSlowError:
    said = await _describe(client, job, status)
    raise AssertionError(f"not {count} {status.value}: {said}") from None


async def _describe(client: AsyncClient, job: Job, wanted: TaskStatus) -> str:
  """Tell in what statuses a job's tasks are, and all of a few in another than wanted."""
  found: list[Task] = await all_of(client, tasks.list_tasks(job_id=job.id))
  statuses = Counter(task.status.value for task in found)
  odd = [task for task in found if task.status is not wanted][:3]
  attempts = [
    await all_of(client, tasks.list_instances(task_id=task.id)) for task in odd
  ]
  return f"{dict(statuses)}, {odd}, {attempts}"


async def _attempts(client: AsyncClient, job: Job) -> list[TaskInstance]:
  """List the attempts of a job once all have ended: lost ones do so a little later."""
  found = await all_of(client, tasks.list_instances(job_id=job.id))
  ended = all(attempt.completed_at is not None for attempt in found)
  return found if ended else []


async def check_agreement(client: AsyncClient, job: Job, ids: list[UUID]) -> None:
  """Check that nothing is lost or doubled and that tasks and instances agree."""
  found: list[Task] = await all_of(client, tasks.list_tasks(job_id=job.id))
  attempts = await wait_until(lambda: _attempts(client, job))
  assert sorted(task.id for task in found) == sorted(ids)
  of_task: dict[UUID, list[TaskInstance]] = defaultdict(list)
  for attempt in attempts:
    of_task[attempt.task_id].append(attempt)
  for task in found:
    mine = of_task[task.id]
    statuses = Counter(attempt.status for attempt in mine)
    assert task.status is TaskStatus.SUCCEEDED, (task, statuses)
    assert statuses[TaskInstanceStatus.SUCCEEDED] == 1, (task, statuses)
    assert sum(statuses[status] for status in ENDED) == 1, (task, statuses)
    assert all(attempt.completed_at is not None for attempt in mine)
    counted = [each for each in mine if each.status is not TaskInstanceStatus.RELEASED]
    assert task.attempts == len(counted), (task, statuses)
