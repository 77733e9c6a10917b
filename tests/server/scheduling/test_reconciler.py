"""The loop that keeps schedules going, called by hand."""

from support.world import bind_all, make_job, make_schedule, query

from hetuflow.nursery import Wakeup
from hetuflow.protocol.states import ScheduleKind
from hetuflow.server.scheduling.reconciler import Reconciler
from hetuflow.storage.connect import Database

# No moment lies so far ahead: no task of the job can be made.
SPOIL = query("UPDATE sched_job SET start_deadline = 1e18 WHERE name = 'broken'")
LIVE = query("SELECT schedule_id FROM sched_task WHERE completed_at = 'infinity'")


async def test_a_schedule_that_cannot_be_kept_going_stops_no_other(
  database: Database,
) -> None:
  delay = {
    "kind": ScheduleKind.TIME,
    "cron_expression": None,
    "interval_seconds": 30.0,
    "fixed_delay": True,
  }
  await make_schedule(database, await make_job(database, "broken"), **delay)
  sound = await make_schedule(database, await make_job(database, "sound"), **delay)
  await database.fetch(SPOIL)
  bindings = await bind_all(database)
  loop = Reconciler(database, bindings, Wakeup(), horizon=60.0)
  for _ in range(2):
    await loop.reconcile_once()
  rows = await database.fetch(LIVE)
  assert [row["schedule_id"] for row in rows] == [sound.id]
