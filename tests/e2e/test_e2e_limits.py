"""Limits on real programs: what the jobs write proves how many ran at the same time."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import trio
from attrs import frozen
from support.programs import wait_until
from support.work import make_job, run_job, see_through

from hetuflow.client import AsyncClient
from hetuflow.client.calls import jobs, system, tasks
from hetuflow.protocol.model import Job, Task

LIMIT_S = 90.0
BODY = """
  say() {{ echo "$1 $HETUFLOW_TASK_ID $HETUFLOW_PARAM_KEY $(date +%s.%N)" >> "{file}"; }}
  say begin; sleep {seconds}; say end
"""


@frozen(kw_only=True)
class Line:
  """What one task said, at a time of the system's clock in seconds."""

  word: str
  task_id: UUID
  key: str
  at: float


class Diary:
  """The file that the tasks of a test write to, each line in one piece."""

  def __init__(self, folder: Path) -> None:
    self.file = folder / "diary"

  async def job(self, client: AsyncClient, seconds: float = 0.2, **config: Any) -> Job:
    """Make a job whose tasks say when they begin and end."""
    body = BODY.format(file=self.file, seconds=seconds)
    return await make_job(client, body, executor="shell", kill_grace=0.5, **config)

  def lines(self) -> list[Line]:
    """Read what was said, in order."""
    if not self.file.exists():
      return []
    found = [line.split(" ") for line in self.file.read_text().splitlines()]
    return [
      Line(word=word, task_id=UUID(task_id), key=key, at=float(at))
      for word, task_id, key, at in found
    ]

  def begun(self) -> list[UUID]:
    """List the tasks that have begun, in order."""
    return [line.task_id for line in self.lines() if line.word == "begin"]

  def most(self, key: str | None = None) -> int:
    """Count how many ran at the same time, at most; all, or those of one key."""
    running = most = 0
    for line in self.lines():
      if key in (None, line.key):
        running += 1 if line.word == "begin" else -1
        most = max(most, running)
    assert running == 0
    return most


@pytest.fixture
def diary(tmp_path: Path) -> Diary:
  """An empty diary."""
  return Diary(tmp_path)


async def make_tasks(client: AsyncClient, job: Job, keys: Sequence[str]) -> list[UUID]:
  """Make tasks that are due now, each with a parameter."""
  items = [{"job_id": str(job.id), "parameters": {"key": key}} for key in keys]
  return list((await client.send(tasks.create_tasks(items))).ids)


async def ends(client: AsyncClient, ids: Sequence[UUID]) -> list[str]:
  """See tasks through and return how they ended."""
  return [(await see_through(client, id, within=60)).task.status.value for id in ids]


async def start(client: AsyncClient, diary: Diary, job: Job) -> Task:
  """Make a task and wait until it has begun."""
  task = await client.send(jobs.run_job(job.id))
  await wait_until(lambda: task.id in diary.begun(), 30)
  return task


async def test_no_more_tasks_of_a_job_run_than_it_allows(
  client: AsyncClient, diary: Diary
) -> None:
  with trio.fail_after(LIMIT_S):
    job = await diary.job(client, 0.3, max_concurrent=2)
    ids = await make_tasks(client, job, ["x"] * 8)
    waiting = await client.send(tasks.get_task(ids[-1]))
    assert waiting.status == "blocked"
    assert "limits of the job" in str(waiting.reason)
    assert await ends(client, ids) == ["succeeded"] * 8
  assert diary.most() == 2


async def test_tasks_with_one_concurrency_key_run_one_by_one_whatever_their_job(
  client: AsyncClient, diary: Diary
) -> None:
  key = "customer-{{ parameters.key }}"
  with trio.fail_after(LIMIT_S):
    one = await diary.job(client, 0.4, concurrency_key=key)
    other = await diary.job(client, 0.4, concurrency_key=key)
    ids = await make_tasks(client, one, ["a", "b", "a"])
    ids += await make_tasks(client, other, ["b", "a", "b"])
    assert await ends(client, ids) == ["succeeded"] * 6
  assert diary.most("a") == diary.most("b") == 1
  assert diary.most() == 2


