"""What operators want of an agent is done with its session."""

from hetuflow.protocol.model import AgentOrder
from hetuflow.server.session import Session
from hetuflow.storage.orders import Order

__all__ = ["obey"]

KICKED = 4002
NOTHING = Order()


def obey(session: Session, order: Order | None) -> None:
  """Do what is wanted and not yet done; doing it again is harmless.

  Args:
    session: of the agent.
    order: what is wanted by now; None means nothing.
  """
  order = order or NOTHING
  if order.drained and not session.drained:
    session.drain()
  if session.drained and not order.drained:
    session.resume()
  if session.obeyed:
    return
  match order.kind:
    case AgentOrder.DISCONNECT:
      session.obeyed = True
      session.close(KICKED, "disconnected by an operator")
    case AgentOrder.SHUTDOWN:
      session.obeyed = True
      session.shut_down()
