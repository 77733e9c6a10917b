"""Supervision on Trio: start in order, restart what crashes, stop in reverse.

Who runs it: the root supervisor is run by ``run_until_signal``, a nested group by the
supervisor of its parent, and a child may run one of its own inside a scope it owns (the
elector: its leader group inside a term). A supervisor owns one Trio nursery; in it one
*keeper* per child (keeper.py) runs it, judges how it ended and, when its turn comes, runs
it again. The supervisor's own task, the *tender*, looks for the first child in list order
that should run and does not, and waits for it: start, the restart of a tail and start
after a crash during start are one rule. Keepers and tender meet in the ``Node`` records
and in hints that one of these has changed, never in exceptions.

Invariants
- A child is started only while all before it are ready or have ended for good.
- A child has at most one incarnation; the next begins after the end of the last.
- Every ending of ``run`` (return, error, cancellation) stops the children in reverse
  order, each awaited before the one declared before it, up to its ``stop_timeout``; none
  survives ``run``.
- A crash is logged once, where it happened, with its traceback.
- Cancellation wins: cancelling the scope around ``run`` skips drains and ends backoffs.
  ``drain()`` is the other door: it lets each child finish, still in reverse order.
- Escalation raises one plain exception out of ``run``: SupervisionError, a ``fatal``
  error unchanged, or with ``fail_fast`` the first crash. KeyboardInterrupt and SystemExit
  are no crashes and pass.

When the other side dies: a child that crashes is restarted; past the limit of its
``Restart`` the group fails and stops, and its parent treats that as the crash of a child.
The root has no parent: its error leaves ``trio.run`` and ends the process non-zero.

Why children are shielded: Trio cancels a nursery's tasks all at once, but the recorder
must outlive the gateway that feeds it. So the shield holds cancellation off, and the
tender, which is not shielded, passes it on in reverse order.

Rejected
- ``nursery.start`` per child: it cannot be interrupted while a shielded child starts,
  and a crash before ``started()`` would end the group rather than be retried.
- Letting crashes travel as exceptions through the nursery: the first one cancels the
  siblings, and several come as a group nobody can judge one by one.
- One intensity per group, as in Erlang: ten healthy children would share the budget of
  one sick one; here the policy stands on the line of the child it is about.
- ``all_for_one``: list order is dependency order, so a child before the crashed one
  does not lean on it; ``rest_for_one`` says what is needed.
"""

import math
import random as randomness
import time
from collections.abc import Callable

import structlog
import trio

from hetuflow.nursery.groups import consists_of, sole_leaf
from hetuflow.nursery.keeper import Keeper
from hetuflow.nursery.node import Clock, Node
from hetuflow.nursery.spec import Child, Group, Outline, Strategy
from hetuflow.nursery.state import FAIL_FAST, Kind, NodeState, Status, describe
from hetuflow.nursery.wakeup import Wakeup

__all__ = ["OnEscalate", "Supervisor"]

OnEscalate = Callable[[str, Exception], None]

_log = structlog.get_logger()


