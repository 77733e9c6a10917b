"""Short ways to make jobs on a running server and to see their tasks through."""

import itertools
from typing import Any
from uuid import UUID

from attrs import frozen
from support.programs import wait_until

from hetuflow.client import AsyncClient, Call
from hetuflow.client.calls import jobs, tasks
from hetuflow.protocol.model import Job, Task, TaskInstance
from hetuflow.protocol.states import TASK_FINAL

__all__ = ["Run", "all_of", "make_job", "output_of", "run_job", "see_through"]

_numbers = itertools.count()


@frozen(kw_only=True)
class Run:
  """A task that has ended, with its attempts in order."""

  task: Task
  attempts: list[TaskInstance]

  @property
  def last(self) -> TaskInstance:
    """The last attempt."""
    return self.attempts[-1]

  @property
  def output(self) -> str:
    """The tail of what the last attempt printed."""
    return self.last.output


async def make_job(
  client: AsyncClient,
  cmd: str = "/bin/true",
  *args: str,
  name: str = "",
  namespace_id: str = "default",
  schedules: list[dict[str, Any]] | None = None,
  **config: Any,
) -> Job:
  """Make a job of a command, under a name that no other job has."""
  body = {
    "name": name or f"job-{next(_numbers)}",
    "namespace_id": namespace_id,
    "config": {"cmd": cmd, "args": list(args), **config},
    "schedules": schedules or [],
  }
  return await client.send(jobs.create_job(body))


async def run_job(
  client: AsyncClient, job: Job, *, within: float = 30.0, **parameters: Any
) -> Run:
  """Run a job once and see its task through."""
  task = await client.send(jobs.run_job(job.id, {"parameters": parameters}))
  return await see_through(client, task.id, within=within)


async def see_through(
  client: AsyncClient, task_id: UUID, *, within: float = 30.0
) -> Run:
  """Wait until a task has ended."""

  async def has_ended() -> Task | None:
    """Return the task once it has ended."""
    task = await client.send(tasks.get_task(task_id))
    return task if task.status in TASK_FINAL else None

  task = await wait_until(has_ended, within, every=0.05)
  attempts = await all_of(client, tasks.list_instances(task_id=task_id))
  attempts.sort(key=lambda each: each.attempt)
  return Run(task=task, attempts=attempts)


async def all_of(client: AsyncClient, call: Call[Any]) -> list[Any]:
  """Return everything in a list."""
  return [item async for item in client.pages(call)]


async def output_of(
  client: AsyncClient, instance_id: UUID, stream: str = "stdout"
) -> bytes:
  """Read the whole output of an instance, page by page."""
  data, offset = b"", 0
  while True:
    page = await client.send(tasks.log_page(instance_id, stream=stream, offset=offset))
    data += b"".join(chunk.data for chunk in page.items)
    if page.complete or not page.items:
      return data
    offset = page.next_offset
