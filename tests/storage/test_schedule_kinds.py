"""Schedules without times of their own: made, read, changed, and never planned ahead."""

from datetime import timedelta
from typing import Any

import pytest
from support.world import make_job, make_schedule, read_clock, read_cursor

from hetuflow.errors import ProtocolError, ScheduleError
from hetuflow.protocol.checks import FieldError
from hetuflow.protocol.model import FollowedEnd, ScheduleForUpdate
from hetuflow.protocol.states import ScheduleKind, TaskStatus
from hetuflow.storage.connect import Database
from hetuflow.storage.planning import list_due_schedules
from hetuflow.storage.schedules import (
  get_schedule,
  set_schedule_enabled,
  update_schedule,
)

KINDS: dict[str, dict[str, Any]] = {
  "daemon": {"kind": ScheduleKind.DAEMON, "replicas": 2},
  "delay": {"kind": ScheduleKind.TIME, "interval_seconds": 60.0, "fixed_delay": True},
  "event": {
    "kind": ScheduleKind.EVENT,
    "event_name": "file.arrived",
    "event_filter": {"path": "/in"},
  },
  "flow": {
    "kind": ScheduleKind.FLOW,
    "after": FollowedEnd(job="extract", status=[TaskStatus.FAILED]),
  },
}
CHANGES: dict[str, dict[str, Any]] = {
  "daemon": {"replicas": 5},
  "delay": {"interval_seconds": 90.0},
  "event": {"event_filter": None},
  "flow": {"after": FollowedEnd(job="load")},
}


async def make(database: Database, what: str, **more: Any) -> Any:
  """Make a schedule of a kind."""
  wish = {"cron_expression": None} | KINDS[what] | more
  return await make_schedule(database, await make_job(database), **wish)


@pytest.mark.parametrize("what", KINDS)
async def test_each_kind_is_read_as_it_was_made_and_changed(
  database: Database, what: str
) -> None:
  schedule = await make(database, what)
  for name, value in KINDS[what].items():
    assert getattr(schedule, name) == value
  change = CHANGES[what]
  await update_schedule(database, schedule.id, ScheduleForUpdate(**change))
  changed = await get_schedule(database, schedule.id)
  for name, value in change.items():
    assert getattr(changed, name) == value


@pytest.mark.parametrize("what", KINDS)
async def test_none_of_them_is_planned_ahead(database: Database, what: str) -> None:
  schedule = await make(database, what)
  for enabled in (False, True):
    await set_schedule_enabled(database, schedule.id, enabled)
    assert (await read_cursor(database, schedule))["next_plan_at"] is None
  assert (
    await list_due_schedules(database, horizon=1e6, namespaces=["default"], limit=10)
    == []
  )
  assert (await get_schedule(database, schedule.id)).next_run_at is None


@pytest.mark.parametrize("what", KINDS)
async def test_what_is_said_of_time_is_checked(database: Database, what: str) -> None:
  now = await read_clock(database)
  with pytest.raises(ScheduleError) as caught:
    await make(database, what, start_at=now, end_at=now - timedelta(hours=1))
  assert caught.value.field == "end_at"
  with pytest.raises(ScheduleError) as caught:
    await make_schedule(
      database,
      await make_job(database, name="other"),
      **({"cron_expression": None, "timezone": "Mars/Base"} | KINDS[what]),
    )
  assert caught.value.field == "timezone"


@pytest.mark.parametrize(
  ("what", "change", "field"),
  [
    ("daemon", {"cron_expression": "* * * * *"}, "$.cron_expression"),
    ("daemon", {"max_runs": 3}, "$.max_runs"),
    ("daemon", {"fixed_delay": True}, "$.fixed_delay"),
    ("delay", {"replicas": 3}, "$.replicas"),
    ("event", {"after": FollowedEnd(job="x")}, "$.after"),
    ("flow", {"event_filter": {"a": 1}}, "$.event_filter"),
    ("flow", {"interval_seconds": 5.0}, "$.interval_seconds"),
  ],
)
async def test_a_change_names_what_does_not_belong(
  database: Database, what: str, change: dict[str, Any], field: str
) -> None:
  schedule = await make(database, what)
  with pytest.raises(ProtocolError) as caught:
    await update_schedule(database, schedule.id, ScheduleForUpdate(**change))
  assert [path for path, _ in caught.value.issues] == [field]


async def test_a_time_replaces_a_delay_and_a_delay_comes_back(
  database: Database,
) -> None:
  schedule = await make(database, "delay")
  at = await read_clock(database) + timedelta(hours=1)
  once = await update_schedule(database, schedule.id, ScheduleForUpdate(run_at=at))
  assert (once.interval_seconds, once.fixed_delay) == (None, False)
  assert once.next_run_at == at
  change = ScheduleForUpdate(interval_seconds=30.0, fixed_delay=True)
  back = await update_schedule(database, schedule.id, change)
  assert (back.run_at, back.next_run_at) == (None, None)


async def test_calendars_and_delays_do_not_go_together(database: Database) -> None:
  uses: list[Any] = [{"name": "holidays"}]
  with pytest.raises(FieldError, match="calendars"):
    await make(database, "delay", calendars=uses)


async def test_a_job_does_not_follow_itself(database: Database) -> None:
  job = await make_job(database, name="extract")
  wish = {"cron_expression": None} | KINDS["flow"]
  with pytest.raises(ScheduleError) as caught:
    await make_schedule(database, job, **wish)
  assert caught.value.field == "after.job"
