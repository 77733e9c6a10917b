"""Heartbeats of many sessions in one statement."""

import time
from datetime import datetime

import trio
from structlog.testing import capture_logs
from support.members import DEFAULT, join, messages
from support.postgres import Postgres
from support.world import query

from hetuflow.protocol.messages import HeartbeatRequest, HeartbeatResponse
from hetuflow.protocol.model import AgentCapabilities, AgentForUpdate, AgentMetrics
from hetuflow.protocol.states import AgentStatus
from hetuflow.server.clock import DatabaseClock
from hetuflow.server.gateway.presence import MAX_UNANSWERED, Presence
from hetuflow.server.sessions import Sessions
from hetuflow.storage.access import create_agent_token, delete_agent_token
from hetuflow.storage.agents import get_agent, update_agent
from hetuflow.storage.connect import Database

LEASE = 30.0
LEASES = query("""
  SELECT count(*) FROM sched_agent
  WHERE lease_until > now() + make_interval(secs => 29.0)
""")
SHORTEN = query("UPDATE sched_agent SET lease_until = now()")


def make_presence(database: Database) -> Presence:
  """Make a presence with a clock that was never set."""
  return Presence(database, DatabaseClock(), Sessions(), lease=LEASE)


async def test_heartbeats_renew_leases_and_are_answered(database: Database) -> None:
  sessions = Sessions()
  agents = [await join(database, sessions, name=f"a{number}") for number in range(20)]
  await database.fetch(SHORTEN)
  presence = make_presence(database)
  for number, agent in enumerate(agents):
    presence.submit(agent, HeartbeatRequest(sent_at=float(number)))
  assert all(messages(agent) == [] for agent in agents)
  assert await presence.renew_once() == 20
  assert await database.fetchval(LEASES) == 20
  for number, agent in enumerate(agents):
    [answer] = messages(agent)
    assert isinstance(answer, HeartbeatResponse)
    assert (answer.sent_at, answer.session_lease) == (float(number), LEASE)
  assert await presence.renew_once() == 0


async def test_nobody_is_answered_before_the_commit(database: Database) -> None:
  sessions = Sessions()
  agent = await join(database, sessions)
  presence = make_presence(database)
  lock = query("SELECT id FROM sched_agent FOR UPDATE")
  with trio.fail_after(20):
    async with trio.open_nursery() as nursery:
      await nursery.start(presence.run)
      async with database.transaction() as connection:
        await connection.fetch(lock)
        presence.submit(agent, HeartbeatRequest(sent_at=1.0))
        await wait_for_lock(database)
        assert messages(agent) == []
      await agent.wakeup.wait()
      assert len(messages(agent)) == 1
      nursery.cancel_scope.cancel()


WAITERS = query("""
  SELECT count(*) FROM pg_stat_activity
  WHERE datname = current_database() AND wait_event_type = 'Lock'
""")


async def wait_for_lock(database: Database) -> None:
  """Wait until some statement waits for a lock."""
  while await database.fetchval(WAITERS) == 0:
    pass


async def test_a_row_that_others_change_meanwhile_is_renewed_all_the_same(
  database: Database,
) -> None:
  sessions = Sessions()
  agent = await join(database, sessions)
  presence = make_presence(database)
  presence.submit(agent, HeartbeatRequest(sent_at=1.0))
  rename = query("UPDATE sched_agent SET name = 'renamed'")
  with trio.fail_after(20):
    async with trio.open_nursery() as nursery, database.transaction() as connection:
      await connection.fetch(rename)
      nursery.start_soon(presence.renew_once)
      await wait_for_lock(database)
  assert agent.closing is None
  assert len(messages(agent)) == 1


