"""Heartbeats of all sessions become one statement, and renew their leases.

Run by: one child of each server. Owns the heartbeats that have arrived and are not
written. An agent gets its answer, and with it its lease, only after the database has
committed; while the database is away nobody's lease is renewed. A session that the
database no longer knows as the live one of its agent is closed: another took its place,
or it was silent for so long that its work was given up; then the agent has to register
again, and say what it has. So is one whose token has been revoked. What operators want of
agents comes back with their heartbeats; a hint that there is something makes it be read at
once.

An agent may send a heartbeat before it has the answer to the one before. The last one is
written, for it says how things are; every one is answered, for an agent that waits for
an answer in vain takes the connection for dead.
"""

import time
from collections import deque

import attrs
import trio

from hetuflow.errors import Unavailable
from hetuflow.nursery import Outage, Wakeup
from hetuflow.protocol.messages import (
  HeartbeatRequest,
  HeartbeatResponse,
  MessageKind,
)
from hetuflow.protocol.states import AgentStatus
from hetuflow.server.clock import DatabaseClock
from hetuflow.server.gateway.orders import obey
from hetuflow.server.session import Session
from hetuflow.server.sessions import Sessions
from hetuflow.storage.agents import Heartbeat, find_expired, renew_sessions
from hetuflow.storage.connect import Database
from hetuflow.storage.orders import list_orders

__all__ = ["Presence"]

GATHER = 0.02
"""Seconds to wait for more heartbeats once there are several sessions."""
MAX_UNANSWERED = 16
"""Heartbeats of one session that may wait; beyond that the oldest gets no answer."""


@attrs.frozen(kw_only=True)
class _Beat:
  """A heartbeat and when it arrived, by ``time.monotonic()``."""

  session: Session
  request: HeartbeatRequest
  received_at: float


class Presence:
  """The one writer of heartbeats of a server.

  Args:
    database: where to write.
    clock: the database's time.
    sessions: the connected agents.
    lease: seconds for which a heartbeat is good.
  """

  def __init__(
    self, database: Database, clock: DatabaseClock, sessions: Sessions, *, lease: float
  ) -> None:
    self._database = database
    self._sessions = sessions
    self._hinted = False
    self._clock = clock
    self._lease = lease
    self._beats: dict[Session, deque[_Beat]] = {}
    self._wakeup = Wakeup()
    self._outage = Outage(Unavailable, event="presence_waits_for_database")

  def submit(self, session: Session, request: HeartbeatRequest) -> None:
    """Take a heartbeat; it is answered once it is committed."""
    waiting = self._beats.setdefault(session, deque(maxlen=MAX_UNANSWERED))
    if request.capabilities is None and waiting:
      # An agent tells them once; the heartbeat that told them may not be written.
      capabilities = waiting[-1].request.capabilities
      request = attrs.evolve(request, capabilities=capabilities)
    waiting.append(
      _Beat(session=session, request=request, received_at=time.monotonic())
    )
    self._wakeup.set()

  def hint(self) -> None:
    """Take a hint that operators want something of agents."""
    self._hinted = True
    self._wakeup.set()

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Write heartbeats for ever."""
    task_status.started()
    many = False
    while True:
      await self._wakeup.wait()
      if self._hinted:
        await self._outage.retry(self.obey_once)
      if many:
        await trio.sleep(GATHER)
      many = await self._outage.retry(self.renew_once) > 1

  async def obey_once(self) -> int:
    """Read what operators want of the connected agents, and see to it.

    Returns:
      Of how many agents something is wanted.
    """
    self._hinted = False
    sessions = {session.id: session for session in self._sessions}
    if not sessions:
      return 0
    orders = await list_orders(
      self._database, [session.agent_id for session in sessions.values()]
    )
    for session in sessions.values():
      obey(session, orders.get(session.id))
    return len(orders)

  async def renew_once(self) -> int:
    """Write what has arrived in one statement and answer it; return of how many."""
    beats = [waiting[-1] for waiting in self._beats.values()]
    if not beats:
      return 0
    live = await renew_sessions(
      self._database,
      [
        Heartbeat(
          agent_id=beat.session.agent_id,
          session_id=beat.session.id,
          token_id=beat.session.token_id,
          status=_status(beat),
          request=beat.request,
        )
        for beat in beats
      ],
      lease=self._lease,
    )
    dead = {b.session.id: b.session.agent_id for b in beats if b.session.id not in live}
    expired = await find_expired(self._database, dead) if dead else set()
    for beat in beats:
      answered = self._take(beat)
      if beat.session.id in expired:
        beat.session.close(4001, "silent for too long")
        continue
      renewal = live.get(beat.session.id)
      if renewal is None:
        beat.session.close(4003, "replaced by a newer session")
        continue
      if not renewal.admitted:
        beat.session.close(1008, "the agent token was revoked")
        continue
      _learn(beat, renewal.labels)
      for each in answered:
        self._answer(each)
      obey(beat.session, renewal.order)
    return len(beats)

  def _take(self, written: _Beat) -> list[_Beat]:
    """Take the heartbeats of a session off the list up to the one that was written."""
    waiting = self._beats[written.session]
    taken = []
    while waiting and waiting[0].received_at <= written.received_at:
      taken.append(waiting.popleft())
    if not waiting:
      del self._beats[written.session]
    return taken

  def _answer(self, beat: _Beat) -> None:
    """Answer a heartbeat with the database's time of the middle of its handling.

    The agent takes the answer for the middle of its round trip; how long the statement
    took would otherwise pass for a difference of the clocks.
    """
    middle = (beat.received_at + time.monotonic()) / 2
    beat.session.send(
      MessageKind.HEARTBEAT_RESPONSE,
      HeartbeatResponse(
        sent_at=beat.request.sent_at,
        server_time=self._clock.now(middle),
        session_lease=self._lease,
        clock_error=self._clock.error,
      ),
    )


def _learn(beat: _Beat, labels: dict[str, str]) -> None:
  """Take over what was written of an agent, and what operators say of it."""
  session, request = beat.session, beat.request
  session.learn(request.metrics, beat.received_at)
  capabilities = request.capabilities or session.capabilities
  if (capabilities, labels) != (session.capabilities, session.labels):
    session.capabilities, session.labels = capabilities, labels
    session.routes.clear()


def _status(beat: _Beat) -> AgentStatus:
  """Tell an agent's status from what it says of itself."""
  if beat.session.draining or beat.session.drained:
    return AgentStatus.DRAINING
  busy = beat.request.metrics.running >= beat.session.capabilities.max_concurrent
  return AgentStatus.BUSY if busy else AgentStatus.ONLINE
