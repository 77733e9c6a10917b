"""Cancels on their way to the agents that have the tasks."""

import time

import pytest
import trio
from support.members import dispatched, join, make_tasks, messages
from support.world import make_job
from trio.testing import MockClock

from hetuflow.nursery import Wakeup
from hetuflow.protocol.messages import (
  AgentCommand,
  AgentCommandKind,
  TaskInstanceUpdate,
)
from hetuflow.protocol.model import AgentId, AgentMetrics, TaskId
from hetuflow.protocol.states import TaskInstanceStatus
from hetuflow.server.scheduling import canceller as canceller_module
from hetuflow.server.scheduling.canceller import REPEAT_AFTER, Canceller
from hetuflow.server.scheduling.poller import Poller
from hetuflow.server.session import Session
from hetuflow.server.sessions import Sessions
from hetuflow.storage.agents import Cancel
from hetuflow.storage.connect import Database
from hetuflow.storage.instances import request_kill
from hetuflow.storage.tasks import get_task
from hetuflow.storage.transitions import record_updates, request_cancel


async def claim(
  database: Database, sessions: Sessions, count: int = 1
) -> tuple[Session, list[TaskId]]:
  """Let an agent have tasks."""
  await make_tasks(database, await make_job(database), count)
  agent = await join(database, sessions, run=count)
  await Poller(database, sessions, interval=1.0, wakeup=Wakeup()).poll_once()
  return agent, [task.task_id for task in dispatched(agent)]


async def test_an_agent_is_told_once_and_again_only_after_a_while(
  database: Database, mock_clock: MockClock
) -> None:
  sessions = Sessions()
  agent, tasks = await claim(database, sessions, 3)
  canceller = Canceller(database, sessions, Wakeup())
  assert await canceller.cancel_once() == 0
  for task_id in tasks[:2]:
    await request_cancel(database, task_id)
  assert await canceller.cancel_once() == 2
  [command] = messages(agent)
  assert isinstance(command, AgentCommand)
  assert command.command is AgentCommandKind.CANCEL
  assert len(command.instance_ids) == 2
  mock_clock.jump(REPEAT_AFTER - 0.1)
  await request_cancel(database, tasks[2])
  assert await canceller.cancel_once() == 3
  [command] = messages(agent)
  assert len(command.instance_ids) == 1
  mock_clock.jump(0.2)
  await canceller.cancel_once()
  [command] = messages(agent)
  assert len(command.instance_ids) == 2


async def test_an_agent_that_was_told_to_cancel_is_told_at_once_to_kill(
  database: Database,
) -> None:
  sessions = Sessions()
  await make_tasks(database, await make_job(database), 2)
  agent = await join(database, sessions, run=2)
  await Poller(database, sessions, interval=1.0, wakeup=Wakeup()).poll_once()
  killed, cancelled = dispatched(agent)
  canceller = Canceller(database, sessions, Wakeup())
  for task in (killed, cancelled):
    await request_cancel(database, task.task_id)
  await canceller.cancel_once()
  messages(agent)
  await request_kill(database, killed.instance_id)
  assert await canceller.cancel_once() == 2
  [command] = messages(agent)
  assert command.command is AgentCommandKind.KILL
  assert command.instance_ids == [killed.instance_id]
  assert (await get_task(database, killed.task_id)).reason == "cancelled by request"


async def test_what_has_ended_is_told_no_more(
  database: Database, mock_clock: MockClock
) -> None:
  sessions = Sessions()
  await make_tasks(database, await make_job(database))
  agent = await join(database, sessions, run=1)
  await Poller(database, sessions, interval=1.0, wakeup=Wakeup()).poll_once()
  [task] = dispatched(agent)
  canceller = Canceller(database, sessions, Wakeup())
  await request_cancel(database, task.task_id)
  await canceller.cancel_once()
  messages(agent)
  cancelled = TaskInstanceUpdate(
    instance_id=task.instance_id,
    namespace_id=task.namespace_id,
    claim_token=task.claim_token,
    status=TaskInstanceStatus.CANCELLED,
  )
  await record_updates(database, task.namespace_id, [cancelled])
  mock_clock.jump(REPEAT_AFTER + 1)
  assert await canceller.cancel_once() == 0
  assert messages(agent) == []