async def test_a_key_without_its_parameter_is_refused(client: AsyncClient) -> None:
  with trio.fail_after(LIMIT_S):
    job = await make_job(client, concurrency_key="{{ parameters.customer }}")
    with pytest.raises(Exception, match="'customer'"):
      await client.send(jobs.run_job(job.id))


async def test_tasks_in_a_queue_run_in_order(client: AsyncClient, diary: Diary) -> None:
  with trio.fail_after(LIMIT_S):
    job = await diary.job(client, 0.1, overlap="queue")
    first = await start(client, diary, job)
    ids = [first.id]
    for _ in range(4):
      ids.append((await client.send(jobs.run_job(job.id))).id)
    urgent = await client.send(jobs.run_job(job.id, {"priority": 5}))
    assert await ends(client, [*ids, urgent.id]) == ["succeeded"] * 6
  assert diary.most() == 1
  begun = diary.begun()
  begun.remove(urgent.id)
  assert begun == ids


async def test_a_task_that_finds_its_job_running_is_skipped(
  client: AsyncClient, diary: Diary
) -> None:
  with trio.fail_after(LIMIT_S):
    job = await diary.job(client, 2, overlap="skip")
    first = await start(client, diary, job)
    second = (await run_job(client, job)).task
    assert (second.status, second.reason) == (
      "skipped",
      f"skipped: task {first.id} has the place",
    )
    assert await ends(client, [first.id]) == ["succeeded"]
    assert (await run_job(client, job)).task.status == "succeeded"
  assert diary.most() == 1


async def test_a_newer_task_replaces_the_one_that_runs_and_those_that_wait(
  client: AsyncClient, diary: Diary
) -> None:
  with trio.fail_after(LIMIT_S):
    job = await diary.job(client, 1, overlap="replace")
    old = await start(client, diary, job)
    ids = await make_tasks(client, job, ["x", "x"])
    assert sorted(await ends(client, ids)) == ["skipped", "succeeded"]
    replaced = (await see_through(client, old.id)).task
  assert replaced.status == "cancelled"
  assert str(replaced.reason).startswith("replaced by task")
  assert [line.word for line in diary.lines()] == ["begin", "begin", "end"]


async def test_starts_of_a_rate_are_spread_evenly(
  client: AsyncClient, diary: Diary
) -> None:
  with trio.fail_after(LIMIT_S):
    job = await diary.job(client, 0, rate_limit={"count": 2, "seconds": 2.0})
    ids = await make_tasks(client, job, ["x"] * 4)
    assert await ends(client, ids) == ["succeeded"] * 4
  starts = [line.at for line in diary.lines() if line.word == "begin"]
  # A start may be late by what the machine needs for it.
  assert starts[3] - starts[0] > 2.5
  assert all(after - before > 0.5 for before, after in pairwise(starts))


async def test_a_task_that_waits_for_its_place_too_long_is_missed(
  client: AsyncClient, diary: Diary
) -> None:
  with trio.fail_after(LIMIT_S):
    job = await diary.job(client, 3, max_concurrent=1, start_deadline=1.0)
    first = await start(client, diary, job)
    second = (await run_job(client, job)).task
    assert (second.status, second.reason) == ("missed", "start_deadline")
    assert second.start_by is not None
    assert second.completed_at is not None
    assert 0 <= (second.completed_at - second.start_by).total_seconds() < 2
    assert await ends(client, [first.id]) == ["succeeded"]
    # Asked for again it has as long again.
    again = await client.send(tasks.retry_task(second.id))
    assert await ends(client, [again.id]) == ["succeeded"]
  assert diary.most() == 1


async def test_a_task_has_its_time_for_all_attempts_and_no_longer(
  client: AsyncClient, diary: Diary
) -> None:
  limits: dict[str, Any] = {"max_concurrent": 1, "total_timeout": 2.0}
  with trio.fail_after(LIMIT_S):
    job = await diary.job(client, 600, max_retries=5, **limits)
    ids = await make_tasks(client, job, ["x", "x"])
    assert await ends(client, ids) == ["failed"] * 2
    ended = [(await see_through(client, id)).task for id in ids]
    failing = await make_job(
      client, "/bin/false", max_retries=99, retry_interval=0.5, **limits
    )
    retried = (await run_job(client, failing)).task
  assert {task.reason for task in (*ended, retried)} == {"total timeout"}
  assert retried.status == "failed"
  assert retried.attempts > 1
  for task in (*ended, retried):
    assert task.completed_at is not None
    assert 2 <= (task.completed_at - task.scheduled_at).total_seconds() < 6


