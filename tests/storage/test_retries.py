"""Retries, by themselves and by hand, and what else may happen at the same moment."""

from functools import partial
from typing import Any

import pytest
from reaping_scene import Deed, Worker, close, join, lead, new_job, race, reap, tolerant
from support.members import make_tasks
from support.world import query

from hetuflow.errors import Conflict
from hetuflow.protocol.model import TaskId
from hetuflow.protocol.states import OverlapPolicy, TaskInstanceStatus, TaskStatus
from hetuflow.storage.connect import Database, Record
from hetuflow.storage.transitions import request_cancel, revive_task

AS, TS = TaskInstanceStatus, TaskStatus
MAKE_DUE = query("""
  UPDATE sched_task SET due_at = now(), rank_at = now() WHERE completed_at = 'infinity'
""")
TASK = query("SELECT * FROM sched_task WHERE id = $id")


async def fail(worker: Worker, claim: Record, code: int = 1) -> float | None:
  """Let an attempt fail; return the pause before the next, None if there is none."""
  assert await worker.report(claim, AS.FAILED, exit_code=code) is None
  task = await worker.task(claim)
  if task.status is TS.FAILED:
    return None
  assert task.status is TS.WAITING_RETRY
  return (task.due_at - task.updated_at).total_seconds()


async def again(worker: Worker) -> Record:
  """Claim and start what waits, as if its time had come."""
  await worker.database.fetch(MAKE_DUE)
  [claim] = await worker.claim()
  await worker.report(claim, AS.RUNNING)
  return claim


async def pauses_of(worker: Worker, claim: Record) -> list[float]:
  """Let attempts fail until there is no other; return the pauses between them."""
  pauses: list[float] = []
  while (pause := await fail(worker, claim)) is not None:
    pauses.append(pause)
    claim = await again(worker)
  return pauses


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
async def test_pauses_are_longer_by_chance_but_never_by_more_than_asked(
  database: Database, jitter: float
) -> None:
  worker = await join(database)
  job = await new_job(
    database,
    max_retries=5,
    retry_interval=10.0,
    retry_max_interval=40.0,
    retry_jitter=jitter,
  )
  longer = set()
  for _ in range(4):
    pauses = await pauses_of(worker, await worker.start(job))
    assert len(pauses) == 5
    for pause, base in zip(pauses, (10.0, 20.0, 40.0, 40.0, 40.0), strict=True):
      assert base <= pause <= base * (1 + jitter)
      longer.add(round(pause / base, 4))
  # Twenty draws: as good as all different, and over the whole range.
  if jitter:
    assert len(longer) > 15
    assert max(longer) - min(longer) > jitter / 2
  else:
    assert longer == {1.0}


async def test_a_retry_by_hand_begins_with_retries_and_pauses_anew(
  database: Database,
) -> None:
  worker = await join(database)
  job = await new_job(database, max_retries=2, retry_interval=10.0, retry_backoff=3.0)
  claim = await worker.start(job)
  assert await pauses_of(worker, claim) == [10.0, 30.0]
  for attempts in (4, 7):
    task = await revive_task(database, TaskId(claim["task_id"]))
    assert (task.status, task.reason) == (TS.PENDING, "retried by request")
    claim = await again(worker)
    assert claim["attempt"] == attempts
    assert await pauses_of(worker, claim) == [10.0, 30.0]
  assert (await worker.task(claim)).attempts == 9


async def test_a_retry_by_hand_may_be_lost_as_often_as_a_new_task(
  database: Database,
) -> None:
  term, worker = await lead(database), await join(database)
  claim = await worker.start(await new_job(database, max_lost=1))
  for _ in range(2):
    for status in (TS.WAITING_RETRY, TS.RUNNING):
      await worker.fall_silent()
      await reap(database, term)
      assert (await worker.task(claim)).status is status
      await close(database, term, after=121)
      await worker.register()
      if status is TS.WAITING_RETRY:
        claim = await again(worker)
    assert (await worker.task(claim)).status is TS.FAILED
    await revive_task(database, TaskId(claim["task_id"]))
    claim = await again(worker)


async def test_a_retry_by_hand_of_what_was_cancelled_is_no_longer_to_be_cancelled(
  database: Database,
) -> None:
  worker = await join(database)
  claim = await worker.start(await new_job(database))
  await request_cancel(database, claim["task_id"])
  await worker.report(claim, AS.CANCELLED)
  task = await revive_task(database, TaskId(claim["task_id"]))
  assert task.cancel_requested_at is None
  assert await worker.report(await again(worker), AS.SUCCEEDED) is None
  assert (await worker.task(claim)).status is TS.SUCCEEDED