async def test_a_session_whose_work_was_given_up_has_to_be_made_anew(
  database: Database,
) -> None:
  sessions = Sessions()
  lost, other = await join(database, sessions), await join(database, sessions)
  await database.fetch(
    query("UPDATE sched_agent SET session_id = NULL WHERE id = $id"), id=lost.agent_id
  )
  presence = make_presence(database)
  for session in (lost, other):
    presence.submit(session, HeartbeatRequest(sent_at=1.0))
  await presence.renew_once()
  assert lost.closing is not None
  assert lost.closing[0] == 4001
  assert messages(lost) == []
  assert len(messages(other)) == 1


async def test_a_session_that_was_replaced_is_closed(database: Database) -> None:
  here, elsewhere = Sessions(), Sessions()
  older = await join(database, here)
  newer = await join(database, elsewhere, agent_id=older.agent_id)
  presence = make_presence(database)
  presence.submit(older, HeartbeatRequest(sent_at=1.0))
  presence.submit(newer, HeartbeatRequest(sent_at=2.0))
  await presence.renew_once()
  assert older.closing is not None
  assert older.closing[0] == 4003
  assert messages(older) == []
  assert newer.closing is None
  assert len(messages(newer)) == 1


async def test_a_session_whose_token_was_revoked_is_closed(database: Database) -> None:
  sessions = Sessions()
  kept, _ = await create_agent_token(database, "kept", [DEFAULT])
  revoked, _ = await create_agent_token(database, "revoked", [DEFAULT])
  stays, goes = await join(database, sessions), await join(database, sessions)
  stays.token_id, goes.token_id = kept.id, revoked.id
  await delete_agent_token(database, revoked.id)
  presence = make_presence(database)
  for agent in (stays, goes):
    presence.submit(agent, HeartbeatRequest(sent_at=1.0))
  await presence.renew_once()
  assert goes.closing == (1008, "the agent token was revoked")
  assert messages(goes) == []
  assert stays.closing is None
  assert len(messages(stays)) == 1


async def test_what_an_agent_says_of_itself_is_kept(database: Database) -> None:
  sessions = Sessions()
  agent = await join(database, sessions)
  agent.routes["default"] = ({}, ())  # type: ignore[index]  # any memory will do
  presence = make_presence(database)
  able = AgentCapabilities(executors=["process", "shell"], max_concurrent=2)
  presence.submit(
    agent,
    HeartbeatRequest(
      sent_at=1.0,
      metrics=AgentMetrics(running=2),
      clock_offset_ms=1.5,
      capabilities=able,
    ),
  )
  await presence.renew_once()
  # The new abilities are known from now on; by them it is busy the next time.
  presence.submit(agent, HeartbeatRequest(sent_at=2.0, metrics=AgentMetrics(running=2)))
  await presence.renew_once()
  read = await get_agent(database, agent.agent_id)
  assert read.capabilities == agent.capabilities == able
  assert read.status is AgentStatus.BUSY
  assert read.metrics.running == agent.metrics.running == 2
  assert agent.routes == {}


async def test_every_heartbeat_is_answered_and_the_last_one_is_kept(
  database: Database,
) -> None:
  sessions = Sessions()
  agent = await join(database, sessions)
  presence = make_presence(database)
  able = AgentCapabilities(executors=["shell"])
  presence.submit(agent, HeartbeatRequest(sent_at=1.0, capabilities=able))
  presence.submit(agent, HeartbeatRequest(sent_at=2.0, metrics=AgentMetrics(running=1)))
  assert await presence.renew_once() == 1
  assert [answer.sent_at for answer in messages(agent)] == [1.0, 2.0]
  # What only the first one said is not lost either.
  read = await get_agent(database, agent.agent_id)
  assert (read.capabilities, read.metrics.running) == (able, 1)
  assert agent.capabilities == able


async def test_a_heartbeat_that_comes_during_the_writing_is_written_next(
  database: Database,
) -> None:
  sessions = Sessions()
  agent = await join(database, sessions)
  presence = make_presence(database)
  presence.submit(agent, HeartbeatRequest(sent_at=1.0))
  lock = query("SELECT id FROM sched_agent FOR UPDATE")
  with trio.fail_after(20):
    async with trio.open_nursery() as nursery, database.transaction() as connection:
      await connection.fetch(lock)
      nursery.start_soon(presence.renew_once)
      await wait_for_lock(database)
      presence.submit(agent, HeartbeatRequest(sent_at=2.0))
    assert [answer.sent_at for answer in messages(agent)] == [1.0]
    assert await presence.renew_once() == 1
  assert [answer.sent_at for answer in messages(agent)] == [2.0]
  assert await presence.renew_once() == 0