def _soon(seconds: float) -> str:
  """Name a time that is to come."""
  return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


@asynccontextmanager
async def limited(client: AsyncClient, max_running: int) -> AsyncIterator[None]:
  """Let the default namespace have a limit for a while."""
  await client.send(system.update_namespace("default", {"max_running": max_running}))
  try:
    yield
  finally:
    await client.send(system.update_namespace("default", {"max_running": None}))


async def test_no_more_tasks_of_a_namespace_run_than_it_allows(
  client: AsyncClient, diary: Diary
) -> None:
  with trio.fail_after(LIMIT_S):
    free = await diary.job(client, 0.3)
    own = await diary.job(client, 0.3, max_concurrent=5)
    async with limited(client, 2):
      ids = await make_tasks(client, free, ["x"] * 5)
      ids += await make_tasks(client, own, ["x"] * 5)
      assert await ends(client, ids) == ["succeeded"] * 10
    assert diary.most() == 2


async def test_tasks_that_were_there_before_their_namespace_had_a_limit_heed_it(
  client: AsyncClient, diary: Diary
) -> None:
  with trio.fail_after(LIMIT_S):
    job = await diary.job(client, 0.3)
    # Later than by the lead: no agent has them yet.
    items = [{"job_id": str(job.id), "scheduled_at": _soon(7)}] * 4
    ids = (await client.send(tasks.create_tasks(items))).ids
    async with limited(client, 1):
      assert await ends(client, ids) == ["succeeded"] * 4
  assert diary.most() == 1


async def test_a_limit_that_is_lifted_lets_everybody_go(
  client: AsyncClient, diary: Diary
) -> None:
  with trio.fail_after(LIMIT_S):
    job = await diary.job(client, 1, max_concurrent=1)
    first = await start(client, diary, job)
    ids = await make_tasks(client, job, ["x"] * 3)
    assert job.config is not None
    body = {"cmd": job.config.cmd, "executor": "shell"}
    await client.send(jobs.update_job(job.id, {"config": body}))
    assert await ends(client, [first.id, *ids]) == ["succeeded"] * 4
  assert diary.most() >= 3


async def test_of_tasks_that_wait_the_one_that_is_hurried_goes_first(
  client: AsyncClient, diary: Diary
) -> None:
  with trio.fail_after(LIMIT_S):
    job = await diary.job(client, 1, max_concurrent=1)
    first = await start(client, diary, job)
    ids = await make_tasks(client, job, ["x"] * 3)
    await client.send(tasks.update_task(ids[2], {"priority": 10}))
    await ends(client, [first.id, *ids])
  assert diary.begun()[1] == ids[2]


async def test_a_broadcast_leaves_its_parts_the_places_of_the_namespace(
  client: AsyncClient, diary: Diary
) -> None:
  with trio.fail_after(LIMIT_S):
    job = await diary.job(client, 0.1, broadcast=True, max_concurrent=1)
    free = await diary.job(client, 0.1, broadcast=True)
    async with limited(client, 1):
      ids = await make_tasks(client, job, ["x"] * 2)
      ids += await make_tasks(client, free, ["x"] * 2)
      assert await ends(client, ids) == ["succeeded"] * 4
  assert diary.most() == 1


async def test_tasks_that_wait_heed_a_limit_that_their_job_gets(
  client: AsyncClient, diary: Diary
) -> None:
  with trio.fail_after(LIMIT_S):
    job = await diary.job(client, 0.3)
    items = [{"job_id": str(job.id), "scheduled_at": _soon(7)}] * 4
    ids = (await client.send(tasks.create_tasks(items))).ids
    assert job.config is not None
    body = {"cmd": job.config.cmd, "executor": "shell", "max_concurrent": 1}
    await client.send(jobs.update_job(job.id, {"config": body}))
    assert await ends(client, ids) == ["succeeded"] * 4
  assert diary.most() == 1
