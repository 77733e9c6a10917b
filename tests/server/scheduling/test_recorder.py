"""Reports on their way into a real database, whatever happens there."""

from collections import deque
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import attrs
import pytest
import trio
from support.members import DEFAULT, acks, count_tasks, dispatched, join, make_tasks
from support.postgres import Postgres
from support.world import make_job, query

from hetuflow.errors import Unavailable
from hetuflow.nursery import Wakeup
from hetuflow.nursery.backoff import keep_trying
from hetuflow.protocol.messages import (
  Ack,
  AckOutcome,
  DispatchedTask,
  TaskInstanceUpdate,
)
from hetuflow.protocol.model import InstanceId, new_id
from hetuflow.protocol.states import LogStream, TaskInstanceStatus
from hetuflow.server.scheduling import recorder as recorder_module
from hetuflow.server.scheduling.poller import Poller
from hetuflow.server.scheduling.recorder import Recorder, Report, merge_updates
from hetuflow.server.session import Session
from hetuflow.server.sessions import Sessions
from hetuflow.storage.connect import Database
from hetuflow.storage.instances import get_instance
from hetuflow.storage.logs import LogWrite, read_log
from hetuflow.storage.tasks import get_task

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
LETTERS = query("SELECT kind, reason, payload FROM sched_dead_letter")
WAITING = query("""
  SELECT count(*) FROM pg_stat_activity
  WHERE datname = current_database() AND wait_event_type = 'Lock'
""")
BY_STATUS = query("""
  SELECT status::text, count(*) FROM sched_task_instance GROUP BY 1 ORDER BY 1
""")


def make_update(task: DispatchedTask | None = None, **more: Any) -> TaskInstanceUpdate:
  """Make a report of one attempt, by default of its success."""
  fields: dict[str, Any] = {
    "instance_id": task.instance_id if task else InstanceId(new_id()),
    "namespace_id": DEFAULT,
    "claim_token": task.claim_token if task else uuid4(),
    "status": TaskInstanceStatus.SUCCEEDED,
  }
  return TaskInstanceUpdate(**(fields | more))


def make_chunk(task: DispatchedTask, data: bytes, **more: Any) -> LogWrite:
  """Make a piece of output."""
  fields: dict[str, Any] = {
    "instance_id": task.instance_id,
    "claim_token": task.claim_token,
    "stream": LogStream.STDOUT,
    "offset": 0,
  }
  return LogWrite(**(fields | {"data": data} | more))


async def claim(database: Database, count: int) -> tuple[Session, list[DispatchedTask]]:
  """Let an agent have tasks."""
  sessions = Sessions()
  await make_tasks(database, await make_job(database), count)
  agent = await join(database, sessions, run=count)
  poller = Poller(database, sessions, interval=1.0, wakeup=Wakeup())
  while await poller.poll_once():
    pass
  tasks = dispatched(agent)
  assert len(tasks) == count
  return agent, tasks


def submit(recorder: Recorder, session: Session, **more: Any) -> Report:
  """Hand a message to the recorder."""
  report = Report(session=session, message_id=new_id(), **more)
  recorder.submit(report)
  return report


def outcomes(ack: Ack) -> dict[InstanceId, AckOutcome]:
  """Read what an acknowledgement says of single reports."""
  return {result.instance_id: result.outcome for result in ack.results}


# ── merging ─────────────────────────────────────────────────────────────────────────


def test_the_end_of_an_attempt_keeps_the_start_that_was_told_before() -> None:
  running = make_update(status=TaskInstanceStatus.RUNNING, started_at=BEGUN)
  ended = make_update(
    instance_id=running.instance_id, claim_token=running.claim_token, exit_code=0
  )
  [merged] = merge_updates([running, ended])[DEFAULT]
  assert merged.status is TaskInstanceStatus.SUCCEEDED
  assert merged.started_at == BEGUN


