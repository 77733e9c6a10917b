"""How a session begins: an agent says who it is and what it holds, and is let in."""

import attrs
import structlog
import trio

from hetuflow.errors import ProtocolError, Refused
from hetuflow.protocol.messages import (
  PROTOCOL_VERSION,
  AgentConfig,
  AgentRegisterRequest,
  AgentRegisterResponse,
  Envelope,
  HeldClaim,
  MessageKind,
)
from hetuflow.protocol.model import NamespaceId
from hetuflow.protocol.model.ids import ALL_NAMESPACES
from hetuflow.server.gateway.door import (
  MAX_INVALID,
  Doorkeeper,
  Ended,
  Socket,
  complain,
  decode_frame,
  refuse,
)
from hetuflow.server.session import Session
from hetuflow.storage.access import TokenGrant
from hetuflow.storage.registration import Registration, register_agent

__all__ = ["register"]

REGISTER_TIMEOUT = 10.0
"""Seconds a connection has to say who it is."""
CLOSE_CODES = {"superseded": 4003}
"""The codes that tell an agent more than that it is refused (1008)."""

_log = structlog.get_logger()


async def register(door: Doorkeeper, socket: Socket, grant: TokenGrant) -> Session:
  """Hear who it is, open its session and tell it so.

  Args:
    door: what the server's connections share.
    socket: the accepted WebSocket.
    grant: where the agent's token lets it in.

  Raises:
    Ended: it did not say, or is refused.
  """
  with trio.move_on_after(REGISTER_TIMEOUT) as limit:
    envelope, held = await _introduction(door, socket)
  if limit.cancelled_caught:
    raise Ended(1008, "no registration in time")
  request: AgentRegisterRequest = attrs.evolve(envelope.payload, held=held)
  try:
    _check(request, grant.namespace_ids)
    async with door.sessions.entering(request.agent_id):
      session = await _open_session(door, request, grant)
      door.sessions.add(session)
  except Refused as error:
    await refuse(socket, envelope.message_id, error.code, str(error))
    raise Ended(CLOSE_CODES.get(error.code, 1008), str(error)) from None
  return session


async def _open_session(
  door: Doorkeeper, request: AgentRegisterRequest, grant: TokenGrant
) -> Session:
  """Enter the session in the database and prepare the answer.

  Raises:
    Refused: the database does not let it in.
  """
  session = Session(
    agent_id=request.agent_id,
    name=request.name,
    epoch=request.epoch,
    # Named twice, a namespace would be claimed for twice.
    namespace_ids=list(dict.fromkeys(request.namespace_ids)),
    labels=request.labels,
    capabilities=request.capabilities,
    compression=request.compression and door.compression,
    token_id=grant.id,
  )
  registration = await register_agent(
    door.database,
    request,
    session_id=session.id,
    server_id=door.server_id,
    lease=door.session_lease,
    allowed=grant.namespace_ids,
  )
  session.labels = registration.labels
  session.send(
    MessageKind.AGENT_REGISTER_RESPONSE, _answer(door, session, registration)
  )
  if registration.drained:
    session.drain()
  _log.info(
    "agent_connected",
    agent=session.name,
    agent_id=str(session.agent_id),
    epoch=session.epoch,
    held=len(request.held),
    released=registration.released,
    found=registration.found,
    superseded=len(registration.superseded),
  )
  return session


def _answer(
  door: Doorkeeper, session: Session, registration: Registration
) -> AgentRegisterResponse:
  """Say how this server wants to be spoken to, and which claims are not the agent's."""
  return AgentRegisterResponse(
    session_id=session.id,
    server_id=door.server_id,
    server_time=registration.server_time,
    config=AgentConfig(
      heartbeat_interval=door.heartbeat_interval,
      session_lease=door.session_lease,
      max_message_size=door.max_message_size,
      compression=session.compression,
    ),
    superseded=registration.superseded,
  )


async def _introduction(
  door: Doorkeeper, socket: Socket
) -> tuple[Envelope, list[HeldClaim]]:
  """Receive a registration that may come in parts: the last one, and all claims."""
  held: list[HeldClaim] = []
  while True:
    envelope = await _next_part(door, socket)
    held += envelope.payload.held
    if not envelope.payload.more:
      return envelope, held


async def _next_part(door: Doorkeeper, socket: Socket) -> Envelope:
  """Receive one message of a registration, with some patience for invalid frames."""
  for _ in range(MAX_INVALID):
    frame = await socket.receive()
    try:
      envelope = decode_frame(frame, door.max_message_size, compression=False)
    except ProtocolError as error:
      await complain(socket, error)
      continue
    if envelope.message_kind is not MessageKind.AGENT_REGISTER_REQUEST:
      await refuse(
        socket, envelope.message_id, "not_registered", "expected agent_register_request"
      )
      raise Ended(1008, "the first message must be agent_register_request")
    return envelope
  raise Ended(1008, "invalid messages")


def _check(request: AgentRegisterRequest, allowed: list[NamespaceId]) -> None:
  """Refuse a version we do not speak and namespaces the token is not good for."""
  if request.protocol_version != PROTOCOL_VERSION:
    raise Refused(
      f"this server speaks protocol version {PROTOCOL_VERSION},"
      f" the agent {request.protocol_version}; upgrade the older one",
      code="unsupported_version",
    )
  wrong = (
    set() if ALL_NAMESPACES in allowed else set(request.namespace_ids) - set(allowed)
  )
  if wrong:
    raise Refused(
      f"the token is not good for namespace {', '.join(sorted(wrong))}",
      code="forbidden_namespace",
    )
