"""Lost attempts: given up, waited for, taken up again or followed by a newer one."""

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
import trio
from reaping_scene import (
  PATIENCE,
  Deed,
  close,
  join,
  lead,
  new_job,
  race,
  reap,
  tolerant,
)
from support.members import make_tasks
from support.plans import explain_generic, scans
from support.world import query

from hetuflow.protocol.messages import AckOutcome
from hetuflow.protocol.model import NamespaceForUpdate, NamespaceId
from hetuflow.protocol.states import OnLost, TaskInstanceStatus, TaskStatus
from hetuflow.storage import reaping
from hetuflow.storage.agents import get_agent
from hetuflow.storage.connect import Database
from hetuflow.storage.instances import request_kill
from hetuflow.storage.leader import TermOver, resign_leader
from hetuflow.storage.namespaces import update_namespace
from hetuflow.storage.reaping import find_overdue, lose_instances
from hetuflow.storage.transitions import pause_task, request_cancel, resume_task

AS, TS = TaskInstanceStatus, TaskStatus
LEASE = 30.0
COUNTS = query("SELECT attempts, lost_attempts FROM sched_task WHERE id = $id")
SESSION = query("SELECT session_id FROM sched_agent WHERE id = $id")


async def counts(database: Database, task_id: object) -> tuple[int, int]:
  """Read how many attempts a task had, and how many of them were lost."""
  row = await database.fetchrow(COUNTS, id=task_id)
  assert row is not None
  return row["attempts"], row["lost_attempts"]


# ── who is given up ─────────────────────────────────────────────────────────────────


async def test_what_a_silent_agent_runs_is_lost_and_goes_to_another(
  database: Database,
) -> None:
  term, one, two = await lead(database), await join(database), await join(database)
  claim = await one.start(await new_job(database))
  assert await reap(database, term) == []
  await one.fall_silent()
  [lost] = await reap(database, term)
  assert (lost.id, lost.name, lost.count) == (one.id, "worker", 1)
  instance, task = await one.instance(claim), await one.task(claim)
  assert (instance.status, instance.completed_at) == (AS.LOST, None)
  assert (task.status, task.reason) == (TS.WAITING_RETRY, "lost")
  assert await reap(database, term) == []
  [again] = await two.claim()
  assert (again["task_id"], again["attempt"]) == (claim["task_id"], 2)
  assert again["claim_token"] != claim["claim_token"]
  # The one before is closed as soon as there is a newer one.
  assert await close(database, term) == 1
  assert (await one.instance(claim)).completed_at is not None
  assert await two.report(again, AS.SUCCEEDED) is None
  assert (await two.task(again)).status is TS.SUCCEEDED


async def test_a_lost_agents_session_ends_so_that_it_has_to_register(
  database: Database,
) -> None:
  term, one = await lead(database), await join(database)
  await one.start(await new_job(database))
  await one.fall_silent()
  await reap(database, term)
  assert await database.fetchval(SESSION, id=one.id) is None
  assert (await get_agent(database, one.id)).status.value == "offline"


async def test_an_agent_that_has_nothing_may_be_silent_for_as_long_as_it_likes(
  database: Database,
) -> None:
  term, one = await lead(database), await join(database)
  await one.fall_silent()
  assert await reap(database, term) == []
  assert await database.fetchval(SESSION, id=one.id) == one.session_id


@pytest.mark.parametrize("outage", [True, False])
async def test_after_an_outage_or_a_new_leader_agents_have_time_to_come_back(
  database: Database, outage: bool
) -> None:
  await lead(database)
  one = await join(database)
  await one.start(await new_job(database))
  await one.fall_silent()
  long_ago, now = datetime(1970, 1, 1, tzinfo=UTC), datetime.now(UTC)
  for age, expected in ((LEASE - 5.0, []), (LEASE + 5.0, [one.id])):
    since = now - timedelta(seconds=age)
    if outage:
      wait = {"lease": LEASE, "term": 0.0}
    else:
      wait = {"lease": 0.0, "term": LEASE}
      await database.fetch(
        query("UPDATE distributed_lock SET acquired_at = $at"), at=since
      )
    overdue = await find_overdue(
      database,
      type(PATIENCE)(lost=120.0, **wait),
      steady_since=since if outage else long_ago,
    )
    assert list(overdue.agents) == expected


async def test_a_claim_that_has_not_started_is_good_until_its_time_and_a_lease(
  database: Database,
) -> None:
  term, one, two = await lead(database), await join(database), await join(database)
  at = datetime.now(UTC) + timedelta(seconds=3)
  await make_tasks(database, await new_job(database), scheduled_at=at)
  [claim] = await one.claim(run=0, hold=1)
  assert claim["held"]
  await one.fall_silent()
  assert await reap(database, term) == []
  # Just before the agent may not start it any more by its own rules, and just after.
  await one.age(claim, LEASE - 1)
  assert await reap(database, term) == []
  assert await two.claim(hold=1) == []
  await one.age(claim, LEASE + 0.1)
  [lost] = await reap(database, term)
  assert lost.count == 1


