"""Planning of schedules that heed calendars."""

from datetime import datetime, timedelta

import pytest
from support.world import (
  bind_all,
  make_job,
  make_schedule,
  planned_times,
  read_clock,
)

from hetuflow.nursery import Wakeup
from hetuflow.protocol.model import (
  CalendarForCreate,
  CalendarForUpdate,
  CalendarMode,
  Schedule,
  ScheduleCalendar,
)
from hetuflow.server.scheduling import generator as generator_module
from hetuflow.server.scheduling.generator import Generator
from hetuflow.storage.calendars import create_calendar, update_calendar
from hetuflow.storage.connect import Database

EVERY_SECOND = "* * * * * *"
OPEN = {"dates": ["2001-01-01"]}


@pytest.fixture
async def generator(database: Database) -> Generator:
  bindings = await bind_all(database)
  return Generator(database, bindings, horizon=60.0, interval=1.0, wakeup=Wakeup())


def closed_around(now: datetime) -> dict[str, object]:
  """Define a calendar of yesterday, today and tomorrow."""
  first, last = now - timedelta(days=1), now + timedelta(days=1)
  return {"dates": [{"from": f"{first:%Y-%m-%d}", "to": f"{last:%Y-%m-%d}"}]}


async def make_heeding(database: Database, calendar: str, mode: str) -> Schedule:
  """Make a schedule that fires each second under a calendar."""
  job = await make_job(database, f"of {calendar} {mode}")
  uses = [ScheduleCalendar(name=calendar, mode=CalendarMode(mode))]
  return await make_schedule(
    database, job, cron_expression=EVERY_SECOND, calendars=uses
  )


async def test_only_open_days_are_planned(
  database: Database, generator: Generator
) -> None:
  now = await read_clock(database)
  closed = CalendarForCreate(name="closed", definition=closed_around(now))
  await create_calendar(database, closed)
  shut = await make_heeding(database, "closed", "exclude")
  moved = await make_heeding(database, "closed", "next")
  only = await make_heeding(database, "closed", "include")
  while await generator.plan_once():
    pass
  assert await planned_times(database, shut) == []
  assert await planned_times(database, moved) == []
  assert len(await planned_times(database, only)) >= 59


async def test_a_definition_that_is_kept_is_dropped_with_its_calendar(
  database: Database, generator: Generator
) -> None:
  calendar = await create_calendar(
    database, CalendarForCreate(name="closed", definition=OPEN)
  )
  schedule = await make_heeding(database, "closed", "exclude")
  await generator.plan_once()
  before = await planned_times(database, schedule)
  assert len(before) >= 59
  closed = closed_around(await read_clock(database))
  await update_calendar(database, calendar.id, CalendarForUpdate(definition=closed))
  changed_at = await read_clock(database)
  await generator.plan_once()
  kept = await planned_times(database, schedule)
  assert all(at <= changed_at for at in kept)
  await update_calendar(database, calendar.id, CalendarForUpdate(definition=OPEN))
  await generator.plan_once()
  after = await planned_times(database, schedule)
  assert set(kept) < set(after)


async def test_more_schedules_than_are_kept_lose_no_calendar(
  database: Database, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
  await create_calendar(database, CalendarForCreate(name="closed", definition=OPEN))
  schedules = [await make_heeding(database, "closed", "exclude")]
  await generator.plan_once()
  monkeypatch.setattr(generator_module, "CACHED_TIMINGS", 1)
  for mode in ("next", "previous", "include"):
    schedules.append(await make_heeding(database, "closed", mode))
  await generator.plan_once()
  assert [bool(await planned_times(database, each)) for each in schedules] == [
    True,
    True,
    True,
    False,
  ]
