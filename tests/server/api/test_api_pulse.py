"""Questions after the health, which anybody may ask, and what they cost the database."""

from collections.abc import Callable

import pytest
import trio
from support.api import Api

from hetuflow.server.api import pulse as pulse_module
from hetuflow.server.api.pulse import FRESH, Pulse
from hetuflow.storage.connect import Database
from hetuflow.storage.servers import DatabaseState, ping

LIMIT_S = 20.0


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
  """Count how often the database is really asked."""
  count = 0

  async def counting(database: Database) -> DatabaseState:
    """Count and ask."""
    nonlocal count
    count += 1
    return await ping(database)

  monkeypatch.setattr(pulse_module, "ping", counting)
  return lambda: count


async def test_many_who_ask_at_once_cost_one_question(
  api: Api, asked: Callable[[], int]
) -> None:
  statuses = []

  async def ask() -> None:
    """Ask without a key."""
    reply = await api.get("system/health", headers={"Authorization": ""})
    statuses.append(reply.status)

  with trio.fail_after(LIMIT_S):
    async with trio.open_nursery() as nursery:
      for _ in range(20):
        nursery.start_soon(ask)
  assert statuses == [200] * 20
  assert asked() <= 2


async def test_an_old_answer_is_not_given(
  database: Database, asked: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
  pulse = Pulse(database)
  assert await pulse.is_well()
  assert await pulse.is_well()
  assert asked() == 1
  later = trio.current_time() + FRESH + 0.1
  monkeypatch.setattr(trio, "current_time", lambda: later)
  assert await pulse.is_well()
  assert asked() == 2


async def test_who_leaves_in_the_middle_leaves_no_answer_behind(
  database: Database,
) -> None:
  pulse = Pulse(database)
  with trio.CancelScope() as scope:
    scope.cancel()
    await pulse.is_well()
  assert await pulse.is_well()
