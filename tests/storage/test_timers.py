"""The loop of the driver keeps nothing that is over."""

import gc
import weakref
from contextvars import ContextVar, copy_context

import trio
import trio_asyncio
from support.world import query

from hetuflow.storage.connect import Database

ONE = query("SELECT 1")
MANY = 1_000

held: ContextVar[object] = ContextVar("held")


class Body:
  """Something large that a request holds."""


async def test_statements_leave_no_timers_behind(database: Database) -> None:
  loop = trio_asyncio.current_loop.get()
  assert loop is not None
  for _ in range(MANY):
    await database.fetch(ONE)
  assert len(loop._timers) < MANY / 2


async def test_a_timer_that_waits_still_goes_off(database: Database) -> None:
  loop = trio_asyncio.current_loop.get()
  assert loop is not None
  rung = trio.Event()
  for _ in range(MANY):
    loop.call_later(300, rung.set).cancel()
  loop.call_later(0.01, rung.set)
  loop.call_later(300, rung.set)
  for _ in range(MANY):
    loop.call_later(300, rung.set).cancel()
  with trio.fail_after(20):
    await rung.wait()


async def test_what_a_caller_holds_is_let_go_with_its_last_statement(
  database: Database,
) -> None:
  await database.fetch(ONE)  # the first time the statement is kept, and its context
  body = Body()
  remains = weakref.ref(body)

  async def ask(body: Body) -> None:
    """Ask as a request does, with something at hand."""
    held.set(body)
    await database.fetch(ONE)

  async with trio.open_nursery() as nursery:
    copy_context().run(nursery.start_soon, ask, body)
  del body
  await database.fetch(ONE)  # cancels the timer of the connection that was given back
  gc.collect()
  assert remains() is None