async def test_a_leader_whose_term_is_over_gives_nobody_up(database: Database) -> None:
  term, one = await lead(database), await join(database)
  claim = await one.start(await new_job(database))
  await one.fall_silent()
  await resign_leader(database, term)
  await lead(database)
  with pytest.raises(TermOver):
    await lose_instances(database, term, [one.id])
  assert (await one.instance(claim)).status is AS.RUNNING


async def test_an_agent_that_renews_its_lease_meanwhile_is_not_given_up(
  database: Database,
) -> None:
  term, one = await lead(database), await join(database)
  claim = await one.start(await new_job(database))
  await one.fall_silent()
  overdue = await find_overdue(
    database, PATIENCE, steady_since=datetime(1970, 1, 1, tzinfo=UTC)
  )
  async with database.transaction() as connection:
    renew = query("""
      UPDATE sched_agent SET lease_until = now() + interval '1 minute' WHERE id = $id
    """)
    await connection.fetch(renew, id=one.id)
    # It is not waited for: there is another look soon.
    assert await lose_instances(database, term, overdue.agents) == []
  assert await lose_instances(database, term, overdue.agents) == []
  assert (await one.instance(claim)).status is AS.RUNNING


# ── what comes of it ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
  ("config", "losses"), [({"on_lost": OnLost.FAIL}, 0), ({"max_lost": 1}, 1)]
)
async def test_what_must_not_run_again_fails_once_it_was_waited_for(
  database: Database, config: dict[str, object], losses: int
) -> None:
  term, one = await lead(database), await join(database)
  claim = await one.start(await new_job(database, **config))
  for _ in range(losses):
    await one.fall_silent()
    await reap(database, term)
    await one.register()
    [claim] = await one.claim()
    await one.report(claim, AS.RUNNING)
    await close(database, term)
  await one.fall_silent()
  assert len(await reap(database, term)) == 1
  task = await one.task(claim)
  assert (task.status, task.reason) == (TS.RUNNING, "lost")
  assert await close(database, term, after=119) == 0
  assert await close(database, term, after=1.1) == 1
  task, instance = await one.task(claim), await one.instance(claim)
  assert (task.status, task.reason) == (TS.FAILED, "lost")
  assert (instance.status, instance.completed_at) == (AS.LOST, task.completed_at)
  assert await one.report(claim, AS.SUCCEEDED) is AckOutcome.STALE


async def test_a_task_nobody_takes_waits_on_when_its_lost_attempt_is_given_up(
  database: Database,
) -> None:
  term, one = await lead(database), await join(database)
  claim = await one.start(await new_job(database))
  await one.fall_silent()
  await reap(database, term)
  assert await close(database, term, after=121) == 1
  assert (await one.task(claim)).status is TS.WAITING_RETRY
  assert await one.report(claim, AS.SUCCEEDED) is AckOutcome.STALE
  await one.register()
  [again] = await one.claim()
  assert again["attempt"] == 2


@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.parametrize("on_lost", OnLost)
@pytest.mark.parametrize("first", [False, True])
async def test_a_task_that_is_to_be_cancelled_ends_with_the_lease_of_its_agent(
  database: Database, kill: bool, on_lost: OnLost, first: bool
) -> None:
  term, one = await lead(database), await join(database)
  claim = await one.start(await new_job(database, on_lost=on_lost))

  async def cancel() -> None:
    if kill:
      await request_kill(database, claim["instance_id"])
    else:
      await request_cancel(database, claim["task_id"])

  if first:
    await cancel()
    assert (await one.task(claim)).status is TS.RUNNING
  await one.fall_silent()
  await reap(database, term)
  if not first:
    await cancel()
  await close(database, term)
  task = await one.task(claim)
  said = "killed by request" if kill else "cancelled by request"
  assert (task.status, task.reason) == (TS.CANCELLED, said)
  instance = await one.instance(claim)
  assert instance.status is AS.LOST
  assert instance.completed_at is not None
  assert await one.report(claim, AS.SUCCEEDED) is AckOutcome.STALE


async def test_a_pause_after_a_loss_lets_go_of_the_lost_attempt(
  database: Database,
) -> None:
  term, one = await lead(database), await join(database)
  claim = await one.start(await new_job(database))
  await one.fall_silent()
  await reap(database, term)
  await pause_task(database, claim["task_id"])
  assert await one.report(claim, AS.SUCCEEDED) is AckOutcome.STALE
  assert await close(database, term) == 1
  await resume_task(database, claim["task_id"])
  await one.register()
  [again] = await one.claim()
  assert again["attempt"] == 2


