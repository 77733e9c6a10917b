"""A tree under any row of crashes, returns, drains and cancellations keeps its promises."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import Any

import attrs
import pytest
import structlog
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from hetuflow.errors import SupervisionError
from hetuflow.nursery import Backoff, Child, Group, Restart, Strategy, Supervisor

LONGEST_RUN_S = 2_000.0
STOP_TIMEOUT_S = 5.0
DRAIN_TIMEOUT_S = 7.0
NAMES = "abcd"


@attrs.frozen(kw_only=True)
class Manner:
  """How one child behaves: seconds until it is ready, to drain and to clean up."""

  starts_in: float
  drains_in: float
  stops_in: float
  bad_starts: int
  fails_to_drain: bool
  fails_to_stop: bool


@attrs.frozen(kw_only=True)
class Plan:
  """A tree and what happens to it: ``(seconds, verb, name)``, one after the other."""

  manners: dict[str, Manner]
  strategy: Strategy
  nested: bool
  max_restarts: int
  happenings: list[tuple[float, str, str]]
  ending: str


def plans(longest_stop: float) -> st.SearchStrategy[Plan]:
  """Make plans whose children clean up within so many seconds."""
  seconds = st.sampled_from([0.0, 0.5, 3.0, 10.0])
  manner = st.builds(
    Manner,
    starts_in=seconds,
    drains_in=seconds,
    stops_in=st.sampled_from([0.0, 0.5, 3.0, longest_stop]),
    bad_starts=st.integers(0, 2),
    fails_to_drain=st.booleans(),
    fails_to_stop=st.booleans(),
  )
  verbs = st.sampled_from(["crash", "return", "cancel and go on"])
  happening = st.tuples(seconds, verbs, st.sampled_from(NAMES))
  return st.builds(
    Plan,
    manners=st.fixed_dictionaries(dict.fromkeys(NAMES, manner)),
    strategy=st.sampled_from(Strategy),
    nested=st.booleans(),
    max_restarts=st.integers(0, 3),
    happenings=st.lists(happening, max_size=8),
    ending=st.sampled_from(["cancel", "drain", "abort", "drain, then cancel"]),
  )


class World:
  """Runs a plan and checks at each start and each stop what a tree promises."""

  def __init__(self, plan: Plan, *, in_order: bool) -> None:
    self._plan = plan
    self._in_order = in_order
    self.alive: set[str] = set()
    self._ready: set[str] = set()
    self._over: set[str] = set()
    self._ended_at: dict[str, float] = {}
    self._orders: dict[str, tuple[trio.Event, list[str]]] = {}
    self._bad_starts = {name: each.bad_starts for name, each in plan.manners.items()}
    self.ending = False
    self.broken: list[str] = []

  def expect(self, holds: bool, promise: str) -> None:
    """Note a promise that was not kept."""
    if not holds:
      self.broken.append(promise)

  @contextmanager
  def _incarnation(self, name: str) -> Iterator[None]:
    """Be alive inside the block; check what may be alive beside it."""
    group = "cd" if self._plan.nested and name in "cd" else NAMES
    before = group[: group.index(name)]
    self.expect(name not in self.alive, f"{name} runs twice")
    for other in before:
      # One that crashes in the very instant of the start cannot be known of.
      now = self._ended_at.get(other) == trio.current_time()
      fine = other in self._ready or other in self._over or now
      self.expect(fine, f"{name} was started before {other} was ready")
    self.alive.add(name)
    try:
      yield
    finally:
      self.alive.discard(name)
      self._ready.discard(name)
      self._ended_at[name] = trio.current_time()

  async def run(self, name: str, *, task_status: trio.TaskStatus[None]) -> None:
    """Be one child."""
    manner = self._plan.manners[name]
    self._orders[name] = told, orders = trio.Event(), list[str]()
    with self._incarnation(name):
      await trio.sleep(manner.starts_in)
      if self._bad_starts[name]:
        self._bad_starts[name] -= 1
        raise ValueError("a bad start")
      self._ready.add(name)
      task_status.started()
      try:
        await told.wait()
      except trio.Cancelled:
        await self._clean_up(name, manner)
        raise
      if orders == ["crash"]:
        raise ValueError("told to crash")
      self._over.add(name)

  async def _clean_up(self, name: str, manner: Manner) -> None:
    """Take some time to stop, in spite of the cancellation, and maybe fail."""
    if self._in_order and self.ending:
      later = {other for other in self.alive if other > name}
      self.expect(not later, f"{name} was stopped before {later}")
    with trio.CancelScope(shield=True):
      await trio.sleep(manner.stops_in)
    if manner.fails_to_stop:
      raise ValueError("a bad clean-up")

  async def drain(self, name: str) -> None:
    """Drain one child, and maybe fail to."""
    later = {other for other in self.alive if other > name}
    self.expect(not (self._in_order and later), f"{name} was drained before {later}")
    await trio.sleep(self._plan.manners[name].drains_in)
    if self._plan.manners[name].fails_to_drain:
      raise ValueError("a bad drain")

  def tell(self, name: str, verb: str) -> None:
    """Make a child that runs crash or return."""
    if name in self._ready:
      event, orders = self._orders[name]
      if not orders:
        orders.append(verb)
        event.set()

  def tree(self) -> Group:
    """Declare the tree."""
    restart = Restart.on_crash(
      backoff=Backoff(initial=0.5, maximum=2.0), max_restarts=self._plan.max_restarts
    )
    children: list[Child | Group] = [
      Child(
        name,
        partial(self.run, name),
        restart=restart,
        drain=partial(self.drain, name),
        drain_timeout=DRAIN_TIMEOUT_S,
        stop_timeout=STOP_TIMEOUT_S,
      )
      for name in NAMES
    ]
    if self._plan.nested:
      inner = Group("inner", children[2:], strategy=self._plan.strategy)
      children = [*children[:2], attrs.evolve(inner, restart=restart)]
    return Group("root", children, strategy=self._plan.strategy)


async def live(world: World, plan: Plan) -> None:
  """Run the tree, let happen what is planned, and end it."""
  supervisor = Supervisor(world.tree(), random=Random(0))
  scope = trio.CancelScope()

  async def run() -> None:
    """Run the supervisor until it ends; giving up is a fair end."""
    try:
      with scope:
        await supervisor.run()
    except SupervisionError:
      world.ending = True

  async with trio.open_nursery() as nursery:
    nursery.start_soon(run)
    for pause, verb, name in plan.happenings:
      await trio.sleep(pause)
      world.tell(name, verb)
    world.ending = True
    if "drain" in plan.ending:
      supervisor.drain()
      if "cancel" in plan.ending:
        await trio.sleep(1)
        scope.cancel()
    elif plan.ending == "abort":
      supervisor.abort()
    else:
      scope.cancel()
  world.expect(not world.alive, f"left alive: {world.alive}")


def judge(plan: Plan, *, in_order: bool) -> None:
  """Run a plan on a clock that jumps; fail if a promise was broken or it never ends."""
  world = World(plan, in_order=in_order)

  async def bounded() -> None:
    """Give up on a tree that does not end."""
    with trio.fail_after(LONGEST_RUN_S):
      await live(world, plan)

  trio.run(bounded, clock=MockClock(autojump_threshold=0))
  assert world.broken == []


@pytest.fixture(autouse=True, scope="module")
def silent() -> Iterator[None]:
  """Log nothing: hypothesis runs hundreds of trees."""
  before: Any = structlog.get_config()
  structlog.configure(processors=[drop])
  yield
  structlog.configure(**before)


def drop(*_: object) -> Any:
  """Drop an event."""
  raise structlog.DropEvent


@settings(max_examples=200, deadline=None)
@given(plans(longest_stop=4.0))
def test_starts_stops_and_drains_keep_their_order_whatever_happens(plan: Plan) -> None:
  judge(plan, in_order=plan.ending in ("cancel", "drain"))


@settings(max_examples=100, deadline=None)
@given(plans(longest_stop=60.0))
def test_children_that_ignore_cancellation_are_outwaited(plan: Plan) -> None:
  judge(plan, in_order=False)