class Supervisor:
  """Runs one group and everything below it; may be run again after it ended.

  Args:
    group: what to run.
    random: the source of jitter in backoffs.
    fail_fast: let any crash below end ``run`` with that very exception: for tests.
    on_escalate: called with a group's name and the error whenever a group gives up.
    now: seconds since the epoch, for ``state()``.
  """

  def __init__(
    self,
    group: Group,
    *,
    random: randomness.Random | None = None,
    fail_fast: bool = False,
    on_escalate: OnEscalate | None = None,
    now: Clock = time.time,
  ) -> None:
    self.group = group
    self._random = random or randomness.Random()  # noqa: S311 - jitter, not a secret
    self._fail_fast = fail_fast
    self._on_escalate = on_escalate
    self._now = now
    self._below: list[Supervisor] = []
    self._nodes = [self._node(child) for child in group.children]
    self._wakeup = Wakeup()
    self._changed = trio.Event()
    self._keeper = Keeper(
      random=self._random,
      tell=self._tell,
      stop_rest=self._stop_rest,
      wait_turn=self._wait_turn,
      escalate=self._escalate,
    )
    self._running = self._draining = False
    self._failure: Exception | None = None
    self._last_error: str | None = None
    self._enter(Status.STOPPED)

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Run the group until all its children ended, it is drained, or it fails.

    ``task_status.started()`` is called once every child has called its own.

    Raises:
      SupervisionError: a child failed more often than its policy allows.
      trio.BusyResourceError: it runs already.
      Exception: an error the child's policy calls fatal; any crash with ``fail_fast``.
    """
    if self._running:
      raise trio.BusyResourceError(f"group {self.group.name} runs already")
    self._begin()
    token = FAIL_FAST.set(self._fail_fast or FAIL_FAST.get())
    error: BaseException | None = None
    try:
      await self._live(task_status)
    except BaseException as problem:
      error = sole_leaf(problem)
    finally:
      fail_fast = FAIL_FAST.get()
      FAIL_FAST.reset(token)
    failure = self._finish()
    if error is None or (fail_fast and consists_of(error, trio.Cancelled)):
      error = failure or error
    # Raised out here, where no handler is active: its cause and context stay its own.
    if error is not None:
      raise error

  def drain(self) -> None:
    """Ask the group to let each child finish, last one first, and then to end."""
    self._draining = True
    self._wakeup.set()

  def abort(self) -> None:
    """Cancel everything below at once, in no order and undrained, and end."""
    for node in self._nodes:
      node.cancel()
    for supervisor in self._below:
      if supervisor._running:
        supervisor.abort()
    self.drain()

  def outline(self) -> Outline:
    """Return what ``render`` draws."""
    return self.group.outline()

  def state(self) -> NodeState:
    """Return a snapshot of the group and everything below it."""
    children = tuple(node.state() for node in self._nodes)
    return NodeState(
      name=self.group.name,
      kind=Kind.GROUP,
      status=self._status,
      since=self._since,
      last_error=self._last_error,
      count=len(children),
      children=children,
    )

  def _node(self, spec: Child | Group) -> Node:
    """Make the record of a child; a nested group becomes the child that runs it."""
    if isinstance(spec, Child):
      return Node(spec, now=self._now)
    supervisor = Supervisor(
      spec, random=self._random, on_escalate=self._on_escalate, now=self._now
    )
    self._below.append(supervisor)
    child = Child(
      spec.name,
      supervisor.run,
      restart=spec.restart,
      drain=supervisor._drain_through,
      drain_timeout=math.inf,
      stop_timeout=spec.stop_timeout,
    )
    return Node(
      child,
      kind=Kind.GROUP,
      below=lambda: supervisor.state().children,
      now=self._now,
    )

  def _enter(self, status: Status) -> None:
    """Change the group's own status."""
    self._status = status
    self._since = self._now()

  def _begin(self) -> None:
    """Forget the last run, but not a drain that was asked for before this one."""
    self._running = True
    self._failure = None
    for node in self._nodes:
      node.reset()
    self._enter(Status.STARTING)

  def _finish(self) -> Exception | None:
    """Close the run and return why it failed, if it did."""
    failure = self._failure
    self._running = self._draining = False
    if failure is not None:
      self._last_error = describe(failure)
    self._enter(Status.STOPPED if failure is None else Status.FAILED)
    return failure

  async def _live(self, task_status: trio.TaskStatus[None]) -> None:
    """Start, tend, and however that ends, stop in reverse order."""
    async with trio.open_nursery() as nursery:
      try:
        await self._tend(nursery, task_status)
        if self._draining:
          self._enter(Status.DRAINING)
          for node in reversed(self._nodes):
            await self._drain(node)
      finally:
        with trio.CancelScope(shield=True):
          for node in reversed(self._nodes):
            await self._stop(node)

  async def _tend(
    self, nursery: trio.Nursery, task_status: trio.TaskStatus[None]
  ) -> None:
    """Keep every child started, in list order, until the group is to end."""
    while self._failure is None and not self._draining:
      node = next((node for node in self._nodes if not (node.ready or node.over)), None)
      if node is None and self._status is Status.STARTING:
        self._enter(Status.RUNNING)
        task_status.started()
      if all(node.over for node in self._nodes):
        return
      if node is not None and not node.alive:
        node.revive()
        nursery.start_soon(self._keeper.keep, node)
      await self._wakeup.wait()

  def _tell(self) -> None:
    """Wake whoever waits for a child to be ready or over: the tender, the keepers."""
    self._wakeup.set()
    self._changed.set()
    self._changed = trio.Event()

  async def _wait_turn(self, node: Node) -> None:
    """Wait until all before a child are ready or over; a group that fails starts nothing.

    Without that a child would use up its restarts while what it leans on is away.
    """
    before = self._nodes[: self._nodes.index(node)]
    while self._failure or not all(each.ready or each.over for each in before):
      await self._changed.wait()

  def _escalate(self, error: Exception) -> None:
    """Make the group fail, if it does not already."""
    if self._failure is not None:
      return
    self._failure = error
    if self._on_escalate is not None:
      self._on_escalate(self.group.name, error)

  async def _stop_rest(self, node: Node) -> None:
    """Stop those that lean on a crashed child, where the strategy says so."""
    if self.group.strategy is Strategy.REST_FOR_ONE:
      place = self._nodes.index(node)
      for later in reversed(self._nodes[place + 1 :]):
        await self._stop(later)

  async def _drain_through(self) -> None:
    """Drain as the child of a parent, which cuts this off once the group has ended."""
    self.drain()
    await trio.sleep_forever()

  async def _drain(self, node: Node) -> None:
    """Let one child finish, within its limit, then stop it."""
    child = node.child
    if child.drain is not None and node.drainable:
      node.stopping = True
      node.enter(Status.DRAINING)
      _log.info("child_draining", child=child.name)
      node.drain_scope.deadline = trio.current_time() + child.drain_timeout
      try:
        with node.drain_scope:
          await child.drain()
      # Not ``except``: what fails while it is cancelled raises both in one group.
      except* Exception as crashes:
        error = sole_leaf(crashes)
        _log.error("child_drain_failed", child=child.name, exc_info=error)
      if node.alive and trio.current_time() >= node.drain_scope.deadline:
        _log.warning("child_drain_overdue", child=child.name)
    await self._stop(node)

  async def _stop(self, node: Node) -> None:
    """Cancel one child and wait for its end, though not for ever."""
    if not node.alive:
      return
    node.cancel()
    with trio.move_on_after(node.child.stop_timeout) as limit:
      await node.ended.wait()
    if limit.cancelled_caught:
      _log.warning("child_stop_overdue", child=node.child.name)
