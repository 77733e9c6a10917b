"""The limiter: when it looks, how long it waits, whom it serves."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
import trio
from support.members import DEFAULT, count_tasks
from support.world import make_job, make_namespace, read_clock, start_attempt

from hetuflow.nursery import Wakeup
from hetuflow.protocol import wire
from hetuflow.protocol.model import (
  Job,
  NamespaceForUpdate,
  NamespaceId,
  ServerId,
  TaskConfig,
  TaskForCreate,
  TaskId,
  new_id,
)
from hetuflow.server.scheduling.bindings import Bindings
from hetuflow.server.scheduling.limiter import IDLE_INTERVAL_S, INTERVAL_S, Limiter
from hetuflow.storage import limits
from hetuflow.storage.connect import Database
from hetuflow.storage.namespaces import update_namespace
from hetuflow.storage.tasks import create_tasks, get_task


def make_limiter(database: Database, *namespaces: str) -> Limiter:
  """Make a limiter that is bound to some namespaces and called look by look."""
  bindings = Bindings(ServerId(new_id()))
  limiter = Limiter(database, bindings, Wakeup())
  bindings.replace({NamespaceId(each): 1 for each in namespaces or (DEFAULT,)})
  return limiter


async def limited_job(database: Database, **limit: Any) -> Job:
  """Make a job with a limit."""
  config = wire.load(
    TaskConfig, {"cmd": "/bin/true"} | (limit or {"max_concurrent": 1})
  )
  return await make_job(database, f"job-{new_id()}", config=config)


async def make(database: Database, job: Job, count: int, **more: Any) -> list[TaskId]:
  """Make tasks of a job."""
  return await create_tasks(
    database, [TaskForCreate(job_id=job.id, **more) for _ in range(count)]
  )


async def has(database: Database, count: int, status: str) -> bool:
  """Tell whether so many tasks are in a status."""
  return await count_tasks(database, status) == count


async def follow(limiter: Limiter, done: Callable[[], Awaitable[bool]]) -> None:
  """Let a limiter look as often as it wants to, without any hint."""
  while True:
    pause = await limiter.limit_once()
    if await done():
      return
    await trio.sleep(pause)


async def test_a_hint_gives_the_place_that_became_free(database: Database) -> None:
  limiter = make_limiter(database)
  ids = await make(database, await limited_job(database), 2)
  await limiter.limit_once()
  attempt = await start_attempt(database, ids[0])
  await limiter.limit_once()
  assert await count_tasks(database, "blocked") == 1
  await attempt.end(0)
  limiter.hint("limits:default")
  await limiter.limit_once()
  assert (await get_task(database, ids[1])).status == "pending"


async def test_only_what_is_bound_to_it_is_served(database: Database) -> None:
  await make_namespace(database, "other")
  limiter = make_limiter(database, "other")
  await make(database, await limited_job(database), 1)
  limiter.hint("limits:default")
  limiter.hint("tasks:default")
  await limiter.limit_once()
  assert await count_tasks(database, "blocked") == 1
  limiter._bindings.replace({DEFAULT: 2})
  await limiter.limit_once()
  assert await count_tasks(database, "pending") == 1


async def test_it_waits_long_while_there_is_nothing_and_until_something_is_due(
  database: Database,
) -> None:
  limiter = make_limiter(database)
  assert IDLE_INTERVAL_S - 1 < await limiter.limit_once() <= IDLE_INTERVAL_S
  assert limiter.passes == 0
  job = await limited_job(database)
  at = await read_clock(database) + timedelta(seconds=0.5)
  await make(database, job, 1, scheduled_at=at)
  limiter.hint("limits:default")
  assert 0 < await limiter.limit_once() <= 0.5
  with trio.fail_after(10):
    await follow(limiter, lambda: has(database, 1, "pending"))
  assert await read_clock(database) >= at
  # Nothing but a look once a second while something has to wait.
  await make(database, job, 1)
  limiter.hint(None)
  assert 0 < await limiter.limit_once() <= INTERVAL_S


async def test_a_rate_is_waited_for(database: Database) -> None:
  limiter = make_limiter(database)
  job = await limited_job(database, rate_limit={"count": 2, "seconds": 1.0})
  await make(database, job, 3)
  started = trio.current_time()
  with trio.fail_after(20):
    await follow(limiter, lambda: has(database, 0, "blocked"))
  assert trio.current_time() - started >= 1.0
  assert limiter.passes <= 8


async def test_deadlines_are_kept_to_the_moment(database: Database) -> None:
  limiter = make_limiter(database)
  job = await limited_job(database, max_concurrent=1, start_deadline=0.5)
  ids = await make(database, job, 2)
  await limiter.limit_once()
  await start_attempt(database, ids[0])
  with trio.fail_after(10):
    await follow(limiter, lambda: has(database, 1, "missed"))
  task = await get_task(database, ids[1])
  assert task.start_by is not None
  assert task.completed_at is not None
  assert (task.completed_at - task.start_by).total_seconds() < 1


@pytest.mark.parametrize("max_running", [None, 2])
async def test_more_lanes_than_one_pass_looks_at_are_served_in_turn(
  database: Database, monkeypatch: pytest.MonkeyPatch, max_running: int | None
) -> None:
  monkeypatch.setattr(limits, "LANES_PER_PASS", 3)
  await update_namespace(database, DEFAULT, NamespaceForUpdate(max_running=max_running))
  limiter = make_limiter(database)
  job = await limited_job(database, concurrency_key="{{ parameters.key }}")
  ids: list[TaskId] = []
  for number in range(20):
    ids += await make(database, job, 2, parameters={"key": str(number)})
  with trio.fail_after(60):
    while await count_tasks(database, "blocked") or await count_tasks(
      database, "pending"
    ):
      limiter.hint("limits:default")
      await limiter.limit_once()
      ready = await count_tasks(database, "pending")
      assert ready <= (max_running or 20)
      for id in ids:
        if (await get_task(database, id)).status == "pending":
          await (await start_attempt(database, id)).end(0)
  assert await count_tasks(database, "succeeded") == 40


async def test_one_long_lane_is_not_all_that_is_looked_at(
  database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(limits, "SHARE", 5)
  monkeypatch.setattr(limits, "BATCH", 20)
  limiter = make_limiter(database)
  rated = {"rate_limit": {"count": 1, "seconds": 60.0}}
  for _ in range(6):
    await make(database, await limited_job(database, **rated), 30)
  limiter.hint("limits:default")
  await limiter.limit_once()
  assert await count_tasks(database, "pending") == 6


async def test_a_free_job_is_promoted_in_passes_until_all_are(
  database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(limits, "SHARE", 7)
  limiter = make_limiter(database)
  await make(database, await limited_job(database, max_concurrent=1_000), 100)
  limiter.hint("limits:default")
  await limiter.limit_once()
  assert await count_tasks(database, "pending") == 100