def test_what_is_told_after_the_end_is_a_repetition() -> None:
  ended = make_update(exit_code=3, status=TaskInstanceStatus.FAILED)
  late = make_update(
    instance_id=ended.instance_id,
    claim_token=ended.claim_token,
    status=TaskInstanceStatus.RUNNING,
  )
  assert merge_updates([ended, late, ended]) == {DEFAULT: [ended]}


def test_reports_by_another_claim_do_not_stand_for_the_attempt() -> None:
  forged = make_update()
  real = make_update(
    instance_id=forged.instance_id, status=TaskInstanceStatus.FAILED, exit_code=1
  )
  assert merge_updates([forged, real]) == {DEFAULT: [forged, real]}


# ── writing ─────────────────────────────────────────────────────────────────────────


async def test_messages_are_acknowledged_after_the_commit_and_by_name(
  database: Database,
) -> None:
  agent, (one, two, three) = await claim(database, 3)
  recorder = Recorder(database)
  plain = submit(recorder, agent, updates=[make_update(one)])
  mixed = submit(
    recorder, agent, updates=[make_update(two), make_update(three, claim_token=uuid4())]
  )
  assert acks(agent) == []
  assert await recorder.record_once() == 2
  first, second = acks(agent)
  assert (first.message_id, outcomes(first)) == (plain.message_id, {})
  assert second.message_id == mixed.message_id
  assert outcomes(second) == {three.instance_id: AckOutcome.STALE}
  again = submit(recorder, agent, updates=[make_update(one)])
  await recorder.record_once()
  [third] = acks(agent)
  assert third.message_id == again.message_id
  assert outcomes(third) == {one.instance_id: AckOutcome.DUPLICATE}
  assert await count_tasks(database, "succeeded") == 2


async def test_a_forged_report_in_a_batch_does_not_displace_the_real_one(
  database: Database,
) -> None:
  agent, [task] = await claim(database, 1)
  recorder = Recorder(database)
  submit(recorder, agent, updates=[make_update(task, claim_token=uuid4())])
  submit(
    recorder,
    agent,
    updates=[make_update(task, status=TaskInstanceStatus.FAILED, exit_code=7)],
    chunks=[
      (DEFAULT, make_chunk(task, b"real")),
      (DEFAULT, make_chunk(task, b"forged", claim_token=uuid4())),
    ],
  )
  assert await recorder.record_once() == 2
  instance = await get_instance(database, task.instance_id)
  assert (instance.status, instance.exit_code) == (TaskInstanceStatus.FAILED, 7)
  page = await read_log(database, task.instance_id, stream=LogStream.STDOUT, offset=0)
  assert b"".join(piece.data for piece in page.chunks) == b"real"


async def test_output_is_written_before_the_end_it_came_with(
  database: Database,
) -> None:
  agent, [task] = await claim(database, 1)
  recorder = Recorder(database)
  submit(recorder, agent, updates=[make_update(task)])
  submit(recorder, agent, chunks=[(DEFAULT, make_chunk(task, b"last words"))])
  await recorder.record_once()
  page = await read_log(database, task.instance_id, stream=LogStream.STDOUT, offset=0)
  assert [piece.data for piece in page.chunks] == [b"last words"]
  assert len(acks(agent)) == 2


async def test_a_report_the_database_refuses_is_buried_alone(
  database: Database,
) -> None:
  agent, tasks = await claim(database, 9)
  recorder = Recorder(database)
  for number, task in enumerate(tasks):
    # The edge refuses these; whatever gets past it must not stop the others.
    text = {4: "a\x00b", 7: "\ud800"}.get(number, "fine")
    submit(recorder, agent, updates=[make_update(task, error_message=text)])
  with trio.fail_after(20):
    assert await recorder.record_once() == 9
  said = {key: value for ack in acks(agent) for key, value in outcomes(ack).items()}
  assert said == {
    tasks[4].instance_id: AckOutcome.INVALID,
    tasks[7].instance_id: AckOutcome.INVALID,
  }
  assert await count_tasks(database, "succeeded") == 7
  letters = await database.fetch(LETTERS)
  assert len(letters) == recorder.statistics.buried == 2
  assert {letter["kind"] for letter in letters} == {"task_instance_update"}
  assert all(letter["reason"] for letter in letters)


