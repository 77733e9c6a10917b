"""Liveness: the lease renewed, the clock corrected, a dead connection noticed.

Who runs it: two children of the agent's tree share one ``Exchanges``: ``heartbeat``
keeps the rhythm the server asked for, ``clock`` adds a few quick exchanges when a session
opens or the clock has become uncertain. When no answer comes for two intervals the
connection is half open: the session is ended, and the connection makes a new one.
"""

import structlog
import trio
from attrs import field, frozen

from hetuflow.agent.link.link import Link, Session
from hetuflow.agent.monitor import Monitor
from hetuflow.agent.timing.clock import Anchor, DisciplinedClock, Lease
from hetuflow.protocol.messages import (
  Envelope,
  HeartbeatRequest,
  HeartbeatResponse,
  MessageKind,
)
from hetuflow.protocol.model import AgentCapabilities

__all__ = ["ClockKeeper", "Exchanges", "Heartbeat"]

BURST = 4
BURST_GAP_SECONDS = 0.02
CHECK_SECONDS = 1.0
UNCERTAIN_MS = 20.0
MISSED_INTERVALS = 2

_log = structlog.get_logger()


@frozen
class _Question:
  """A heartbeat under way: when it was asked, and that it was answered."""

  anchor: Anchor
  local: float
  answered: trio.Event = field(factory=trio.Event)


class Exchanges:
  """Heartbeats asked and answered: each renews the lease and corrects the clock.

  Args:
    clock: corrected by each answer.
    lease: renewed by each answer, from when the question was asked.
    monitor: tells how the agent fares.
  """

  def __init__(
    self, *, clock: DisciplinedClock, lease: Lease, monitor: Monitor
  ) -> None:
    self._clock = clock
    self._lease = lease
    self._monitor = monitor
    self._open: dict[float, _Question] = {}
    self._told: tuple[Session, AgentCapabilities] | None = None

  async def exchange_once(self, session: Session) -> None:
    """Ask once and wait for the answer; without one the session is ended."""
    patience = MISSED_INTERVALS * session.config.heartbeat_interval
    with trio.move_on_after(patience) as limit:
      await self._exchange(session)
    if limit.cancelled_caught:
      _log.warning("heartbeat_unanswered", seconds=patience)
      session.end()

  def note_response(self, envelope: Envelope) -> None:
    """Take in an answer; called as soon as it is read."""
    received = self._clock.local()
    answer: HeartbeatResponse = envelope.payload
    question = self._open.get(answer.sent_at)
    if question is None:
      return
    self._lease.renew(answer.session_lease, question.anchor)
    self._clock.observe(
      t_sent=question.local,
      t_server=answer.server_time.timestamp(),
      t_received=received,
      error=answer.clock_error,
    )
    question.answered.set()

  async def _exchange(self, session: Session) -> None:
    """Send a question and wait until ``note_response`` has seen its answer."""
    news = self._news(session)
    metrics, offset = self._monitor.metrics(), self._clock.offset_ms
    question = _Question(self._lease.anchor(), self._clock.local())
    sent_at = question.anchor.monotonic
    self._open[sent_at] = question
    try:
      request = HeartbeatRequest(
        sent_at=sent_at,
        metrics=metrics,
        clock_offset_ms=round(offset, 3) if self._clock.synchronised else None,
        capabilities=news,
      )
      await session.send(MessageKind.HEARTBEAT_REQUEST, request)
      await question.answered.wait()
    finally:
      del self._open[sent_at]

  def _news(self, session: Session) -> AgentCapabilities | None:
    """Return the capabilities if they are not what this session was told last."""
    now = self._monitor.capabilities()
    told, self._told = self._told, (session, now)
    # Registration has just told a new session.
    return now if told is not None and told[0] is session and told[1] != now else None


class Heartbeat:
  """Asks in the rhythm the server wants.

  Args:
    link: where the session is.
    exchanges: ask and answer.
  """

  def __init__(self, *, link: Link, exchanges: Exchanges) -> None:
    self._link = link
    self._exchanges = exchanges

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Beat in every session, for ever."""
    task_status.started()
    await self._link.each_session(self._serve)

  async def _serve(self, session: Session) -> None:
    """Beat until the session ends; the rhythm holds though answers take their time."""
    interval = session.config.heartbeat_interval
    beat_at = trio.current_time()
    while True:
      await self._exchanges.exchange_once(session)
      beat_at = max(beat_at + interval, trio.current_time())
      await trio.sleep_until(beat_at)


class ClockKeeper:
  """Keeps the clock close to database time.

  Args:
    link: where the session is.
    exchanges: ask and answer.
    clock: the clock.
  """

  def __init__(
    self, *, link: Link, exchanges: Exchanges, clock: DisciplinedClock
  ) -> None:
    self._link = link
    self._exchanges = exchanges
    self._clock = clock

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Correct the clock in every session, for ever."""
    task_status.started()
    await self._link.each_session(self._serve)

  async def _serve(self, session: Session) -> None:
    """Correct the clock at once, and again whenever it has become uncertain."""
    best = await self.correct_once(session)
    while True:
      await trio.sleep(CHECK_SECONDS)
      # On a slow line the error cannot get small: asking more would not help.
      if self._clock.error_ms > max(UNCERTAIN_MS, 2 * best):
        best = await self.correct_once(session)

  async def correct_once(self, session: Session) -> float:
    """Ask a few times in a row; return the bound of the clock's error in ms."""
    for _ in range(BURST):
      await self._exchanges.exchange_once(session)
      await trio.sleep(BURST_GAP_SECONDS)
    error = self._clock.error_ms
    _log.info(
      "clock_corrected",
      offset_ms=round(self._clock.offset_ms, 3),
      error_ms=round(error, 3),
    )
    return error
