"""A stage whose children write down what happens to them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
import trio
from structlog.testing import LogCapture
from structlog.typing import EventDict
from trio.testing import wait_all_tasks_blocked

from hetuflow.nursery import Child, Group, Supervisor


class Stage:
  """Makes recording children and runs supervisors over them."""

  def __init__(self) -> None:
    self.events: list[str] = []
    self.times: dict[str, list[float]] = {}
    self.crash_now: dict[str, trio.Event] = {}

  def note(self, event: str) -> None:
    """Write an event down."""
    self.events.append(event)

  def child(
    self,
    name: str,
    *,
    crashes: int = 0,
    ready_first: bool = True,
    starts_in: float = 0,
    stops_in: float = 0,
    error: type[Exception] = ValueError,
    **options: Any,
  ) -> Child:
    """Make a child that runs until it is cancelled.

    Args:
      crashes: how many of its first incarnations crash once all others wait.
      ready_first: whether those call ``started()`` before.
      starts_in: seconds until it is ready.
      stops_in: seconds of shielded clean-up.
      error: what it raises.
      options: fields of Child.
    """
    left = crashes
    self.crash_now[name] = trio.Event()

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
      """Start, maybe crash, wait for the end."""
      nonlocal left
      self.times.setdefault(name, []).append(trio.current_time())
      self.note(f"+{name}")
      try:
        await trio.sleep(starts_in)
        if left and not ready_first:
          left -= 1
          raise error("boom")
        task_status.started()
        self.note(f"{name} ready")
        if left:
          left -= 1
          await wait_all_tasks_blocked()
          raise error("boom")
        await self.crash_now[name].wait()
        self.crash_now[name] = trio.Event()
        raise error("boom")
      finally:
        with trio.CancelScope(shield=True):
          await trio.sleep(stops_in)
        self.note(f"-{name}")

    return Child(name, run, **options)

  def drainer(
    self, name: str, *, takes: float = 0, crashes: bool = False
  ) -> Callable[[], Awaitable[None]]:
    """Make a drain that takes some seconds."""

    async def drain() -> None:
      """Finish, or fail to."""
      self.note(f"drain {name}")
      if crashes:
        raise ValueError("cannot drain")
      await trio.sleep(takes)
      self.note(f"{name} drained")

    return drain

  @asynccontextmanager
  async def running(
    self, *children: Child | Group, **options: Any
  ) -> AsyncIterator[Supervisor]:
    """Run a group ``root`` of these inside the block and cancel it at the end."""
    strategy = {key: options.pop(key) for key in ("strategy",) if key in options}
    supervisor = Supervisor(Group("root", children, **strategy), **options)
    async with trio.open_nursery() as nursery:
      await nursery.start(supervisor.run)
      yield supervisor
      nursery.cancel_scope.cancel()


@pytest.fixture
def stage() -> Stage:
  """Provide an empty stage; a test names ``autojump_clock`` beside it."""
  return Stage()


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[EventDict]]:
  """Collect log events as dicts, with the context bound to them."""
  capture = LogCapture()
  before = structlog.get_config()["processors"]
  structlog.configure(processors=[structlog.contextvars.merge_contextvars, capture])
  yield capture.entries
  structlog.configure(processors=before)
