"""Reports of one kind on their way to the server: waiting, in flight, acknowledged.

Who runs it: the outbox owns two lanes and runs ``pump`` of each in every session; the
rest are plain calls of the Trio thread. When the session ends the pump is cancelled, and
what is in flight is sent again in the next one. A message once made keeps its id and its
content until it is acknowledged, so that one sent again is recognised. Across sessions
messages keep the order they were made in.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from uuid import UUID

import msgspec
import structlog
import trio
from attrs import define

from hetuflow.agent.link.link import Session
from hetuflow.nursery import Wakeup
from hetuflow.protocol.messages import MessageKind
from hetuflow.protocol.model import new_id

__all__ = ["Flight", "Lane", "Report"]

MAX_REPORTS = 500
MAX_BYTES = 512 * 1024
"""Of one message; servers may want less."""
MAX_FLIGHTS = 4
GATHER_SECONDS = 0.005
RESEND_SECONDS = 5.0
RESEND_MAX_SECONDS = 60.0
WARN_SENDS = 5
TAIL = b"]}"

_log = structlog.get_logger()


@define(eq=False, kw_only=True)
class Report:
  """One element of a batch.

  Args:
    instance_id: whom it is about.
    key: the same as the journal writes it.
    body: its JSON.
    size: bytes of memory it stands for.
    seq: its number in the journal, 0 while it is in memory only.
    final: whether it ends the attempt.
    void: whether it need not be sent any more.
    done: whether it was acknowledged.
  """

  instance_id: UUID
  key: str
  body: bytes
  size: int = 0
  seq: int = 0
  final: bool = False
  void: bool = False
  done: bool = False


@define(eq=False, kw_only=True)
class Flight:
  """One message that waits for its ack."""

  message_id: UUID
  reports: list[Report]
  payload: msgspec.Raw
  sends: int = 0
  resend_at: float = 0.0


class Lane:
  """The reports of one kind.

  Args:
    kind: of the messages.
    list_name: of the payload's only field.
  """

  def __init__(self, kind: MessageKind, list_name: str) -> None:
    self.kind = kind
    self.wakeup = Wakeup()
    self.waiting: deque[Report] = deque()
    self.flights: dict[UUID, Flight] = {}
    self._head = f'{{"{list_name}":['.encode()

  def __len__(self) -> int:
    return len(self.waiting) + sum(len(each.reports) for each in self.flights.values())

  def add(self, report: Report) -> None:
    """Let a report wait for the next message."""
    self.waiting.append(report)
    self.wakeup.set()

  @property
  def may_take(self) -> bool:
    """Whether there is something to send, and few enough messages are in flight."""
    return bool(self.waiting) and len(self.flights) < MAX_FLIGHTS

  @property
  def has_batch(self) -> bool:
    """Whether waiting for more reports would not make the next message larger."""
    return len(self.waiting) >= MAX_REPORTS

  def take(self, max_bytes: int = MAX_BYTES) -> Flight | None:
    """Make the next message of what waits; None if nothing does.

    Args:
      max_bytes: how large it may become; a report that is larger goes alone.
    """
    reports: list[Report] = []
    size = len(self._head) + len(TAIL)
    while self.waiting and len(reports) < MAX_REPORTS:
      report = self.waiting[0]
      if not report.void:
        size += len(report.body) + 1
        if reports and size > max_bytes:
          break
        reports.append(report)
      self.waiting.popleft()
    if not reports:
      return None
    bodies = b",".join([report.body for report in reports])
    payload = msgspec.Raw(self._head + bodies + TAIL)
    flight = Flight(message_id=new_id(), reports=reports, payload=payload)
    self.flights[flight.message_id] = flight
    return flight

  def land(self, message_id: UUID) -> list[Report] | None:
    """Take an acknowledged message out; None if it is not ours, or was before."""
    flight = self.flights.pop(message_id, None)
    if flight is None:
      return None
    self.wakeup.set()
    return flight.reports

  async def pump(
    self, session: Session, note_sending: Callable[[Sequence[Report]], None]
  ) -> None:
    """Send what waits and repeat what is overdue, until cancelled.

    Args:
      session: the one to use.
      note_sending: told of the reports that are about to be sent for the first time.
    """
    while True:
      while self.may_take:
        if self.flights and not self.has_batch:
          await trio.sleep(GATHER_SECONDS)
        await self.send_once(session, note_sending)
      for flight in self.overdue(trio.current_time()):
        self._warn(flight)
        await self.send(session, flight, trio.current_time())
      await self.wakeup.wait(max(0.0, self.next_resend_at() - trio.current_time()))

  async def send_once(
    self, session: Session, note_sending: Callable[[Sequence[Report]], None]
  ) -> int:
    """Send one message of what waits; return how many reports are in it."""
    flight = self.take(min(MAX_BYTES, session.config.max_message_size // 2))
    if flight is None:
      return 0
    note_sending(flight.reports)
    await self.send(session, flight, trio.current_time())
    return len(flight.reports)

  async def send(self, session: Session, flight: Flight, now: float) -> None:
    """Send a message and note when to send it again."""
    pause = min(RESEND_MAX_SECONDS, RESEND_SECONDS * 2**flight.sends)
    flight.sends += 1
    flight.resend_at = now + pause
    await session.send(self.kind, flight.payload, message_id=flight.message_id)

  async def send_all_again(self, session: Session, now: float) -> None:
    """Send what is in flight anew, to a server that may have seen none of it."""
    for flight in list(self.flights.values()):
      if flight.message_id in self.flights:
        flight.sends = 0
        await self.send(session, flight, now)

  def overdue(self, now: float) -> Iterator[Flight]:
    """Yield the messages whose ack is overdue."""
    return (each for each in list(self.flights.values()) if each.resend_at <= now)

  def _warn(self, flight: Flight) -> None:
    """Say that a message has been sent often and is still not acknowledged."""
    if flight.sends >= WARN_SENDS:
      _log.warning(
        "report_unacknowledged",
        message_id=str(flight.message_id),
        kind=self.kind.value,
        sends=flight.sends,
      )

  def next_resend_at(self) -> float:
    """Return when to look for overdue messages, in trio time; infinite if never."""
    return min((each.resend_at for each in self.flights.values()), default=float("inf"))

  def void(self, instance_id: UUID) -> list[Report]:
    """Let nothing that waits for an attempt be sent; return what that is."""
    voided = [each for each in self.waiting if each.instance_id == instance_id]
    for report in voided:
      report.void = True
    return voided
