"""The live record of one supervised child: mutable, owned by its supervisor alone."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio

from hetuflow.nursery.spec import Child
from hetuflow.nursery.state import Kind, NodeState, Status, describe

__all__ = ["Clock", "Node", "Readiness"]

Clock = Callable[[], float]


class Readiness(trio.TaskStatus[Any]):
  """The ``task_status`` handed to a child: calls back once, when it is ready."""

  def __init__(self, on_started: Callable[[Any], None]) -> None:
    self._on_started = on_started
    self.called = False

  def started(self, value: Any = None) -> None:
    """Report the child as ready; a second call is a bug of the child."""
    if self.called:
      raise RuntimeError("task_status.started() was called twice")
    self.called = True
    self._on_started(value)


class Node:
  """What a supervisor knows of one child.

  ``alive``: a keeper runs for it. ``ready``: it called ``started()`` and runs.
  ``over``: it ended for good by itself. ``stopping``: it was asked to end.

  Args:
    child: its declaration; of a nested group one made by the supervisor.
    kind: child or group.
    below: gives the states shown below it.
    now: seconds since the epoch.
  """

  def __init__(
    self,
    child: Child,
    *,
    kind: Kind = Kind.CHILD,
    below: Callable[[], tuple[NodeState, ...]] | None = None,
    now: Clock = time.time,
  ) -> None:
    self.child = child
    self.kind = kind
    self._below = below or (lambda: tuple(inner.state() for inner in child.inner))
    self._now = now
    self.reset()

  def reset(self) -> None:
    """Forget everything: the group begins anew."""
    self.restarts = 0
    self.last_error: str | None = None
    self.alive = self.ready = self.over = self.stopping = False
    self._crashes: deque[float] = deque()
    self.revive()
    self.alive = False
    self.enter(Status.STOPPED)

  def revive(self) -> None:
    """Make the record fit for a new keeper."""
    self.alive, self.stopping = True, False
    self.ended = trio.Event()
    self.scope = trio.CancelScope()
    self.drain_scope = trio.CancelScope()

  def note_gone(self) -> None:
    """Book that the keeper has ended; nobody needs to drain it any more."""
    self.alive = False
    self.ended.set()
    self.drain_scope.cancel()

  def enter(self, status: Status) -> None:
    """Change the status and remember when."""
    self.status = status
    self.since = self._now()

  def cancel(self) -> None:
    """Ask it to end now, drained or not."""
    self.stopping = True
    self.scope.cancel()
    self.drain_scope.cancel()

  @property
  def drainable(self) -> bool:
    """Whether it runs; a group still starting has children that run."""
    if self.stopping:
      return False
    starting = self.kind is Kind.GROUP and self.status is Status.STARTING
    return starting or self.status is Status.RUNNING

  @contextmanager
  def guarded(self, *, shield: bool) -> Iterator[None]:
    """Run a block that ``cancel()`` ends."""
    with trio.CancelScope(shield=shield) as self.scope:
      yield

  def note_end(self, error: Exception | None, *, at: float) -> int:
    """Count an end that calls for a restart.

    Args:
      error: the crash; None if it returned.
      at: trio time in seconds.

    Returns:
      How many there were within the restart policy's period, this one included.
    """
    if error is not None:
      self.last_error = describe(error)
    self._crashes.append(at)
    while self._crashes[0] <= at - self.child.restart.period:
      self._crashes.popleft()
    return len(self._crashes)

  def state(self) -> NodeState:
    """Return a snapshot."""
    below = self._below()
    return NodeState(
      name=self.child.name,
      kind=self.kind,
      status=self.status,
      restarts=self.restarts,
      since=self.since,
      last_error=self.last_error,
      count=len(below),
      children=below,
    )