# ── who is heard of after all ───────────────────────────────────────────────────────


@pytest.mark.parametrize(
  ("status", "expected"),
  [
    (AS.SUCCEEDED, TS.SUCCEEDED),
    (AS.FAILED, TS.FAILED),
    (AS.TIMEOUT, TS.FAILED),
    (AS.CANCELLED, TS.CANCELLED),
  ],
)
@pytest.mark.parametrize("on_lost", OnLost)
async def test_a_late_end_counts_until_there_is_a_newer_claim(
  database: Database,
  status: TaskInstanceStatus,
  expected: TaskStatus,
  on_lost: OnLost,
) -> None:
  term, one = await lead(database), await join(database)
  claim = await one.start(await new_job(database, on_lost=on_lost))
  await one.fall_silent()
  await reap(database, term)
  assert await one.report(claim, status, exit_code=0, output="at last") is None
  instance, task = await one.instance(claim), await one.task(claim)
  assert (instance.status, instance.output) == (status, "at last")
  assert task.status is expected
  assert await counts(database, task.id) == (1, 0)
  assert await one.report(claim, status) is AckOutcome.DUPLICATE
  assert await close(database, term) == 0


async def test_a_late_failure_is_retried_as_any_other(database: Database) -> None:
  term, one = await lead(database), await join(database)
  job = await new_job(database, max_retries=1, retry_interval=3_600.0)
  claim = await one.start(job)
  await one.fall_silent()
  await reap(database, term)
  assert await one.report(claim, AS.FAILED, exit_code=1) is None
  task = await one.task(claim)
  assert task.status is TS.WAITING_RETRY
  assert task.due_at - task.updated_at == timedelta(hours=1)
  assert await counts(database, task.id) == (1, 0)


async def test_a_late_word_is_stale_once_the_task_has_a_newer_claim(
  database: Database,
) -> None:
  term, one, two = await lead(database), await join(database), await join(database)
  claim = await one.start(await new_job(database))
  await one.fall_silent()
  await reap(database, term)
  [again] = await two.claim()
  for status in (AS.RUNNING, AS.SUCCEEDED, AS.RELEASED):
    assert await one.report(claim, status) is AckOutcome.STALE
  registration = await one.register(claim)
  assert registration.superseded == [claim["instance_id"]]
  assert (registration.found, registration.released) == (0, 0)
  assert (await two.task(again)).status is TS.DISPATCHED
  assert await two.report(again, AS.SUCCEEDED) is None


@pytest.mark.parametrize("on_lost", OnLost)
@pytest.mark.parametrize("begun", [True, False])
async def test_an_agent_that_comes_back_in_time_goes_on_with_what_it_has(
  database: Database, on_lost: OnLost, begun: bool
) -> None:
  term, one, two = await lead(database), await join(database), await join(database)
  await make_tasks(database, await new_job(database, on_lost=on_lost))
  [claim] = await one.claim()
  if begun:
    await one.report(claim, AS.RUNNING)
  await one.age(claim, LEASE + 1)
  await one.fall_silent()
  assert len(await reap(database, term)) == 1
  registration = await one.register(claim)
  assert (registration.found, registration.superseded) == (1, [])
  instance, task = await one.instance(claim), await one.task(claim)
  assert instance.status.value == task.status.value == ("dispatched", "running")[begun]
  assert task.reason is None
  assert await counts(database, task.id) == (1, 0)
  assert await two.claim() == []
  if not begun:
    assert await one.report(claim, AS.RUNNING) is None
  assert await one.report(claim, AS.SUCCEEDED) is None
  assert (await one.task(claim)).status is TS.SUCCEEDED


@pytest.mark.parametrize("begun", [True, False])
async def test_an_agent_that_comes_back_without_its_work_says_whether_it_had_begun(
  database: Database, begun: bool
) -> None:
  term, one = await lead(database), await join(database)
  await make_tasks(database, await new_job(database, on_lost=OnLost.FAIL))
  [claim] = await one.claim()
  if begun:
    await one.report(claim, AS.RUNNING)
  await one.age(claim, LEASE + 1)
  await one.fall_silent()
  await reap(database, term)
  assert (await one.register()).released == 1
  task = await one.task(claim)
  # What never started is no attempt, and may run even though it runs at most once.
  expected = (TS.FAILED, (1, 1)) if begun else (TS.PENDING, (0, 0))
  assert (task.status, await counts(database, task.id)) == expected
  assert (await one.instance(claim)).completed_at is not None


async def test_a_loss_that_the_agent_confirms_counts_once(database: Database) -> None:
  term, one = await lead(database), await join(database)
  claim = await one.start(await new_job(database, max_lost=2))
  await one.fall_silent()
  await reap(database, term)
  assert await one.report(claim, AS.LOST, reason="the agent was restarted") is None
  assert await one.report(claim, AS.LOST) is AckOutcome.DUPLICATE
  task = await one.task(claim)
  assert task.status is TS.WAITING_RETRY
  assert await counts(database, task.id) == (1, 1)
  assert (await one.instance(claim)).completed_at is not None


