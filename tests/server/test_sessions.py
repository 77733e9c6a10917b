"""The connected agents, and the ledger of what they have not acknowledged."""

import math
from typing import Any
from uuid import UUID

import trio
import trio.testing
from trio.testing import MockClock

from hetuflow.protocol import wire
from hetuflow.protocol.messages import (
  AgentCommand,
  AgentCommandKind,
  DispatchTaskRequest,
  MessageKind,
)
from hetuflow.protocol.model import AgentCapabilities, AgentId, NamespaceId, new_id
from hetuflow.server.session import ACK_TIMEOUT, MAX_WAITING_FRAMES, Session
from hetuflow.server.sessions import Sessions

EMPTY = DispatchTaskRequest(configs={}, tasks=[])
DRAIN = AgentCommand(command=AgentCommandKind.DRAIN)


def make_session(**more: Any) -> Session:
  """Make a session with a name and nothing else."""
  fields: dict[str, Any] = {
    "agent_id": AgentId(new_id()),
    "name": "agent",
    "epoch": 1,
    "namespace_ids": [NamespaceId("default")],
    "labels": {},
    "capabilities": AgentCapabilities(executors=["process"]),
  }
  return Session(**(fields | more))


def sent(session: Session) -> list[UUID]:
  """Take the ids of the messages that wait for an agent."""
  ids = [wire.decode_envelope(frame).message_id for frame in session.frames]
  session.frames.clear()
  return ids


async def test_a_batch_is_repeated_with_growing_delays_until_the_limit(
  mock_clock: MockClock,
) -> None:
  session = make_session()
  session.dispatch(EMPTY)
  [first] = sent(session)
  delays = []
  for _ in range(3):
    before = trio.current_time()
    delays.append(session.next_retry_at() - before)
    mock_clock.jump(delays[-1] - 0.01)
    assert session.repeat_overdue(3) is None
    assert sent(session) == []
    mock_clock.jump(0.02)
    assert session.repeat_overdue(3) is None
    assert sent(session) == [first]
  assert [round(delay / ACK_TIMEOUT) for delay in delays] == [1, 2, 4]
  mock_clock.jump(session.next_retry_at() - trio.current_time() + 0.01)
  given_up = session.repeat_overdue(3)
  assert given_up is not None
  assert (given_up.message_id, given_up.tries) == (first, 4)
  assert sent(session) == []


async def test_an_acknowledged_batch_is_not_repeated(mock_clock: MockClock) -> None:
  session = make_session()
  session.dispatch(EMPTY)
  session.dispatch(EMPTY)
  first, second = sent(session)
  session.acknowledge(first)
  session.acknowledge(first)
  session.acknowledge(new_id())
  mock_clock.jump(ACK_TIMEOUT + 1)
  session.repeat_overdue(3)
  assert sent(session) == [second]
  session.acknowledge(second)
  assert session.next_retry_at() == math.inf


async def test_an_agent_that_does_not_read_is_given_up() -> None:
  session = make_session()
  for _ in range(MAX_WAITING_FRAMES):
    session.send(MessageKind.AGENT_COMMAND, DRAIN)
  assert session.closing is None
  session.send(MessageKind.AGENT_COMMAND, DRAIN)
  assert session.closing == (1008, "the agent does not read")
  assert len(session.frames) == MAX_WAITING_FRAMES


async def test_the_first_reason_to_close_stands_and_ends_the_budgets() -> None:
  session = make_session()
  session.grant(3, 4)
  session.close(4002, "kicked")
  session.close(1001, "going away")
  assert session.closing == (4002, "kicked")
  assert (session.run, session.hold) == (0, 0)
  assert session.closed.is_set()
  assert await session.wakeup.wait(0)
  # What the agent had offered before it heard of it does not count any more.
  session.grant(3, 4)
  assert (session.run, session.hold) == (0, 0)


async def test_a_newer_session_replaces_the_older_one_of_its_agent() -> None:
  sessions, agent_id = Sessions(), AgentId(new_id())
  older, newer = make_session(agent_id=agent_id), make_session(agent_id=agent_id)
  sessions.add(older)
  sessions.add(newer)
  assert older.closing is not None
  assert older.closing[0] == 4003
  assert newer.closing is None
  sessions.remove(older)
  assert sessions.get(agent_id) is newer
  sessions.remove(newer)
  assert sessions.get(agent_id) is None
  assert (len(sessions), sessions.opened) == (0, 2)


async def test_once_all_are_told_to_go_newcomers_are_too() -> None:
  sessions = Sessions()
  early, late = make_session(), make_session()
  sessions.add(early)
  sessions.close_all(1001, "going away")
  sessions.add(late)
  assert early.closing == late.closing == (1001, "going away")


async def test_waiting_until_nobody_is_connected() -> None:
  sessions = Sessions()
  with trio.fail_after(5):
    await sessions.wait_empty()
    for session in (make_session(), make_session()):
      sessions.add(session)
    async with trio.open_nursery() as nursery:
      nursery.start_soon(sessions.wait_empty)
      await trio.testing.wait_all_tasks_blocked()
      first, second = sessions
      sessions.remove(first)
      await trio.testing.wait_all_tasks_blocked()
      assert nursery.child_tasks
      sessions.remove(second)


async def test_what_was_said_is_counted_also_of_sessions_that_have_ended() -> None:
  sessions = Sessions()
  members = [make_session() for _ in range(3)]
  for member in members:
    sessions.add(member)
    member.send(MessageKind.AGENT_COMMAND, DRAIN)
    member.traffic.note_sent(100)
  sessions.remove(members[0])
  sessions.remove(members[0])
  total = sessions.traffic()
  assert (total.frames_sent, total.bytes_sent) == (3, 300)
  assert total.sent == {"agent_command": 3}


async def test_sessions_are_grouped_by_namespace() -> None:
  sessions = Sessions()
  one = make_session(namespace_ids=[NamespaceId("a"), NamespaceId("b")])
  two = make_session(namespace_ids=[NamespaceId("b"), NamespaceId("c")])
  sessions.add(one)
  sessions.add(two)
  assert sessions.by_namespace() == {"a": [one], "b": [one, two], "c": [two]}
  assert sessions.namespaces() == ["a", "b", "c"]


async def test_the_tree_shows_the_first_sessions_and_counts_all() -> None:
  sessions = Sessions()
  for number in range(60):
    sessions.add(make_session(name=f"agent-{number}"))
  state = sessions.state()
  assert state.count == 60
  assert len(state.children) == 50
  assert state.children[0].name == "agent-0"
