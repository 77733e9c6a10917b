"""One connected agent: what it can take, and the frames on their way to it.

A session is the one live connection of an agent. The gateway opens and closes it; the
poller reads and lowers its budgets; whoever has something to say to the agent calls
``send``. Nothing here awaits: frames wait in the session until its connection takes
them. A dispatch stays in the session's ledger until the agent has acknowledged it.
"""

import math
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import attrs
import trio

from hetuflow.nursery import Wakeup
from hetuflow.protocol import wire
from hetuflow.protocol.messages import (
  AgentCommand,
  AgentCommandKind,
  DispatchedTask,
  DispatchTaskRequest,
  MessageKind,
)
from hetuflow.protocol.model import (
  AgentCapabilities,
  AgentId,
  AgentMetrics,
  Connection,
  NamespaceId,
  new_id,
)
from hetuflow.server.traffic import Traffic
from hetuflow.storage.routes import Route

__all__ = ["Session", "Unacknowledged"]

MAX_WAITING_FRAMES = 2_000
"""Frames an agent may leave unread before its session is given up."""
ACK_TIMEOUT = 5.0
"""Seconds to wait for the first acknowledgement; doubled with each repetition."""
MAX_FRAME = 8 * 1024**2
"""Bytes of a batch from which on it is sent as two."""


@attrs.define(kw_only=True)
class Unacknowledged:
  """A message that is sent again until it is acknowledged."""

  message_id: UUID
  kind: MessageKind
  payload: DispatchTaskRequest
  tries: int = 1
  retry_at: float
  sent_at: float = attrs.field(factory=trio.current_time)

  def encode(self) -> bytes:
    """Write it, under the same id each time."""
    return wire.encode_envelope(self.kind, self.payload, message_id=self.message_id)


