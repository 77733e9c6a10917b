"""Keeping one child running as its policy says; the design is told in supervise.py.

Who runs it: a supervisor starts ``keep`` in its nursery, once per child that should run,
never twice for one child. A keeper owns its node's status from start to end; the
supervisor ends it through ``Node.cancel``.
"""

import random as randomness
from collections.abc import Awaitable, Callable

import attrs
import structlog
import trio
from structlog.contextvars import bound_contextvars

from hetuflow.errors import SupervisionError
from hetuflow.nursery.groups import consists_of, sole_leaf
from hetuflow.nursery.node import Node, Readiness
from hetuflow.nursery.spec import Policy
from hetuflow.nursery.state import FAIL_FAST, Kind, Status, describe

__all__ = ["Keeper"]

_log = structlog.get_logger()


@attrs.frozen(kw_only=True)
class Keeper:
  """Runs the children of one group, one call of ``keep`` each.

  Args:
    random: the source of jitter.
    tell: called when a child got ready or ended.
    stop_rest: awaited before a backoff: stops those that lean on the crashed child.
    wait_turn: awaited after a backoff: returns when all before the child are ready.
    escalate: called with the error the whole group has to fail with.
  """

  random: randomness.Random
  tell: Callable[[], None]
  stop_rest: Callable[[Node], Awaitable[None]]
  wait_turn: Callable[[Node], Awaitable[None]]
  escalate: Callable[[Exception], None]

  async def keep(self, node: Node) -> None:
    """Run one child again and again until it has ended for good or is stopped."""
    try:
      while not node.stopping:
        error = await self._attempt(node)
        delay = self._judge(node, error)
        if delay is None:
          break
        with node.guarded(shield=False):
          await self.stop_rest(node)
          await trio.sleep(delay)
          await self.wait_turn(node)
        node.restarts += not node.stopping
    except BaseException:
      # The nursery is going down; until it has, the tender must not start this again.
      node.over = True
      raise
    finally:
      if node.status is Status.BACKOFF:
        node.enter(Status.STOPPED)
      node.note_gone()
      self.tell()

  async def _attempt(self, node: Node) -> Exception | None:
    """Run one incarnation; return its crash, or None if it returned or was stopped."""
    readiness = Readiness(lambda _: self._note_ready(node))
    name = node.child.name
    node.enter(Status.STARTING)
    try:
      with bound_contextvars(child=name), node.guarded(shield=True):
        await node.child.run(task_status=readiness)
        if not readiness.called and not node.stopping:
          raise RuntimeError(f"{name} returned before task_status.started()")
    except Exception as error:
      return error
    finally:
      node.ready = False
    return None

  def _note_ready(self, node: Node) -> None:
    """Book that a child called ``started()``: the next one may start."""
    node.ready = True
    if not node.stopping:
      node.enter(Status.RUNNING)
    _log.info("child_started", child=node.child.name, restarts=node.restarts)
    self.tell()

  def _judge(self, node: Node, error: Exception | None) -> float | None:
    """Decide what follows the end of an incarnation.

    Returns:
      Seconds until the restart, or None if there is none.
    """
    restart = node.child.restart
    if node.stopping:
      self._book_stop(node, error)
      return None
    if error is None and restart.policy is not Policy.ALWAYS:
      node.over = True
      self._book_stop(node, error)
      return None
    ends = node.note_end(error, at=trio.current_time())
    verdict = self._verdict(node, error, ends)
    if verdict is not None:
      node.over = True
      node.enter(Status.FAILED)
      self._log_end(node, error, escalates=True)
      self.escalate(verdict)
      return None
    delay = restart.backoff.delay(ends - 1, self.random)
    node.enter(Status.BACKOFF)
    self._log_end(node, error, restart_in=round(delay, 3))
    return delay

  def _verdict(
    self, node: Node, error: Exception | None, ends: int
  ) -> Exception | None:
    """Return the error the whole group fails with, or None if a restart is allowed."""
    restart = node.child.restart
    if error is not None:
      # What leaves a nested group and is no SupervisionError was fatal in there.
      passes = node.kind is Kind.GROUP and not isinstance(error, SupervisionError)
      if passes or FAIL_FAST.get() or consists_of(error, restart.fatal):
        return sole_leaf(error)
    allowed = restart.max_restarts
    if allowed is None or ends <= allowed:
      return None
    problem = SupervisionError(
      f"{node.child.name} ended {ends} times within {restart.period:g} s, restarts"
      f" allowed: {allowed}; last: {node.last_error or 'it returned'}"
    )
    problem.__cause__ = error
    return problem

  def _book_stop(self, node: Node, error: Exception | None) -> None:
    """Book an end that calls for no restart; a crash in it still counts in tests."""
    node.enter(Status.STOPPED if error is None else Status.FAILED)
    self._log_end(node, error)
    if error is not None:
      node.last_error = describe(error)
      if FAIL_FAST.get():
        self.escalate(sole_leaf(error))

  def _log_end(self, node: Node, error: Exception | None, **what: object) -> None:
    """Log one end, with a traceback unless it was logged below or says all in words."""
    name = node.child.name
    if error is None:
      _log.info("child_stopped", child=name, **what)
    elif (
      node.kind is Kind.GROUP
      or isinstance(error, SupervisionError)
      or consists_of(error, node.child.restart.fatal)
    ):
      _log.error("child_crashed", child=name, error=describe(error), **what)
    else:
      _log.error("child_crashed", child=name, exc_info=error, **what)
