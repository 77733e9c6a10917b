"""Calendars in a real database, and the schedules that heed them."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import trio
from support.world import (
  make_job,
  make_namespace,
  make_schedule,
  plan_task,
  planned_times,
  query,
  read_clock,
  read_cursor,
)

from hetuflow.errors import Conflict, NotFound, ProtocolError, ScheduleError
from hetuflow.protocol.model import (
  Calendar,
  CalendarFilter,
  CalendarForCreate,
  CalendarForUpdate,
  CalendarMode,
  Job,
  Schedule,
  ScheduleCalendar,
  ScheduleFilter,
  ScheduleForUpdate,
  new_id,
)
from hetuflow.storage.calendars import (
  create_calendar,
  delete_calendar,
  get_calendar,
  query_calendar_versions,
  query_calendars,
  update_calendar,
)
from hetuflow.storage.connect import Database
from hetuflow.storage.jobs import delete_job
from hetuflow.storage.schedules import (
  delete_schedule,
  get_schedule,
  query_schedules,
  update_schedule,
)

WEEKEND = {"weekly": ["sat", "sun"]}
EVERY_DAY = {"weekly": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]}
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
AGED = query("""
  UPDATE sched_schedule SET cursor_at = $at, next_plan_at = $at WHERE id = $id
""")


def ics(*days: str, rule: str = "") -> str:
  """Write an iCalendar file with an event on each day."""
  events = [
    f"BEGIN:VEVENT\r\nUID:{day}\r\nDTSTAMP:20260101T000000Z\r\n"
    f"DTSTART;VALUE=DATE:{day.replace('-', '')}\r\n{rule}SUMMARY:x\r\nEND:VEVENT\r\n"
    for day in days
  ]
  head = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:test\r\n"
  return f"{head}{''.join(events)}END:VCALENDAR\r\n"


async def make_calendar(
  database: Database, name: str = "closed", **more: Any
) -> Calendar:
  """Make a calendar; of all days unless it is said otherwise."""
  wish = {"definition": EVERY_DAY} | more
  return await create_calendar(database, CalendarForCreate(name=name, **wish))


def heeds(name: str, mode: str = "exclude") -> list[ScheduleCalendar]:
  """Say that a schedule heeds one calendar."""
  return [ScheduleCalendar(name=name, mode=CalendarMode(mode))]


@pytest.fixture
async def job(database: Database) -> Job:
  return await make_job(database)


async def test_a_calendar_is_read_as_it_was_made(database: Database) -> None:
  made = await make_calendar(database, "weekend", definition=WEEKEND)
  assert (made.version, made.definition) == (1, WEEKEND)
  assert await get_calendar(database, made.id) == made
  other = await make_calendar(database, "other")
  every = CalendarFilter()
  assert await query_calendars(database, every, limit=9) == [other, made]
  assert await query_calendars(database, every, limit=9, cursor=other.id) == [made]
  named = CalendarFilter(namespace_id="default", name="weekend")
  assert await query_calendars(database, named, limit=9) == [made]


async def test_a_name_is_taken_once_in_a_namespace(database: Database) -> None:
  await make_namespace(database, "other")
  await make_calendar(database)
  await make_calendar(database, namespace_id="other")
  with pytest.raises(Conflict, match="'closed' already exists in namespace 'default'"):
    await make_calendar(database)
  with pytest.raises(NotFound, match="no namespace 'nowhere'"):
    await make_calendar(database, namespace_id="nowhere")


@pytest.mark.parametrize(
  ("wish", "path"),
  [
    ({"definition": {}}, "$.definition"),
    ({"definition": {"weekly": ["sol"]}}, "$.definition.weekly[0]"),
    ({"definition": {"dates": [{"from": "2026-01-02"}]}}, "$.definition.dates[0]"),
    (
      {"definition": {"holidays": {"country": "Atlantis"}}},
      "$.definition.holidays.country",
    ),
    ({"definition": {"ics": "no file"}}, "$.definition.ics"),
    ({"ics": "no file"}, "$.ics"),
    ({"definition": {"ics": ics("2026-12-24")}, "ics": ics("2026-12-24")}, "$.ics"),
  ],
)
async def test_what_is_no_calendar_names_its_place(
  database: Database, wish: dict[str, Any], path: str
) -> None:
  good = await make_calendar(database, "good")
  with pytest.raises(ProtocolError) as caught:
    await make_calendar(database, **({"definition": {}} | wish))
  assert caught.value.issues[0][0] == path
  with pytest.raises(ProtocolError) as caught:
    await update_calendar(
      database, good.id, CalendarForUpdate(**({"definition": {}} | wish))
    )
  assert caught.value.issues[0][0] == path
  assert await query_calendars(database, CalendarFilter(), limit=9) == [good]


async def test_the_days_of_a_file_become_dates(database: Database) -> None:
  today = (await read_clock(database)).date()
  soon, past = today + timedelta(days=9), today - timedelta(days=3_000)
  text = ics(soon.isoformat(), past.isoformat())
  made = await make_calendar(database, definition=WEEKEND, ics=text)
  assert made.definition == WEEKEND | {"dates": [soon.isoformat()]}
  alone = await make_calendar(database, "alone", definition={}, ics=text)
  assert alone.definition == {"dates": [soon.isoformat()]}
  yearly = ics(soon.isoformat(), rule="RRULE:FREQ=YEARLY\r\n")
  changed = await update_calendar(database, made.id, CalendarForUpdate(ics=yearly))
  assert changed.definition["weekly"] == ["sat", "sun"]
  dates = [date.fromisoformat(text) for text in changed.definition["dates"]]
  assert dates[0] == soon
  assert 9 <= len(dates) <= 11


async def test_other_days_are_a_new_version_and_the_same_are_not(
  database: Database,
) -> None:
  made = await make_calendar(database)
  told = await update_calendar(
    database, made.id, CalendarForUpdate(description="told", definition=EVERY_DAY)
  )
  assert (told.version, told.description) == (1, "told")
  changed = await update_calendar(
    database, made.id, CalendarForUpdate(definition=WEEKEND, version=1)
  )
  assert (changed.version, changed.description) == (2, "told")
  with pytest.raises(Conflict, match="at version 2 by now, not 1"):
    await update_calendar(
      database, made.id, CalendarForUpdate(definition=EVERY_DAY, version=1)
    )
  versions = await query_calendar_versions(database, made.id, limit=9)
  assert [(each.version, each.definition) for each in versions] == [
    (2, WEEKEND),
    (1, EVERY_DAY),
  ]
  older = await query_calendar_versions(database, made.id, limit=9, cursor=2)
  assert [each.version for each in older] == [1]


async def test_a_calendar_that_is_not_there_cannot_be_changed(
  database: Database,
) -> None:
  nobody = new_id()
  for act in (
    get_calendar(database, nobody),
    query_calendar_versions(database, nobody, limit=1),
    update_calendar(database, nobody, CalendarForUpdate()),
    delete_calendar(database, nobody),
  ):
    with pytest.raises(NotFound, match="no calendar"):
      await act


async def test_a_schedule_names_calendars_of_its_namespace(
  database: Database, job: Job
) -> None:
  await make_namespace(database, "other")
  await make_calendar(database, namespace_id="other")
  with pytest.raises(ScheduleError, match="no calendar 'closed'") as caught:
    await make_schedule(database, job, calendars=heeds("closed"))
  assert caught.value.field == "calendars[0].name"
  schedule = await make_schedule(database, job)
  with pytest.raises(ScheduleError) as caught:
    await update_schedule(
      database, schedule.id, ScheduleForUpdate(calendars=heeds("closed"))
    )
  assert caught.value.field == "calendars[0].name"
  assert (await get_schedule(database, schedule.id)).calendars == []


async def test_a_schedule_fires_next_on_a_day_that_is_open(
  database: Database, job: Job
) -> None:
  now = await read_clock(database)
  first, last = (now + timedelta(days=n) for n in (-1, 9))
  away = {"dates": [{"from": f"{first:%Y-%m-%d}", "to": f"{last:%Y-%m-%d}"}]}
  await make_calendar(database, definition=away)
  schedule = await make_schedule(
    database, job, cron_expression="0 12 * * *", calendars=heeds("closed")
  )
  noon = last.replace(hour=12, minute=0, second=0, microsecond=0)
  assert schedule.next_run_at == noon + timedelta(days=1)
  assert (await read_cursor(database, schedule))["next_plan_at"] == schedule.next_run_at
  [listed] = await query_schedules(database, ScheduleFilter(), limit=9)
  assert listed == schedule
  free = await update_schedule(database, schedule.id, ScheduleForUpdate(calendars=[]))
  assert free.next_run_at is not None
  assert free.next_run_at < noon


async def test_a_changed_calendar_plans_its_schedules_anew(
  database: Database, job: Job
) -> None:
  calendar = await make_calendar(database, definition=WEEKEND)
  heeding = await make_schedule(
    database, job, timezone="Asia/Tokyo", calendars=heeds("closed", "next")
  )
  other = await make_schedule(database, job)
  soon = await read_clock(database) + timedelta(seconds=90)
  for schedule in (heeding, other):
    await plan_task(database, schedule, soon)
  before = await read_cursor(database, heeding), await read_cursor(database, other)
  closed = CalendarForUpdate(definition=EVERY_DAY)
  await update_calendar(database, calendar.id, closed)
  after = await read_cursor(database, heeding), await read_cursor(database, other)
  assert after[0]["revision"] == before[0]["revision"] + 1
  assert after[1] == before[1]
  assert after[0]["next_plan_at"] is None
  assert await planned_times(database, heeding) == []
  assert await planned_times(database, other) == [soon]
  assert (await get_schedule(database, heeding.id)).next_run_at is None


async def test_what_was_due_before_a_change_is_planned_by_the_old_days(
  database: Database, job: Job
) -> None:
  calendar = await make_calendar(database, definition={"dates": ["2019-01-01"]})
  schedule = await make_schedule(
    database, job, cron_expression="0 12 * * *", calendars=heeds("closed")
  )
  since = await read_clock(database) - timedelta(days=3)
  await database.fetch(AGED, id=schedule.id, at=since)
  await update_calendar(database, calendar.id, CalendarForUpdate(definition=EVERY_DAY))
  [caught_up] = await planned_times(database, schedule)
  assert caught_up > since + timedelta(days=1)
  assert (await read_cursor(database, schedule))["next_plan_at"] is None


async def test_a_calendar_in_use_stays(database: Database, job: Job) -> None:
  calendar = await make_calendar(database)
  schedule = await make_schedule(
    database, job, name="nightly", calendars=heeds("closed")
  )
  with pytest.raises(Conflict, match="'closed': 'nightly' of 'backup'"):
    await delete_calendar(database, calendar.id)
  await delete_schedule(database, schedule.id)
  await delete_calendar(database, calendar.id)
  with pytest.raises(NotFound):
    await get_calendar(database, calendar.id)


async def test_schedules_of_deleted_jobs_do_not_keep_a_calendar(
  database: Database, job: Job
) -> None:
  calendar = await make_calendar(database)
  schedule = await make_schedule(database, job, calendars=heeds("closed"))
  await delete_job(database, job.id)
  await delete_calendar(database, calendar.id)
  assert (await get_schedule(database, schedule.id)).calendars == heeds("closed")


async def test_editors_of_calendars_and_schedules_do_not_undo_each_other(
  database: Database, job: Job
) -> None:
  calendar = await make_calendar(database, definition=WEEKEND)
  made: list[Schedule] = [
    await make_schedule(database, job, calendars=heeds("closed")) for _ in range(4)
  ]

  async def change_calendar() -> None:
    for turn in range(10):
      days = EVERY_DAY if turn % 2 else WEEKEND
      await update_calendar(database, calendar.id, CalendarForUpdate(definition=days))

  async def change_schedule(schedule: Schedule) -> None:
    for turn in range(10):
      uses = heeds("closed", ("include", "exclude")[turn % 2])
      await update_schedule(database, schedule.id, ScheduleForUpdate(calendars=uses))

  with trio.fail_after(30):
    async with trio.open_nursery() as nursery:
      nursery.start_soon(change_calendar)
      for schedule in made:
        nursery.start_soon(change_schedule, schedule)
  # At the end every day is excluded: whoever came last, nothing may be planned.
  for schedule in made:
    assert (await read_cursor(database, schedule))["next_plan_at"] is None
    assert await planned_times(database, schedule) == []
