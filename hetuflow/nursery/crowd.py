"""Children that come and go while the program runs: sessions, instances.

Who runs it: the child that owns the crowd opens it around its own work, so the members
never outlive one incarnation of their owner. The crowd owns one nursery. A member that
crashes is logged and gone; nobody else notices. If the owner crashes or is stopped, all
members are cancelled and awaited. With a supervisor's ``fail_fast`` a member's crash
crashes the owner.

Rejected: restarting members by policy. What they stand for (a connection, a process) is
gone with them; whoever lost it, the agent or the ledger, starts a new one.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any

import attrs
import structlog
import trio
from structlog.contextvars import bound_contextvars

from hetuflow.nursery.groups import sole_leaf, split_crash
from hetuflow.nursery.node import Clock, Readiness
from hetuflow.nursery.spec import Outline
from hetuflow.nursery.state import FAIL_FAST, Kind, NodeState, Status, describe

__all__ = ["Crowd"]

MEMBERS_SHOWN = 50

_log = structlog.get_logger()


@attrs.define(kw_only=True)
class _Member:
  """One live member."""

  name: str
  since: float
  status: Status
  scope: trio.CancelScope = attrs.Factory(trio.CancelScope)

  def state(self) -> NodeState:
    """Return a snapshot."""
    return NodeState(
      name=self.name, kind=Kind.MEMBER, status=self.status, since=self.since
    )


class Crowd:
  """The dynamic children of one owner.

  Args:
    name: what one member is, such as ``session``; drawn as ``session*``, and the key
      under which each member's name is bound to its log lines.
    doc: one line for the drawn tree.
    now: seconds since the epoch, for ``state()``.
  """

  def __init__(self, name: str, *, doc: str = "", now: Clock = time.time) -> None:
    self.name = name
    self.doc = doc
    self._now = now
    self._members: dict[str, _Member] = {}
    self._nursery: trio.Nursery | None = None
    self._fail_fast = False
    self._empty = trio.Event()
    self._since = now()
    self._last_error: str | None = None

  def __len__(self) -> int:
    return len(self._members)

  def __contains__(self, name: str) -> bool:
    return name in self._members

  @asynccontextmanager
  async def open(self) -> AsyncIterator[None]:
    """Admit members inside the block; at its end cancel and await them.

    Raises:
      trio.BusyResourceError: it is open already.
    """
    if self._nursery is not None:
      raise trio.BusyResourceError(f"crowd {self.name} is open already")
    error: BaseException | None = None
    try:
      async with trio.open_nursery() as nursery:
        self._nursery, self._fail_fast = nursery, FAIL_FAST.get()
        self._since = self._now()
        yield
        nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
      error = sole_leaf(group)
    finally:
      self._nursery = None
      self._since = self._now()
    if error is not None:
      raise error

  def start_soon(
    self, name: str, run: Callable[..., Awaitable[Any]], *args: Any
  ) -> None:
    """Add a member that runs ``run(*args)`` and is removed at its end.

    Args:
      name: unique among the live members.
      run: what it does.
      args: positional arguments for it.

    Raises:
      ValueError: a live member has that name.
      RuntimeError: the crowd is not open.
    """
    nursery, member = self._admit(name, Status.RUNNING)
    try:
      nursery.start_soon(self._live, member, lambda task_status: run(*args))
    except RuntimeError:
      # The last member has ended and the nursery is closed; its owner has yet to notice.
      self._dismiss(member)
      raise

  async def start(
    self, name: str, run: Callable[..., Awaitable[Any]], *args: Any
  ) -> Any:
    """Add a member that runs ``run(*args, task_status=…)`` and wait until it is ready.

    Args:
      name: unique among the live members.
      run: what it does; calls ``task_status.started(value)`` when ready.
      args: positional arguments for it.

    Returns:
      The value given to ``started()``.

    Raises:
      ValueError: a live member has that name.
      RuntimeError: the crowd is not open, or ``run`` returned before ``started()``.
      Exception: whatever ``run`` raised before ``started()``.
    """
    nursery, member = self._admit(name, Status.STARTING)
    try:
      return await nursery.start(
        self._live, member, lambda task_status: run(*args, task_status=task_status)
      )
    except BaseException:
      self._dismiss(member)
      raise

  def cancel(self, name: str) -> bool:
    """Cancel a member.

    Args:
      name: whom.

    Returns:
      False if there is none of that name, or no longer.
    """
    member = self._members.get(name)
    if member is None:
      return False
    member.scope.cancel()
    return True

  async def wait_empty(self) -> None:
    """Wait until there is no member: for the ``drain`` of the owner."""
    while self._members:
      await self._empty.wait()
    await trio.lowlevel.checkpoint()

  def outline(self) -> Outline:
    """Return what ``render`` draws."""
    return Outline(label=f"{self.name}*", doc=self.doc)

  def state(self) -> NodeState:
    """Return a snapshot: all are counted, the oldest are listed."""
    shown = islice(self._members.values(), MEMBERS_SHOWN)
    return NodeState(
      name=self.name,
      kind=Kind.CROWD,
      status=Status.STOPPED if self._nursery is None else Status.RUNNING,
      since=self._since,
      last_error=self._last_error,
      count=len(self._members),
      children=tuple(member.state() for member in shown),
    )

  def _admit(self, name: str, status: Status) -> tuple[trio.Nursery, _Member]:
    """Book a new member, or refuse it."""
    if self._nursery is None:
      raise RuntimeError(f"crowd {self.name} is not open")
    if name in self._members:
      raise ValueError(f"crowd {self.name} has a member {name} already")
    member = _Member(name=name, since=self._now(), status=status)
    if not self._members:
      self._empty = trio.Event()
    self._members[name] = member
    return self._nursery, member

  async def _live(
    self,
    member: _Member,
    run: Callable[[trio.TaskStatus[Any]], Awaitable[Any]],
    *,
    task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
  ) -> None:
    """Run one member and isolate its crash; before it is ready that is the starter's."""

    def note_ready(value: Any) -> None:
      """Pass readiness on to whoever awaits ``start``."""
      task_status.started(value)
      member.status = Status.RUNNING

    try:
      with bound_contextvars(**{self.name: member.name}), member.scope:
        await run(Readiness(note_ready))
    except BaseException as error:
      crash, rest = split_crash(error)
      if crash is None or member.status is Status.STARTING:
        raise
      self._note_crash(member, crash)
      if self._fail_fast:
        raise
      if rest is not None:
        raise rest from None
    finally:
      self._dismiss(member)

  def _dismiss(self, member: _Member) -> None:
    """Strike a member off, unless that was done or another has its name by now."""
    if self._members.get(member.name) is member:
      del self._members[member.name]
      if not self._members:
        self._empty.set()

  def _note_crash(self, member: _Member, error: Exception) -> None:
    """Log a crash, once."""
    self._last_error = describe(error)
    _log.error("member_crashed", crowd=self.name, member=member.name, exc_info=error)
