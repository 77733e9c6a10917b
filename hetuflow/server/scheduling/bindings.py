"""Which namespaces this server plans for, as it was last told.

Owned by the registry, which reads it with each sign of life; read by every loop that
plans. What is written on its word is checked by the statement that writes: a binding that
has moved on has another epoch.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from hetuflow.protocol.model import NamespaceId, ServerId

__all__ = ["Bindings"]

_NONE: Mapping[NamespaceId, int] = MappingProxyType({})


class Bindings:
  """The namespaces bound to this server, each with the epoch of its binding.

  ``blocked`` tells whether any task, in whichever namespace, waited for a limit when that
  was last heard: while none does, whoever judges limits need not look.

  Args:
    server_id: this server.
  """

  def __init__(self, server_id: ServerId) -> None:
    self.server_id = server_id
    self.epochs: Mapping[NamespaceId, int] = _NONE
    self.blocked = False
    self._listeners: list[Callable[[], None]] = []

  def tell(self, listener: Callable[[], None]) -> None:
    """Call a function, such as a wake-up's ``set``, whenever something has changed."""
    self._listeners.append(listener)

  def replace(self, epochs: Mapping[NamespaceId, int]) -> bool:
    """Take what holds from now on; tell whether it is something else than before."""
    if dict(epochs) == dict(self.epochs):
      return False
    self.epochs = MappingProxyType(dict(epochs))
    self._announce()
    return True

  def note_blocked(self, blocked: bool) -> None:
    """Take whether any task waits for a limit; the first that does is a change, too."""
    begins = blocked and not self.blocked
    self.blocked = blocked
    if begins:
      self._announce()

  def clear(self) -> None:
    """Plan for nobody any more: nothing has been heard for too long."""
    self.replace(_NONE)

  def _announce(self) -> None:
    """Call whoever wants to know."""
    for listener in self._listeners:
      listener()
