"""Editing, switching and downtime at random: the ledger covers each time exactly once."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.clock import SET_CLOCK, clocked_database
from support.postgres import Postgres
from support.world import bind_all, make_job, make_schedule, query, start_attempt

from hetuflow.errors import Conflict, Unavailable
from hetuflow.nursery import Wakeup
from hetuflow.protocol.model import (
  BackfillForCreate,
  Misfire,
  Schedule,
  ScheduleForUpdate,
  TaskConfig,
  new_id,
)
from hetuflow.protocol.states import MisfirePolicy
from hetuflow.schedule import Timing, fire_times
from hetuflow.server.scheduling.bindings import Bindings
from hetuflow.server.scheduling.generator import Generator
from hetuflow.storage.backfill import backfill_schedule
from hetuflow.storage.connect import Database, StorageSettings, open_storage
from hetuflow.storage.jobs import get_job, set_job_enabled
from hetuflow.storage.ledger import check_ledger
from hetuflow.storage.schedules import (
  get_schedule,
  set_schedule_enabled,
  update_schedule,
)
from hetuflow.storage.timing import timing_of
from hetuflow.storage.transitions import pause_task, request_cancel, resume_task

# The night in which Berlin goes back to winter time.
START = datetime(2026, 10, 25, 0, 55, 30, tzinfo=UTC)
TASKS = query("""
  SELECT id, planned_at, status, attempts, cause FROM sched_task
  WHERE schedule_id = $id ORDER BY planned_at
""")
GAPS = query("""
  SELECT from_at, to_at, count FROM sched_ledger_gap
  WHERE schedule_id = $id ORDER BY from_at
