"""What an agent says reaches whoever deals with it."""

import structlog
import trio

from hetuflow.errors import ProtocolError
from hetuflow.protocol import wire
from hetuflow.protocol.messages import (
  Ack,
  AcquireTaskRequest,
  Envelope,
  ErrorMessage,
  HeartbeatRequest,
  TaskInstanceUpdates,
  TaskLog,
)
from hetuflow.protocol.model import NamespaceId
from hetuflow.server.gateway.door import Doorkeeper
from hetuflow.server.scheduling.recorder import Report
from hetuflow.server.session import Session
from hetuflow.storage.logs import LogWrite

__all__ = ["take_message"]

_log = structlog.get_logger()


def take_message(door: Doorkeeper, session: Session, envelope: Envelope) -> None:
  """Hand a message to whoever deals with its kind.

  Args:
    door: who deals with what.
    session: whose message.
    envelope: the message.

  Raises:
    ProtocolError: the message is not one for servers, or speaks of what is not its own.
  """
  match envelope.payload:
    case HeartbeatRequest() as heartbeat:
      session.heard_at = trio.current_time()
      door.presence.submit(session, heartbeat)
    case AcquireTaskRequest(draining=True):
      session.withdraw()
    case AcquireTaskRequest(run=run, hold=hold):
      session.grant(run, min(hold, max(0, door.max_hold - session.hold)))
      door.wake()
    case TaskInstanceUpdates(updates=updates):
      for number, update in enumerate(updates):
        _check_namespace(session, update.namespace_id, f"updates[{number}]")
      door.recorder.submit(
        Report(session=session, message_id=envelope.message_id, updates=updates)
      )
    case TaskLog() as log:
      door.recorder.submit(
        Report(
          session=session, message_id=envelope.message_id, chunks=_chunks(session, log)
        )
      )
    case Ack(message_id=message_id):
      session.acknowledge(message_id)
    case ErrorMessage() as error:
      _log.warning(
        "agent_complained", agent=session.name, path=error.path, error=error.message
      )
    case _:
      raise ProtocolError(
        [("$.message_kind", f"{envelope.message_kind} is not for servers")]
      )


def _chunks(session: Session, log: TaskLog) -> list[tuple[NamespaceId, LogWrite]]:
  """Unpack pieces of output."""
  pieces = []
  for number, chunk in enumerate(log.chunks):
    path = f"chunks[{number}]"
    _check_namespace(session, chunk.namespace_id, path)
    write = LogWrite(
      instance_id=chunk.instance_id,
      claim_token=chunk.claim_token,
      stream=chunk.stream,
      offset=chunk.offset,
      data=wire.decode_data(chunk.data, chunk.encoding, f"$.payload.{path}.data"),
    )
    pieces.append((chunk.namespace_id, write))
  return pieces


def _check_namespace(session: Session, namespace_id: NamespaceId, path: str) -> None:
  """Refuse a report of a namespace the session is not registered for."""
  if namespace_id not in session.namespace_ids:
    raise ProtocolError(
      [(f"$.payload.{path}.namespace_id", "the session is not registered for it")]
    )
