"""The database's clock is ahead for a while and is set back: schedules go on."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from support.clock import OWN_CLOCK, SET_CLOCK
from support.postgres import Postgres
from support.world import bind_all, make_job, make_schedule, query, read_cursor

from hetuflow.nursery import Wakeup
from hetuflow.protocol.model import Schedule
from hetuflow.schedule import fire_times
from hetuflow.server.scheduling.generator import Generator
from hetuflow.storage.connect import Database, StorageSettings, open_storage
from hetuflow.storage.timing import timing_of

START = datetime(2026, 3, 10, 12, 0, 30, tzinfo=UTC)
HORIZON = timedelta(seconds=60)
MINUTE = timedelta(minutes=1)
STEPS = [timedelta(hours=2), timedelta(days=40)]
STAYS = [timedelta(seconds=10), timedelta(hours=3)]
DEFINITIONS: list[dict[str, Any]] = [
  {"cron_expression": "* * * * *"},
  {"cron_expression": "7 * * * *"},
  {"kind": "time", "cron_expression": None, "interval_seconds": 61.0},
]
PARTITIONS = query("SELECT hetuflow_ensure_partitions(2, $at)")
TASKS = query("SELECT planned_at FROM sched_task WHERE schedule_id = $id ORDER BY 1")
GAPS = query("""
  SELECT from_at, to_at, count FROM sched_ledger_gap WHERE schedule_id = $id
""")
FINISH = query("""
  UPDATE sched_task SET status = 'succeeded', completed_at = now()
  WHERE completed_at = 'infinity' AND due_at <= now()
""")


@attrs.define
class Story:
  """A database whose clock a test sets, and a server that plans by it."""

  database: Database
  server: Generator
  now: datetime = START

  async def set_clock(self, now: datetime) -> None:
    """Let it be then."""
    self.now = now
    await self.database.fetch(PARTITIONS, at=now)
    await self.database.fetch(SET_CLOCK, at=now)

  async def live(self, time: timedelta) -> None:
    """Let time pass while the server plans and agents run what is due."""
    end = self.now + time
    while True:
      while await self.server.plan_once():
        pass
      await self.database.fetch(FINISH)
      if self.now >= end:
        return
      await self.set_clock(min(self.now + MINUTE, end))

  async def times(self, schedule: Schedule) -> list[datetime]:
    """Read the planned times that have a task."""
    rows = await self.database.fetch(TASKS, id=schedule.id)
    return [row["planned_at"] for row in rows]


@pytest.fixture
async def story(postgres: Postgres, template: str) -> AsyncIterator[Story]:
  with postgres.database(template) as name:
    postgres.sql(OWN_CLOCK, database=name)
    settings = StorageSettings(dsn=postgres.dsn(name), statement_timeout=20)
    async with open_storage(settings) as database:
      server = Generator(
        database,
        await bind_all(database),
        horizon=HORIZON.total_seconds(),
        interval=1.0,
        wakeup=Wakeup(),
      )
      told = Story(database, server)
      await told.set_clock(START)
      yield told


async def check_ledger(story: Story, schedule: Schedule) -> None:
  """Demand that each planned time up to the cursor is covered exactly once."""
  timing = timing_of(schedule)
  cursor = (await read_cursor(story.database, schedule))["cursor_at"]
  tasks = await story.times(schedule)
  assert len(tasks) == len(set(tasks))
  covered = [at for at in tasks if at <= cursor]
  for gap in await story.database.fetch(GAPS, id=schedule.id):
    times = fire_times(
      timing,
      after=gap["from_at"] - timedelta(microseconds=1),
      until=gap["to_at"],
      limit=100_000,
    )
    assert len(times) == gap["count"]
    covered += times
  planned = fire_times(timing, after=START, until=cursor, limit=100_000)
  assert sorted(covered) == planned


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("stay", STAYS)
async def test_schedules_go_on_when_the_clock_is_set_back(
  story: Story, step: timedelta, stay: timedelta, definition: dict[str, Any]
) -> None:
  schedule = await make_schedule(
    story.database, await make_job(story.database), **definition
  )
  await story.live(5 * MINUTE)
  await story.set_clock(story.now + step)
  await story.live(stay)
  await check_ledger(story, schedule)
  await story.set_clock(story.now - step)
  await story.server.draw_back_once()
  back_at = story.now
  await story.live(90 * MINUTE)
  await check_ledger(story, schedule)
  due = fire_times(timing_of(schedule), after=back_at, until=story.now, limit=1_000)
  assert due
  assert set(due) <= set(await story.times(schedule))


async def test_a_clock_that_is_right_draws_nothing_back(story: Story) -> None:
  job = await make_job(story.database)
  schedules = [
    await make_schedule(story.database, job, name=str(number), **definition)
    for number, definition in enumerate(DEFINITIONS)
  ]
  await story.live(3 * MINUTE)
  assert await story.server.draw_back_once() == 0
  await story.set_clock(story.now - MINUTE / 2)
  assert await story.server.draw_back_once() == 0
  for schedule in schedules:
    assert (await read_cursor(story.database, schedule))["revision"] == 1