async def test_deadlines_of_a_retry_by_hand_are_counted_from_then(
  database: Database,
) -> None:
  worker = await join(database)
  job = await new_job(database, total_timeout=100.0, start_deadline=50.0)
  claim = await worker.start(job)
  await fail(worker, claim)
  old = query("""
    UPDATE sched_task SET end_by = now() - interval '1 hour',
      start_by = now() - interval '1 hour' WHERE id = $id
  """)
  await database.fetch(old, id=claim["task_id"])
  await revive_task(database, TaskId(claim["task_id"]))
  row = await database.fetchrow(TASK, id=claim["task_id"])
  assert row is not None
  assert (row["end_by"] - row["updated_at"]).total_seconds() == 100.0
  assert row["start_by"] is None or row["start_by"] > row["updated_at"]


@pytest.mark.parametrize("order", [1, -1])
async def test_a_cancel_and_a_failure_that_would_be_retried_end_in_a_cancel(
  database: Database, order: int
) -> None:
  worker = await join(database)
  claim = await worker.start(await new_job(database, max_retries=3))
  rivals: list[Deed] = [
    partial(request_cancel, database, claim["task_id"]),
    partial(worker.report, claim, AS.FAILED, exit_code=1),
  ]
  await race(database, *rivals[::order])
  task = await worker.task(claim)
  assert (task.status, task.reason) == (TS.CANCELLED, "cancelled by request")
  assert (await worker.instance(claim)).status is AS.FAILED
  assert await worker.claim() == []


@pytest.mark.parametrize("order", [1, -1])
async def test_of_a_cancel_and_a_success_the_success_stands(
  database: Database, order: int
) -> None:
  worker = await join(database)
  claim = await worker.start(await new_job(database, max_retries=3))
  rivals: list[Deed] = [
    partial(tolerant, partial(request_cancel, database, claim["task_id"])),
    partial(worker.report, claim, AS.SUCCEEDED),
  ]
  await race(database, *rivals[::order])
  # It was over before the agent could be told.
  assert (await worker.task(claim)).status is TS.SUCCEEDED
  assert (await worker.instance(claim)).status is AS.SUCCEEDED


async def test_of_two_retries_by_hand_one_is_refused(database: Database) -> None:
  worker = await join(database)
  claim = await worker.start(await new_job(database))
  await fail(worker, claim)
  outcomes: list[Any] = []

  async def retry() -> None:
    """Try once, and note how it went."""
    try:
      outcomes.append(await revive_task(database, TaskId(claim["task_id"])))
    except Conflict as error:
      outcomes.append(error)

  await race(database, retry, retry)
  assert sum(isinstance(each, Conflict) for each in outcomes) == 1
  assert (await again(worker))["attempt"] == 2


@pytest.mark.parametrize("order", [1, -1])
async def test_a_cancel_and_a_claim_of_a_retry_leave_one_winner(
  database: Database, order: int
) -> None:
  worker = await join(database)
  claim = await worker.start(await new_job(database, max_retries=1, retry_interval=0))
  await fail(worker, claim)
  claims: list[Record] = []

  async def take() -> None:
    """Claim what is to be had."""
    claims.extend(await worker.claim())

  rivals: list[Deed] = [partial(request_cancel, database, claim["task_id"]), take]
  await race(database, *rivals[::order])
  claims += await worker.claim()
  task = await worker.task(claim)
  assert task.cancel_requested_at is not None
  assert task.status is (TS.DISPATCHED if claims else TS.CANCELLED)
  for each in claims:
    assert await worker.report(each, AS.CANCELLED) is None
    assert (await worker.task(claim)).status is TS.CANCELLED


async def test_a_task_with_a_limit_keeps_its_place_over_a_loss(
  database: Database,
) -> None:
  term, worker = await lead(database), await join(database)
  job = await new_job(database, overlap=OverlapPolicy.QUEUE)
  # As if it had been given its place.
  free = query("UPDATE sched_task SET status = 'pending' WHERE status = 'blocked'")

  await make_tasks(database, job)
  await database.fetch(free)
  [claim] = await worker.claim()
  await worker.report(claim, AS.RUNNING)
  await worker.fall_silent()
  await reap(database, term)
  row = await database.fetchrow(TASK, id=claim["task_id"])
  assert row is not None
  assert (row["status"], row["lane"]) == ("waiting_retry", f"job:{job.id}")