async def test_output_the_database_refuses_is_buried_alone(
  database: Database,
) -> None:
  agent, (one, two) = await claim(database, 2)
  recorder = Recorder(database)
  beyond = make_chunk(one, b"x", offset=2**63)
  submit(
    recorder,
    agent,
    chunks=[(DEFAULT, beyond), (DEFAULT, make_chunk(two, b"fine"))],
  )
  with trio.fail_after(20):
    await recorder.record_once()
  [ack] = acks(agent)
  assert outcomes(ack) == {}
  page = await read_log(database, two.instance_id, stream=None, offset=0)
  assert [piece.data for piece in page.chunks] == [b"fine"]
  [letter] = await database.fetch(LETTERS)
  assert letter["kind"] == "task_log"


async def test_batches_are_bounded(database: Database) -> None:
  agent, tasks = await claim(database, 700)
  recorder = Recorder(database)
  for start in range(0, 700, 100):
    submit(
      recorder,
      agent,
      updates=[make_update(task) for task in tasks[start : start + 100]],
    )
  assert [await recorder.record_once() for _ in range(2)] == [5, 2]
  assert await count_tasks(database, "succeeded") == 700


async def test_a_message_that_is_too_long_is_written_in_parts(
  database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(recorder_module, "BATCH_ROWS", 8)
  agent, tasks = await claim(database, 20)
  record, sizes = recorder_module.record_updates, []

  async def count_and_record(*args: Any) -> Any:
    sizes.append(len(args[2]))
    return await record(*args)

  monkeypatch.setattr(recorder_module, "record_updates", count_and_record)
  recorder = Recorder(database)
  submit(recorder, agent, updates=[make_update(task) for task in tasks])
  assert await recorder.record_once() == 1
  assert sum(sizes) == 20
  assert max(sizes) <= 8
  assert await count_tasks(database, "succeeded") == 20
  [ack] = acks(agent)
  assert outcomes(ack) == {}


async def test_a_message_that_comes_again_waits_once_and_is_answered_where_it_came_last(
  database: Database,
) -> None:
  older, (one, two) = await claim(database, 2)
  newer = attrs.evolve(older, frames=deque())
  recorder = Recorder(database)
  first = submit(recorder, older, updates=[make_update(one)])
  other = submit(recorder, older, updates=[make_update(two)])
  for _ in range(100):
    recorder.submit(attrs.evolve(first, session=newer))
  assert await recorder.record_once() == 2
  assert [ack.message_id for ack in acks(newer)] == [first.message_id]
  assert [ack.message_id for ack in acks(older)] == [other.message_id]
  # Once it is written it is a repetition like any other.
  recorder.submit(first)
  assert await recorder.record_once() == 1
  [ack] = acks(older)
  assert outcomes(ack) == {one.instance_id: AckOutcome.DUPLICATE}


async def test_a_message_that_comes_again_while_it_is_written_is_answered_once(
  database: Database,
) -> None:
  older, [task] = await claim(database, 1)
  newer = attrs.evolve(older, frames=deque())
  recorder = Recorder(database)
  report = submit(recorder, older, updates=[make_update(task)])
  with trio.fail_after(20):
    async with trio.open_nursery() as nursery, database.transaction() as connection:
      await connection.fetch(query("SELECT id FROM sched_task FOR UPDATE"))
      nursery.start_soon(recorder.record_once)
      while not await database.fetchval(WAITING):
        pass
      recorder.submit(attrs.evolve(report, session=newer))
    await recorder.drain()
  [ack] = acks(newer)
  assert (ack.message_id, outcomes(ack)) == (report.message_id, {})
  assert acks(older) == []


async def test_a_finish_that_meets_a_cancel_still_ends_the_task(
  database: Database,
) -> None:
  agent, [task] = await claim(database, 1)
  recorder = Recorder(database)
  submit(recorder, agent, updates=[make_update(task)])
  ask = query("UPDATE sched_task SET cancel_requested_at = now() WHERE id = $id")
  with trio.fail_after(20):
    async with trio.open_nursery() as nursery, database.transaction() as connection:
      await connection.fetch(ask, id=task.task_id)
      nursery.start_soon(recorder.record_once)
      while not await database.fetchval(WAITING):
        pass
  ended = await get_task(database, task.task_id)
  assert ended.status == "succeeded"
  [ack] = acks(agent)
  assert outcomes(ack) == {}


async def test_a_cancelled_batch_is_written_again(database: Database) -> None:
  agent, tasks = await claim(database, 40)
  recorder = Recorder(database)
  for task in tasks:
    submit(recorder, agent, updates=[make_update(task)])
  with trio.fail_after(30):
    for microseconds in range(0, 8_000, 500):
      with trio.move_on_after(microseconds / 1e6):
        await recorder.record_once()
    async with trio.open_nursery() as nursery:
      await nursery.start(recorder.run)
      await recorder.drain()
      nursery.cancel_scope.cancel()
  said = acks(agent)
  assert len(said) == 40
  assert all(set(outcomes(ack).values()) <= {AckOutcome.DUPLICATE} for ack in said)
  assert await count_tasks(database, "succeeded") == 40


async def test_everything_is_written_once_though_connections_keep_dying(
  database: Database, postgres: Postgres, dsn: str
) -> None:
  agent, tasks = await claim(database, 1_000)
  recorder = Recorder(database)
  name = dsn.split("@/")[1].split("?")[0]
  kills: list[int] = []
  done = trio.Event()

  async def kill() -> None:
    while sum(kills) < 5 and not done.is_set():
      ended = await trio.to_thread.run_sync(
        postgres.sql,
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        f" WHERE datname = '{name}' AND query LIKE '%record_updates%'",
      )
      kills.append(int(ended))

  async def report() -> None:
    for start in range(0, 1_000, 20):
      part = tasks[start : start + 20]
      submit(
        recorder,
        agent,
        updates=[
          make_update(task, status=TaskInstanceStatus.RUNNING, started_at=BEGUN)
          for task in part
        ],
      )
      submit(
        recorder,
        agent,
        updates=[make_update(task, exit_code=0) for task in part],
        chunks=[(DEFAULT, make_chunk(task, b"out")) for task in part],
      )
      # So that there are many batches: the first ack is there.
      await agent.wakeup.wait()
    await recorder.drain()
    done.set()

  with trio.fail_after(60):
    async with trio.open_nursery() as nursery:
      await nursery.start(recorder.run)
      async with trio.open_nursery() as inner:
        inner.start_soon(kill)
        inner.start_soon(report)
      nursery.cancel_scope.cancel()
  assert sum(kills) > 0
  said = acks(agent)
  assert len(said) == 100
  assert all(set(outcomes(ack).values()) <= {AckOutcome.DUPLICATE} for ack in said)
  # The pool may still hold a connection that is dead and does not know.
  [row] = await keep_trying(
    lambda: database.fetch(BY_STATUS), expected=Unavailable, event="looking"
  )
  assert await count_tasks(database, "succeeded") == 1_000
  assert (row["status"], row["count"]) == ("succeeded", 1_000)
  pieces = await database.fetchval(query("SELECT count(*) FROM sched_task_log"))
  assert pieces == 1_000
  assert recorder.statistics.buried == 0


async def test_draining_an_idle_recorder_returns_at_once(database: Database) -> None:
  with trio.fail_after(5):
    await Recorder(database).drain()