@attrs.define(kw_only=True, eq=False)
class Session:
  """One connected agent.

  ``run`` and ``hold`` are the places it has granted and not got tasks for; ``routes``
  remembers, per namespace, which routes it satisfies and for which reading of them;
  ``token_id`` is that of the token it was let in by; ``heard_at`` is when it last gave a
  sign of life, on Trio's clock. ``drained`` is that operators want it to take nothing new,
  ``obeyed`` that it was told the one thing that this session was to be told.
  """

  agent_id: AgentId
  name: str
  epoch: int
  namespace_ids: list[NamespaceId]
  labels: dict[str, str]
  capabilities: AgentCapabilities
  compression: bool = False
  token_id: UUID | None = None
  id: UUID = attrs.field(factory=new_id)
  connected_at: datetime = attrs.field(factory=lambda: datetime.now(UTC))
  heard_at: float = attrs.field(factory=trio.current_time)
  dispatched_at: float = attrs.field(factory=time.monotonic)
  metrics: AgentMetrics = attrs.field(factory=AgentMetrics)
  at_rest: bool = False
  run: int = 0
  hold: int = 0
  routes: dict[NamespaceId, tuple[dict[int, Route], tuple[int, ...]]] = attrs.field(
    factory=dict
  )
  draining: bool = False
  unacknowledged: dict[UUID, Unacknowledged] = attrs.field(factory=dict)
  frames: deque[bytes] = attrs.field(factory=deque)
  wakeup: Wakeup = attrs.field(factory=Wakeup)
  closing: tuple[int, str] | None = None
  closed: trio.Event = attrs.field(factory=trio.Event)
  drained: bool = False
  obeyed: bool = False
  struck_off: bool = False
  ack_seconds: float | None = None
  traffic: Traffic = attrs.field(factory=Traffic)

  @property
  def leaves(self) -> bool:
    """Whether it takes nothing new: it drains, or its connection ends."""
    return self.draining or self.struck_off or self.closing is not None

  def grant(self, run: int, hold: int) -> None:
    """Add to the budgets what the agent offers; one that has to go gets nothing more."""
    if self.closing is not None or self.drained:
      return
    self.draining = False
    self.run += run
    self.hold += hold

  def withdraw(self) -> None:
    """Take back the budgets: the agent drains."""
    self.draining = True
    self.run = self.hold = 0

  def drain(self) -> None:
    """Let the agent take nothing new, as operators want it, and tell it so."""
    self.drained = True
    self.withdraw()
    self._command(AgentCommandKind.DRAIN, "drained by an operator")

  def resume(self) -> None:
    """Let the agent take work again; it grants anew."""
    self.drained = False
    self._command(AgentCommandKind.RESUME, "resumed by an operator")

  def shut_down(self) -> None:
    """Ask the agent to end once what it runs has ended."""
    self._command(AgentCommandKind.SHUTDOWN, "shut down by an operator")

  def _command(self, kind: AgentCommandKind, why: str) -> None:
    """Ask the agent to do something with itself."""
    command = AgentCommand(command=kind, reason=why)
    self.send(MessageKind.AGENT_COMMAND, command)

  def send(self, kind: MessageKind, payload: object) -> None:
    """Put a message on its way; an agent that does not read is disconnected."""
    self.traffic.sent[kind] += 1
    self._enqueue(wire.encode_envelope(kind, payload))

  def dispatch(self, payload: DispatchTaskRequest) -> None:
    """Send claimed tasks, again and again until the agent has acknowledged them.

    A batch larger than a frame may be goes in parts.
    """
    message = Unacknowledged(
      message_id=new_id(),
      kind=MessageKind.DISPATCH_TASK_REQUEST,
      payload=payload,
      retry_at=trio.current_time() + ACK_TIMEOUT,
    )
    frame = message.encode()
    middle = len(payload.tasks) // 2
    if len(frame) > MAX_FRAME and middle:
      self.dispatch(_part(payload, payload.tasks[:middle]))
      self.dispatch(_part(payload, payload.tasks[middle:]))
      return
    self.unacknowledged[message.message_id] = message
    self.traffic.sent[message.kind] += 1
    self.at_rest, self.dispatched_at = False, time.monotonic()
    self._enqueue(frame)

  def learn(self, metrics: AgentMetrics, at: float) -> None:
    """Take over how the agent fares; ``at`` is when it came, by ``time.monotonic()``.

    An agent is at rest that says that it has nothing and was sent nothing since.
    """
    self.metrics = metrics
    has_nothing = not (metrics.running or metrics.held or self.unacknowledged)
    self.at_rest = has_nothing and at > self.dispatched_at

  def acknowledge(self, message_id: UUID) -> None:
    """Strike a message off; one that is not known is a repetition."""
    message = self.unacknowledged.pop(message_id, None)
    if message is not None:
      self.ack_seconds = trio.current_time() - message.sent_at

  def repeat_overdue(self, limit: int) -> Unacknowledged | None:
    """Send overdue messages again.

    Args:
      limit: how often a message is repeated.

    Returns:
      The first one that has been repeated often enough, if there is one.
    """
    now = trio.current_time()
    for message in self.unacknowledged.values():
      if message.retry_at > now:
        continue
      if message.tries > limit:
        return message
      message.retry_at = now + ACK_TIMEOUT * 2**message.tries
      message.tries += 1
      self._enqueue(message.encode())
    return None

  def next_retry_at(self) -> float:
    """Return when the next repetition is due on Trio's clock, or infinity."""
    return min(
      (message.retry_at for message in self.unacknowledged.values()), default=math.inf
    )

  def close(self, code: int, reason: str) -> None:
    """Ask for the end of the connection; the first reason stands."""
    if self.closing is None:
      self.closing = (code, reason)
    self.run = self.hold = 0
    self.closed.set()
    self.wakeup.set()

  def describe(self) -> Connection:
    """Return what ``GET /gateway/connections`` shows."""
    return Connection(
      session_id=self.id,
      agent_id=self.agent_id,
      name=self.name,
      namespace_ids=self.namespace_ids,
      epoch=self.epoch,
      compression=self.compression,
      draining=self.draining or self.drained,
      connected_at=self.connected_at,
      silence=trio.current_time() - self.heard_at,
      ack_ms=None if self.ack_seconds is None else self.ack_seconds * 1000,
      run=self.run,
      hold=self.hold,
      unacknowledged=len(self.unacknowledged),
      waiting_frames=len(self.frames),
      **attrs.asdict(self.traffic),
    )

  def _enqueue(self, frame: bytes) -> None:
    """Append a frame, unless the agent has stopped reading."""
    if len(self.frames) >= MAX_WAITING_FRAMES:
      self.close(1008, "the agent does not read")
      return
    self.frames.append(frame)
    self.wakeup.set()


def _part(
  whole: DispatchTaskRequest, tasks: Sequence[DispatchedTask]
) -> DispatchTaskRequest:
  """Make a batch of some tasks, with the configurations that they name."""
  names = {task.config for task in tasks}
  return DispatchTaskRequest(
    configs={name: config for name, config in whole.configs.items() if name in names},
    tasks=list(tasks),
  )