async def test_heartbeats_that_wait_are_bounded(database: Database) -> None:
  agent = await join(database, Sessions())
  presence = make_presence(database)
  for number in range(10 * MAX_UNANSWERED):
    presence.submit(agent, HeartbeatRequest(sent_at=float(number)))
  await presence.renew_once()
  answers = [answer.sent_at for answer in messages(agent)]
  assert len(answers) == MAX_UNANSWERED
  assert answers[-1] == 10 * MAX_UNANSWERED - 1


async def test_labels_that_operators_set_count_from_the_next_heartbeat_on(
  database: Database,
) -> None:
  agent = await join(database, Sessions(), labels={"disk": "ssd", "rack": "7"})
  presence = make_presence(database)
  agent.routes["default"] = ({}, ())  # type: ignore[index]  # any memory will do
  presence.submit(agent, HeartbeatRequest(sent_at=1.0))
  await presence.renew_once()
  assert agent.labels == {"disk": "ssd", "rack": "7"}
  assert agent.routes
  await update_agent(database, agent.agent_id, AgentForUpdate(labels={"disk": "hdd"}))
  presence.submit(agent, HeartbeatRequest(sent_at=2.0))
  await presence.renew_once()
  assert agent.labels == {"disk": "hdd", "rack": "7"}
  assert agent.routes == {}


class WatchedClock(DatabaseClock):
  """Remembers for which moments it was asked."""

  def __init__(self) -> None:
    super().__init__()
    self.asked: list[float] = []

  def now(self, at: float | None = None) -> datetime:
    """Tell the time, and remember the moment."""
    assert at is not None
    self.asked.append(at)
    return super().now(at)


async def test_the_time_in_the_answer_is_that_of_the_middle(
  database: Database,
) -> None:
  clock = WatchedClock()
  agent = await join(database, Sessions())
  presence = Presence(database, clock, Sessions(), lease=LEASE)
  lock = query("SELECT id FROM sched_agent FOR UPDATE")
  with trio.fail_after(20):
    asked = time.monotonic()
    presence.submit(agent, HeartbeatRequest(sent_at=1.0))
    arrived = time.monotonic()
    async with trio.open_nursery() as nursery, database.transaction() as connection:
      await connection.fetch(lock)
      nursery.start_soon(presence.renew_once)
      await wait_for_lock(database)
      released = time.monotonic()
    answered = time.monotonic()
  [moment] = clock.asked
  assert (asked + released) / 2 <= moment <= (arrived + answered) / 2
  [answer] = messages(agent)
  assert answer.server_time == DatabaseClock.now(clock, moment)


async def test_heartbeats_outlast_an_outage(
  database: Database, postgres: Postgres, dsn: str
) -> None:
  sessions = Sessions()
  agent = await join(database, sessions)
  presence = make_presence(database)
  name = dsn.split("@/")[1].split("?")[0]
  with trio.fail_after(30):
    async with trio.open_nursery() as nursery:
      await nursery.start(presence.run)
      postgres.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
      postgres.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = '{name}'"
      )
      with capture_logs() as lines:
        for sent_at in (1.0, 2.0):
          presence.submit(agent, HeartbeatRequest(sent_at=sent_at))
        while not lines:
          await trio.lowlevel.checkpoint()
      assert lines[0]["event"] == "presence_waits_for_database"
      assert messages(agent) == []
      postgres.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
      await agent.wakeup.wait()
      assert [answer.sent_at for answer in messages(agent)] == [1.0, 2.0]
      nursery.cancel_scope.cancel()
