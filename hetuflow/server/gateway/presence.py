"""Heartbeats of all sessions become one statement, and renew their leases.

Run by: one child of each server. Owns the heartbeats that have arrived and are not
written. An agent gets its answer, and with it its lease, only after the database has
committed; while the database is away nobody's lease is renewed. A session that the
database no longer knows as the live one of its agent is closed: another took its place.
"""

import time

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
from hetuflow.server.sessions import Session
from hetuflow.storage.agents import Heartbeat, renew_sessions
from hetuflow.storage.connect import Database

__all__ = ["Presence"]

GATHER = 0.02
"""Seconds to wait for more heartbeats once there are several sessions."""


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
    lease: seconds for which a heartbeat is good.
  """

  def __init__(self, database: Database, clock: DatabaseClock, *, lease: float) -> None:
    self._database = database
    self._clock = clock
    self._lease = lease
    self._beats: dict[Session, _Beat] = {}
    self._wakeup = Wakeup()
    self._outage = Outage(Unavailable, event="presence_waits_for_database")

  def submit(self, session: Session, request: HeartbeatRequest) -> None:
    """Take a heartbeat; it is answered once it is committed."""
    self._beats[session] = _Beat(
      session=session, request=request, received_at=time.monotonic()
    )
    self._wakeup.set()

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Write heartbeats for ever."""
    task_status.started()
    many = False
    while True:
      await self._wakeup.wait()
      if many:
        await trio.sleep(GATHER)
      many = await self._outage.retry(self.renew_once) > 1

  async def renew_once(self) -> int:
    """Write what has arrived in one statement and answer it; return how many."""
    beats = list(self._beats.values())
    if not beats:
      return 0
    renewed = await renew_sessions(
      self._database,
      [
        Heartbeat(
          agent_id=beat.session.agent_id,
          session_id=beat.session.id,
          status=_status(beat),
          request=beat.request,
        )
        for beat in beats
      ],
      lease=self._lease,
    )
    for beat in beats:
      if self._beats.get(beat.session) is beat:
        del self._beats[beat.session]
      if beat.session.id in renewed:
        self._answer(beat)
      else:
        beat.session.close(4003, "replaced by a newer session")
    return len(beats)

  def _answer(self, beat: _Beat) -> None:
    """Answer a heartbeat with the database's time of the middle of its handling.

    The agent takes the answer for the middle of its round trip; how long the statement
    took would otherwise pass for a difference of the clocks.
    """
    beat.session.metrics = beat.request.metrics
    if beat.request.capabilities is not None:
      beat.session.capabilities = beat.request.capabilities
      beat.session.routes.clear()
    middle = (beat.received_at + time.monotonic()) / 2
    beat.session.send(
      MessageKind.HEARTBEAT_RESPONSE,
      HeartbeatResponse(
        sent_at=beat.request.sent_at,
        server_time=self._clock.now(middle),
        session_lease=self._lease,
      ),
    )


def _status(beat: _Beat) -> AgentStatus:
  """Tell an agent's status from what it says of itself."""
  if beat.session.draining:
    return AgentStatus.DRAINING
  busy = beat.request.metrics.running >= beat.session.capabilities.max_concurrent
  return AgentStatus.BUSY if busy else AgentStatus.ONLINE