async def test_an_agent_that_is_elsewhere_is_not_this_servers_business(
  database: Database,
) -> None:
  here, elsewhere = Sessions(), Sessions()
  await join(database, here)
  agent, [task_id] = await claim(database, elsewhere)
  await request_cancel(database, task_id)
  assert await Canceller(database, here, Wakeup()).cancel_once() == 0
  assert await Canceller(database, elsewhere, Wakeup()).cancel_once() == 1
  assert len(messages(agent)) == 1


async def test_a_wakeup_passes_a_cancel_on_at_once(database: Database) -> None:
  sessions = Sessions()
  agent, [task_id] = await claim(database, sessions)
  wakeup = Wakeup()
  with trio.fail_after(20):
    async with trio.open_nursery() as nursery:
      await nursery.start(Canceller(database, sessions, wakeup).run)
      await request_cancel(database, task_id)
      wakeup.set()
      while not agent.frames:
        await agent.wakeup.wait()
      nursery.cancel_scope.cancel()


async def test_without_a_hint_a_cancel_is_found_all_the_same(
  database: Database,
) -> None:
  sessions = Sessions()
  agent, [task_id] = await claim(database, sessions)
  await request_cancel(database, task_id)
  with trio.fail_after(20):
    async with trio.open_nursery() as nursery:
      await nursery.start(Canceller(database, sessions, Wakeup()).run)
      while not agent.frames:
        await agent.wakeup.wait()
      nursery.cancel_scope.cancel()


class CountedWakeup(Wakeup):
  """Tells when it has been waited for again and again."""

  def __init__(self) -> None:
    super().__init__()
    self.waits = 0
    self.many = trio.Event()

  async def wait(self, timeout: float | None = None) -> bool:
    """Wait, and count it."""
    self.waits += 1
    if self.waits > 5:
      self.many.set()
    return await super().wait(timeout)


async def test_where_nobody_has_anything_to_cancel_nobody_is_asked(
  database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
  asked = trio.Event()

  async def note(*_: object) -> dict[AgentId, list[Cancel]]:
    asked.set()
    return {}

  monkeypatch.setattr(canceller_module, "list_cancels", note)
  monkeypatch.setattr(canceller_module, "INTERVAL", 0.01)
  sessions = Sessions()
  agent = await join(database, sessions)
  agent.learn(AgentMetrics(), time.monotonic())
  wakeup = CountedWakeup()
  with trio.fail_after(20):
    async with trio.open_nursery() as nursery:
      await nursery.start(Canceller(database, sessions, wakeup).run)
      await wakeup.many.wait()
      assert not asked.is_set()
      wakeup.set()
      await asked.wait()
      nursery.cancel_scope.cancel()


async def test_an_agent_is_at_rest_that_has_nothing_and_was_sent_nothing_since(
  database: Database,
) -> None:
  sessions = Sessions()
  before = time.monotonic()
  agent = await join(database, sessions)
  assert not agent.at_rest
  agent.learn(AgentMetrics(running=1), time.monotonic())
  assert not agent.at_rest
  agent.learn(AgentMetrics(), time.monotonic())
  assert agent.at_rest
  await make_tasks(database, await make_job(database))
  agent.grant(1, 0)
  poller = Poller(database, sessions, interval=1.0, wakeup=Wakeup())
  assert await poller.poll_once() or agent.frames
  assert not agent.at_rest
  agent.learn(AgentMetrics(), time.monotonic())
  assert not agent.at_rest  # it has not acknowledged it
  agent.unacknowledged.clear()
  agent.learn(AgentMetrics(), before)
  assert not agent.at_rest
  agent.learn(AgentMetrics(), time.monotonic())
  assert agent.at_rest
