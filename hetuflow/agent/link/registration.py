"""How this agent introduces itself, and what it makes of the answer.

Who runs it: the connection, at the beginning of each session, before any other part may
use it. The server's time and lease in the answer count from when the request was made.
"""

from collections.abc import Callable
from uuid import UUID

import attrs
import structlog
from trio_websocket import WebSocketConnection

import hetuflow
from hetuflow.agent.config import AgentConfig
from hetuflow.agent.instances import Instances
from hetuflow.agent.journal import Journal
from hetuflow.agent.link.link import Session
from hetuflow.agent.monitor import Monitor
from hetuflow.agent.timing.clock import DisciplinedClock, Lease
from hetuflow.errors import ProtocolError, Refused
from hetuflow.protocol import wire
from hetuflow.protocol.messages import (
  PROTOCOL_VERSION,
  AgentRegisterRequest,
  AgentRegisterResponse,
  ErrorMessage,
  MessageKind,
)
from hetuflow.protocol.model import AgentId, InstanceId, NamespaceId

__all__ = ["Registration"]

FOR_GOOD = frozenset(
  {"unsupported_version", "unknown_namespace", "forbidden_namespace"}
)

HELD_AT_ONCE = 4_000
"""Claims named in one message: they take 750 KiB at most, and a server takes 1 MiB."""

_log = structlog.get_logger()


class Registration:
  """Registers the agent on a fresh connection.

  Args:
    config: the agent's settings.
    journal: knows who we are and how often we started.
    instances: what we still have in our hands.
    monitor: tells what we can do.
    clock: learns the server's time.
    lease: renewed by each registration.
    supersede: told which claims are no longer ours.
  """

  def __init__(
    self,
    *,
    config: AgentConfig,
    journal: Journal,
    instances: Instances,
    monitor: Monitor,
    clock: DisciplinedClock,
    lease: Lease,
    supersede: Callable[[list[InstanceId]], None],
  ) -> None:
    self._config = config
    self._journal = journal
    self._instances = instances
    self._monitor = monitor
    self._clock = clock
    self._lease = lease
    self._supersede = supersede
    self._number = 0

  async def register(self, socket: WebSocketConnection) -> Session:
    """Introduce ourselves and return the session.

    Raises:
      Refused: the server does not want this agent, and why.
      ConnectionClosed: the server closed the connection instead.
    """
    anchor, sent = self._lease.anchor(), self._clock.local()
    for request in self.requests():
      frame = wire.encode_envelope(MessageKind.AGENT_REGISTER_REQUEST, request)
      await socket.send_message(frame.decode())
    answer = await self._answer(socket)
    config = answer.config
    self._clock.observe(
      t_sent=sent,
      t_server=answer.server_time.timestamp(),
      t_received=self._clock.local(),
    )
    self._lease.renew(config.session_lease, anchor)
    if answer.superseded:
      self._supersede(answer.superseded)
    return Session(socket, config)

  def requests(self) -> list[AgentRegisterRequest]:
    """Make the introduction, in as many parts as its claims take."""
    held = self._instances.claims()
    parts = [
      held[start : start + HELD_AT_ONCE]
      for start in range(0, max(1, len(held)), HELD_AT_ONCE)
    ]
    request = self._request()
    return [
      *(attrs.evolve(request, held=part, more=True) for part in parts[:-1]),
      attrs.evolve(request, held=parts[-1]),
    ]

  def _request(self) -> AgentRegisterRequest:
    """Say who we are, numbered so that one that is late does not overtake."""
    settings = self._config.agent
    self._number += 1
    return AgentRegisterRequest(
      protocol_version=PROTOCOL_VERSION,
      agent_id=AgentId(UUID(self._journal.agent_id)),
      epoch=self._journal.epoch,
      session_number=self._number,
      name=settings.name,
      namespace_ids=[NamespaceId(each) for each in settings.namespaces],
      version=hetuflow.__version__,
      labels=dict(settings.labels),
      capabilities=self._monitor.capabilities(),
      compression=True,
    )

  async def _answer(self, socket: WebSocketConnection) -> AgentRegisterResponse:
    """Wait for the answer; an error is followed by a close that says the same."""
    while True:
      frame = await socket.get_message()
      try:
        envelope = wire.decode_envelope(frame)
      except ProtocolError as error:
        _log.warning("message_invalid", problem=str(error))
        continue
      match envelope.payload:
        case AgentRegisterResponse() as answer:
          return answer
        case ErrorMessage(code=code, message=message):
          if code in FOR_GOOD:
            raise Refused(f"the server refuses this agent: {message} ({code})")
          _log.warning("registration_failed", code=code, reason=message)
        case _:
          _log.warning("message_unexpected", kind=envelope.message_kind.value)
