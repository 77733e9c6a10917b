"""Asking for work: as much as there are free slots and free places on the wheel.

Who runs it: the last child of the agent's tree, so the first to stop. It owns nothing
but what it has granted in the current session and the server has not used yet. Grants
add up on the server's side; a new session starts from nothing on both sides. A grant the
server never saw is lost with its session. An agent that drains takes its grants back, or
the server would send it what it gives back, again and again.
"""

from collections.abc import Callable

import structlog
import trio

from hetuflow.agent.instances import Instances
from hetuflow.agent.link.link import Link, Session
from hetuflow.protocol.messages import AcquireTaskRequest, MessageKind

__all__ = ["Puller"]

GATHER_SECONDS = 0.002
POLL_SECONDS = 1.0

_log = structlog.get_logger()


class Puller:
  """Grants budgets.

  Args:
    link: where the session is.
    instances: tell what is in use, and when something got free.
    may_take: whether this agent can vouch for more work: clock and journal are well.
    max_concurrent: how many slots there are.
    hold: how many planned tasks are kept.
  """

  def __init__(
    self,
    *,
    link: Link,
    instances: Instances,
    may_take: Callable[[], bool],
    max_concurrent: int,
    hold: int,
  ) -> None:
    self._link = link
    self._instances = instances
    self._may_take = may_take
    self._max_concurrent = max_concurrent
    self._hold = hold
    self._granted_run = 0
    self._granted_hold = 0
    self._paused = False
    self._draining = False
    self._withdrawn = False
    self._resumed = False

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Grant in every session, for ever."""
    task_status.started()
    await self._link.each_session(self._serve)

  async def drain(self) -> None:
    """Grant no more, and take back what was granted."""
    self._draining = True
    if (session := self._link.session) is not None:
      await self.grant_once(session)

  def pause(self) -> None:
    """Grant no more until ``resume``: the server asked for it."""
    _log.info("pulling_paused")
    self._paused = True
    self._instances.freed.set()

  def resume(self) -> None:
    """Grant again, from nothing: what was granted meanwhile nobody took."""
    _log.info("pulling_resumed")
    self._paused = False
    self._resumed = True
    self._instances.freed.set()

  def note_dispatched(self, run: int, hold: int) -> None:
    """Book that the server has used up so much of what it was granted."""
    self._granted_run = max(0, self._granted_run - run)
    self._granted_hold = max(0, self._granted_hold - hold)
    self._instances.freed.set()

  async def grant_once(self, session: Session) -> AcquireTaskRequest | None:
    """Grant what is free now, or take all back once the agent drains.

    Returns:
      What was said, None if there was nothing to say.
    """
    if self._draining or self._paused:
      return await self._withdraw(session)
    if self._resumed:
      self._resumed = False
      await self._withdraw(session)  # unless the pause was long enough for that
    if not self._may_take():
      return None
    instances = self._instances
    run = self._max_concurrent - instances.busy - self._granted_run
    hold = self._hold - instances.held - self._granted_hold
    if run <= 0 and hold <= 0:
      return None
    grant = AcquireTaskRequest(run=max(0, run), hold=max(0, hold))
    self._granted_run += grant.run
    self._granted_hold += grant.hold
    self._withdrawn = False
    await session.send(MessageKind.ACQUIRE_TASK_REQUEST, grant)
    return grant

  async def _withdraw(self, session: Session) -> AcquireTaskRequest | None:
    """Make void what was granted, unless the server knows that already."""
    if self._withdrawn:
      return None
    self._withdrawn = True
    self._granted_run = self._granted_hold = 0
    nothing = AcquireTaskRequest(draining=True)
    await session.send(MessageKind.ACQUIRE_TASK_REQUEST, nothing)
    return nothing

  async def _serve(self, session: Session) -> None:
    """Grant whatever gets free, at once, and then not for 2 ms."""
    self._granted_run = self._granted_hold = 0
    self._withdrawn = False
    while True:
      if await self.grant_once(session) is not None:
        await trio.sleep(GATHER_SECONDS)
      await self._instances.freed.wait(POLL_SECONDS)