""")
RUN_COUNT = query("SELECT run_count FROM sched_schedule WHERE id = $id")


@pytest.fixture
def clocked(postgres: Postgres, template: str) -> Iterator[str]:
  """The address of a database whose clock stands still until it is set."""
  with clocked_database(postgres, template, START) as dsn:
    yield dsn


@attrs.define(kw_only=True)
class Story:
  """What happens to one schedule, and which definition held when.

  ``periods`` are (definition, from, to) while it was switched on; ``kept`` are planned
  times whose tasks were there to stay when an edit began anew before them; ``filled`` are
  those that were backfilled.
  """

  database: Database
  bindings: Bindings
  schedule: Schedule
  now: datetime = START
  since: datetime | None = START
  periods: list[tuple[Timing, datetime, datetime]] = attrs.field(factory=list)
  kept: set[datetime] = attrs.field(factory=set)
  filled: set[datetime] = attrs.field(factory=set)

  async def wait(self, seconds: int) -> None:
    """Let time pass without a server."""
    self.now += timedelta(seconds=seconds)
    await self.database.fetch(SET_CLOCK, at=self.now)

  async def plan(self) -> None:
    """Let a server plan all there is."""
    server = Generator(
      self.database, self.bindings, horizon=60.0, interval=1.0, wakeup=Wakeup()
    )
    while await server.plan_once():
      pass

  async def fill(self, since: int, length: int) -> None:
    """Backfill a span that began so many seconds ago."""
    start = self.now - timedelta(seconds=since)
    end = min(self.now, start + timedelta(seconds=length))
    span = BackfillForCreate(start_at=start, end_at=end)
    try:
      made = await backfill_schedule(self.database, self.schedule.id, span)
    except Conflict:
      # The job is switched off.
      return
    ids = set(made.ids)
    self.filled |= {t["planned_at"] for t in await self.tasks() if t["id"] in ids}

  async def look(self) -> None:
    """Demand that the ledger itself says that it is whole, piece by piece."""
    for limit in (7, 10_000):
      start = None
      while True:
        found = await check_ledger(self.database, self.schedule.id, start, limit=limit)
        assert found.complete, found
        assert found.planned == found.covered
        if not found.more:
          break
        start = found.until_at + timedelta(microseconds=1)

  async def edit(self, **change: Any) -> None:
    """Change the schedule."""
    await self.turn(update_schedule, ScheduleForUpdate(**change))

  async def switch(self, enabled: bool) -> None:
    """Switch the schedule on or off."""
    await self.turn(set_schedule_enabled, enabled)

  async def switch_job(self, enabled: bool) -> None:
    """Switch the job on or off."""
    await self.turn(self._switch_job, enabled)

  async def _switch_job(self, database: Database, id: object, enabled: bool) -> None:
    """Switch the job of the schedule."""
    assert self.schedule.job_id is not None
    await set_job_enabled(database, self.schedule.job_id, enabled)

  async def turn(self, change: Callable[..., Any], value: object) -> None:
    """End the period of now, and begin the next one if it is switched on then."""
    if self.since is not None:
      self.periods.append((timing_of(self.schedule), self.since, self.now))
    await change(self.database, self.schedule.id, value)
    self.schedule = await get_schedule(self.database, self.schedule.id)
    self.since = None if self.schedule.next_run_at is None else self.now
    self.kept |= {task["planned_at"] for task in await self.tasks() if self.ahead(task)}

  def ahead(self, task: Any) -> bool:
    """Tell whether a task is for later."""
    return bool(task["planned_at"] > self.now)

  async def tasks(self, *statuses: str) -> list[Any]:
    """Read the tasks of the schedule, of all statuses or of these."""
    rows = await self.database.fetch(TASKS, id=self.schedule.id)
    return [row for row in rows if not statuses or row["status"] in statuses]

  async def touch(self, what: str, place: int) -> None:
    """Do something with one of the tasks to which it can be done."""
    found = {
      "claim": ("pending",),
      "finish": ("pending",),
      "cancel": ("pending", "paused"),
      "pause": ("pending",),
      "resume": ("paused",),
    }[what]
    tasks = await self.tasks(*found)
    if not tasks:
      return
    id = tasks[place % len(tasks)]["id"]
    match what:
      case "claim":
        await start_attempt(self.database, id)
      case "finish":
        attempt = await start_attempt(self.database, id)
        await attempt.end()
      case "cancel":
        await request_cancel(self.database, id)
      case "pause":
        await pause_task(self.database, id)
      case "resume":
        await resume_task(self.database, id)

  async def check(self) -> None:
    """Compare tasks and gaps with the planned times of all periods."""
    expected = [
      at
      for timing, since, until in self.periods
      for at in fire_times(timing, after=since, until=until, limit=1_000_000)
    ]
    tasks = [task["planned_at"] for task in await self.tasks()]
    booked: list[datetime] = []
    for gap in await self.database.fetch(GAPS, id=self.schedule.id):
      inside = [at for at in expected if gap["from_at"] <= at <= gap["to_at"]]
      assert len(inside) == gap["count"]
      booked += inside
    stray = set(tasks) - set(expected)
    assert stray <= self.kept | self.filled
    covered, wanted = Counter([*tasks, *booked]), Counter([*expected, *stray])
    assert not wanted - covered
    # A gap of an earlier definition keeps times that the one of then has, too.
    assert set(covered - wanted) <= self.filled
    runs = await self.tasks()
    counted = [run for run in runs if run["cause"] != "backfill"]
    assert await self.database.fetchval(RUN_COUNT, id=self.schedule.id) == len(counted)


steps = st.one_of(
  st.tuples(
    st.just("wait"), st.sampled_from([1, 5, 20, 59, 61, 150, 1_500, 3_600, 90_000])
  ),
  st.just(("plan",)),
  st.tuples(
    st.just("edit"),
    st.sampled_from(["* * * * *", "*/2 * * * *", "*/20 * * * * *", "30 2 * * *"]),
  ),
  st.tuples(st.just("jitter"), st.sampled_from([0.0, 50.0])),
  st.tuples(
    st.just("fill"), st.sampled_from([60, 600, 4_000]), st.sampled_from([1, 200, 9_000])
  ),
  st.tuples(st.sampled_from(["switch", "switch_job"]), st.booleans()),
  st.tuples(
    st.sampled_from(["claim", "finish", "cancel", "pause", "resume"]),
    st.integers(0, 9),
  ),
)

misfires = st.builds(
  Misfire,
  policy=st.sampled_from(MisfirePolicy),
  grace=st.sampled_from([0.0, 60.0]),
  window=st.sampled_from([None, 1_000.0]),
  limit=st.sampled_from([2, 50]),
)


@settings(
  max_examples=60,
  deadline=None,
  suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(story=st.lists(steps, min_size=3, max_size=25), misfire=misfires)
async def test_every_planned_time_is_covered_once_whatever_is_edited_meanwhile(
  clocked: str, story: list[tuple[Any, ...]], misfire: Misfire
) -> None:
  # Opened here, for all examples share the fixtures of one test.
  settings = StorageSettings(dsn=clocked, pool_size=1, statement_timeout=10)
  async with open_storage(settings) as database:
    told = await begin(database, misfire)
    await tell(told, story)
    await told.switch(False)
    await told.check()


@settings(
  max_examples=60,
  deadline=None,
  suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
  story=st.lists(
    steps | st.tuples(st.just("clock"), st.sampled_from([-4_000, -100, 3_000])),
    min_size=3,
    max_size=25,
  ),
  misfire=misfires,
  max_runs=st.sampled_from([None, 5, 200]),
)
async def test_the_ledger_is_whole_since_the_last_edit_whatever_the_clock_does(
  clocked: str, story: list[tuple[Any, ...]], misfire: Misfire, max_runs: int | None
) -> None:
  settings = StorageSettings(dsn=clocked, pool_size=1, statement_timeout=10)
  async with open_storage(settings) as database:
    told = await begin(database, misfire, max_runs=max_runs)
    await tell(told, story)
    await told.look()
    await told.plan()
    await told.look()


async def begin(
  database: Database, misfire: Misfire | None = None, **more: Any
) -> Story:
  """Make a schedule at the start of time."""
  await database.fetch(SET_CLOCK, at=START)
  config = TaskConfig(cmd="/bin/true", misfire=misfire or Misfire())
  job = await make_job(database, name=str(new_id()), config=config)
  schedule = await make_schedule(database, job, timezone="Europe/Berlin", **more)
  bindings = await bind_all(database)
  return Story(database=database, bindings=bindings, schedule=schedule)


async def tell(told: Story, story: list[tuple[Any, ...]]) -> None:
  """Let a story happen."""
  for what, *values in story:
    match what:
      case "wait":
        await told.wait(*values)
      case "plan":
        await told.plan()
      case "edit":
        await told.edit(cron_expression=values[0])
      case "fill":
        await told.fill(*values)
      case "clock":
        await told.wait(*values)
      case "jitter":
        await told.edit(jitter_seconds=values[0])
      case "switch":
        await told.switch(*values)
      case "switch_job":
        await told.switch_job(*values)
      case _:
        await told.touch(what, *values)


@pytest.mark.parametrize(
  "story",
  [
    # What nobody could plan before the edit.
    [("wait", 1_500), ("edit", "30 2 * * *")],
    # The last of three is claimed first, as jitter may have it.
    [
      *[("edit", "*/20 * * * * *"), ("plan",), ("claim", 2), ("jitter", 5.0)],
      *[("wait", 70), ("plan",)],
    ],
    # Times that have a task stay out of the gap around them.
    [
      *[("edit", "*/20 * * * * *"), ("plan",), ("cancel", 1), ("jitter", 5.0)],
      *[("wait", 1_500), ("plan",)],
    ],
    # The end of the old is the beginning of the new.
    [("wait", 30), ("edit", "*/2 * * * *"), ("wait", 90), ("edit", "* * * * *")],
  ],
  ids=["downtime", "jitter", "gap", "boundary"],
)
async def test_an_edit_leaves_no_time_out(
  clocked: str, story: list[tuple[Any, ...]]
) -> None:
  settings = StorageSettings(dsn=clocked, pool_size=1, statement_timeout=10)
  async with open_storage(settings) as database:
    told = await begin(database)
    await tell(told, story)
    await told.look()
    await told.switch(False)
    await told.check()


@pytest.mark.parametrize("back", [-900, -1_500, -2_900])
async def test_what_a_clock_that_was_ahead_has_booked_does_not_outlive_an_edit(
  clocked: str, back: int
) -> None:
  settings = StorageSettings(dsn=clocked, pool_size=1, statement_timeout=10)
  async with open_storage(settings) as database:
    told = await begin(database)
    story: list[tuple[Any, ...]] = [("clock", 3_000), ("plan",), ("clock", back)]
    await tell(told, [*story, ("edit", "*/2 * * * *"), ("plan",)])
    await told.look()
    # What had passed before the edit stays booked.
    gaps = await database.fetch(GAPS, id=told.schedule.id)
    assert [gap["from_at"] for gap in gaps] == [START.replace(minute=56, second=0)]
    assert sum(gap["count"] for gap in gaps) == (3_030 + back) // 60
    await tell(told, [("wait", 2_000), ("plan",)])
    await told.look()


@pytest.mark.parametrize("what", ["cancel", "finish"])
async def test_an_occurrence_that_has_ended_before_its_time_does_not_come_again(
  clocked: str, what: str
) -> None:
  settings = StorageSettings(dsn=clocked, pool_size=1, statement_timeout=10)
  async with open_storage(settings) as database:
    told = await begin(database, cron_expression="*/20 * * * * *", max_runs=3)
    await told.plan()
    await told.touch(what, 1)
    before = await told.tasks()
    await told.edit(jitter_seconds=0.0, parameters={"n": 1})
    await told.plan()
    after = await told.tasks()
    assert [task["planned_at"] for task in after] == [
      task["planned_at"] for task in before
    ]
    assert after[1]["status"] == before[1]["status"] != "pending"
    await told.wait(61)
    await told.plan()
    assert len(await told.tasks()) == 3


async def test_an_edit_waits_for_what_is_too_much_to_catch_up(clocked: str) -> None:
  settings = StorageSettings(dsn=clocked, pool_size=1, statement_timeout=10)
  async with open_storage(settings) as database:
    told = await begin(
      database, Misfire(grace=2 * 86_400.0), cron_expression="* * * * * *"
    )
    await told.wait(30_000)
    with pytest.raises(Unavailable, match="still catching up"):
      await set_schedule_enabled(database, told.schedule.id, False)
    await told.plan()
    await told.switch(False)
    await told.check()


async def test_all_schedules_of_a_job_are_caught_up_when_it_is_switched_off(
  clocked: str,
) -> None:
  settings = StorageSettings(dsn=clocked, pool_size=1, statement_timeout=10)
  async with open_storage(settings) as database:
    first = await begin(database, cron_expression="* * * * *")
    job = await get_job(database, first.schedule.job_id)
    second = attrs.evolve(
      first,
      schedule=await make_schedule(database, job, cron_expression="*/7 * * * * *"),
      periods=[],
    )
    await first.wait(1_500)
    second.now = first.now
    second.periods.append((timing_of(second.schedule), START, second.now))
    await first.switch_job(False)
    await first.check()
    await second.check()