# ── races ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("what", ["finish", "cancel", "kill"])
async def test_a_loss_and_whatever_else_happens_leave_one_winner(
  database: Database, what: str, order: int
) -> None:
  term, one = await lead(database), await join(database)
  claim = await one.start(await new_job(database))
  await one.fall_silent()
  others: dict[str, Deed] = {
    "finish": partial(one.report, claim, AS.SUCCEEDED),
    "cancel": partial(tolerant, partial(request_cancel, database, claim["task_id"])),
    "kill": partial(tolerant, partial(request_kill, database, claim["instance_id"])),
  }
  rivals: list[Deed] = [partial(reap, database, term), others[what]]
  await race(database, *rivals[::order])
  await reap(database, term)
  await close(database, term)
  task, instance = await one.task(claim), await one.instance(claim)
  assert task.status is (TS.SUCCEEDED if what == "finish" else TS.CANCELLED)
  assert instance.status is (AS.SUCCEEDED if what == "finish" else AS.LOST)
  assert task.completed_at is not None
  assert instance.completed_at is not None


async def test_a_late_end_and_a_new_claim_leave_one_winner(database: Database) -> None:
  term, one, two = await lead(database), await join(database), await join(database)
  wins = set()
  for _ in range(10):
    claim = await one.start(await new_job(database))
    await one.fall_silent()
    await reap(database, term)
    said: list[object] = []

    async def finish(claim: object = claim, said: list[object] = said) -> None:
      said.append(await one.report(claim, AS.SUCCEEDED))  # type: ignore[arg-type]  # a record

    async with trio.open_nursery() as nursery:
      nursery.start_soon(finish)
      again = await two.claim()
    [outcome] = said
    assert (outcome is None) is (again == [])
    wins.add(outcome)
    for each in again:
      assert await two.report(each, AS.SUCCEEDED) is None
    assert (await one.task(claim)).status is TS.SUCCEEDED
    await one.register()
  assert wins <= {None, AckOutcome.STALE}


async def test_the_lease_that_an_attempt_was_handed_out_with_is_heeded(
  database: Database,
) -> None:
  async def set_lease(seconds: float) -> None:
    """Set the lease of what is handed out from now on."""
    change = NamespaceForUpdate(lease=seconds)
    await update_namespace(database, NamespaceId("default"), change)

  term, one = await lead(database), await join(database)
  claims = []
  for seconds in (50.0, 5.0):
    await set_lease(seconds)
    await make_tasks(database, await new_job(database))
    claims += await one.claim()
  assert [claim["lease"] for claim in claims] == [50.0, 5.0]
  await one.fall_silent()
  for age, count in ((4.0, 0), (6.0, 1), (49.0, 0), (51.0, 1)):
    for claim in claims:
      await one.age(claim, age)
    assert sum(lost.count for lost in await reap(database, term)) == count


@pytest.mark.parametrize(
  ("on_lost", "expected"),
  [
    (OnLost.RETRY, {"tasks:default"}),
    (OnLost.FAIL, {"limits:default", "ends:default"}),
  ],
)
async def test_those_who_wait_for_tasks_places_or_ends_are_told(
  database: Database, on_lost: OnLost, expected: set[str]
) -> None:
  term, one = await lead(database), await join(database)
  claim = await one.start(await new_job(database, on_lost=on_lost))
  mark = query("""
    UPDATE sched_task SET lane = 'job:x', parent_id = gen_random_uuid() WHERE id = $id
  """)
  await database.fetch(mark, id=claim["task_id"])
  await one.fall_silent()
  async with (
    database.connection() as connection,
    connection.listen("hetuflow") as heard,
  ):
    await reap(database, term)
    await close(database, term, after=121)
    with trio.fail_after(5):
      assert {await heard.receive() for _ in expected} == expected


@pytest.mark.parametrize("name", ["find_overdue", "lose_instances", "close_lost"])
async def test_only_what_is_under_way_is_looked_at_and_by_index(
  database: Database, name: str
) -> None:
  worker = await join(database)
  for _ in range(20):
    await worker.report(await worker.start(await new_job(database)), AS.SUCCEEDED)
  await database.fetch(query("ANALYZE"))
  async with database.transaction() as connection:
    plan = await explain_generic(connection, getattr(reaping._sql, name))
  ways = {way for way in scans(plan) if way[0].startswith("sched_task")}
  assert {table for table, _ in ways} <= {"sched_task_live", "sched_task_instance_live"}
  assert {way for way in ways if way[1] == "Seq Scan"} == set()
