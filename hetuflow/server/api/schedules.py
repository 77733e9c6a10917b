"""``/schedules``."""

from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import attrs
import trio
from quart import Blueprint, Response, request

from hetuflow.errors import ProtocolError
from hetuflow.protocol.model import (
  Instant,
  Schedule,
  ScheduleFilter,
  ScheduleForCreate,
  ScheduleForPreview,
  ScheduleForUpdate,
)
from hetuflow.protocol.model.schedule import MAX_PREVIEW
from hetuflow.schedule import preview
from hetuflow.server.api.exchange import (
  answer,
  created,
  no_content,
  page,
  read_body,
  read_number,
  read_query,
  single,
)
from hetuflow.server.api.ledger import backfill_schedule, read_ledger
from hetuflow.server.api.once import create_once
from hetuflow.server.api.operation import operation
from hetuflow.server.api.services import services
from hetuflow.server.api.what_if import what_if
from hetuflow.storage import forecast, schedules
from hetuflow.storage.timing import find_calendars, timing_for

__all__ = ["blueprint"]

blueprint = Blueprint("schedules", __name__)

DEFAULT_COUNT = 10
_COUNT = {"type": "integer", "minimum": 1, "maximum": MAX_PREVIEW, "default": 10}


@attrs.frozen(kw_only=True)
class Preview:
  """When a timing fires; UTC."""

  fire_times: list[Instant]


@blueprint.get("")
@operation(Schedule, filter=ScheduleFilter)
async def list_schedules() -> Response:
  """List schedules, newest first."""
  paging = read_query(ScheduleFilter)
  found = await schedules.query_schedules(
    services().database, paging.filter, limit=paging.limit + 1, cursor=paging.after
  )
  return page(found, paging.limit)


@blueprint.post("")
@operation(Schedule, status=201, body=ScheduleForCreate, once=True)
async def create_schedule() -> Response:
  """Make a schedule for a job."""
  wish = await read_body(ScheduleForCreate)
  made = await create_once(lambda executor: schedules.create_schedule(executor, wish))
  services().wake("schedules", made["namespace_id"])
  return created(made, f"schedules/{made['id']}")


@blueprint.post("/preview")
@operation(Preview, body=ScheduleForPreview)
async def preview_schedule() -> Response:
  """Tell when a timing would fire, from ``start_at`` or now on; nothing is stored."""
  wish = await read_body(ScheduleForPreview)
  now = datetime.now(UTC)
  calendars = await find_calendars(
    services().database, wish.namespace_id, wish.calendars
  )
  timing = timing_for(
    wish,
    id=None,
    namespace_id=wish.namespace_id,
    created_at=now,
    calendars=calendars,
  )
  # Calendars may leave nothing for years: a thread searches while others are served.
  times = await trio.to_thread.run_sync(
    partial(preview, timing, start=wish.start_at or now, count=wish.count)
  )
  return answer(Preview(fire_times=times))


blueprint.post("/what-if")(what_if)


@blueprint.get("/<uuid:schedule_id>")
@operation(Schedule)
async def get_schedule(schedule_id: UUID) -> Response:
  """Read a schedule."""
  return answer(await schedules.get_schedule(services().database, schedule_id))


@blueprint.get("/<uuid:schedule_id>/next")
@operation(Preview, query={"count": _COUNT})
async def list_next_fires(schedule_id: UUID) -> Response:
  """Tell when a schedule fires next, as it is now; a disabled one does not."""
  for name in request.args:
    if name != "count":
      raise ProtocolError([(f"$.{name}", "unknown key")])
  count = DEFAULT_COUNT
  if "count" in request.args:
    count = read_number("count", single("count"), 1, MAX_PREVIEW)
  times = await forecast.list_next_fires(services().database, schedule_id, count=count)
  return answer(Preview(fire_times=times))


@blueprint.patch("/<uuid:schedule_id>")
@operation(Schedule, body=ScheduleForUpdate)
async def update_schedule(schedule_id: UUID) -> Response:
  """Change a schedule; what is planned and not begun is planned anew."""
  update = await read_body(ScheduleForUpdate)
  schedule = await schedules.update_schedule(services().database, schedule_id, update)
  services().wake("schedules", schedule.namespace_id)
  return answer(schedule)


@blueprint.delete("/<uuid:schedule_id>")
@operation(status=204)
async def delete_schedule(schedule_id: UUID) -> Response:
  """Remove a schedule; tasks that agents have taken go on."""
  await schedules.delete_schedule(services().database, schedule_id)
  return no_content()


@blueprint.post("/<uuid:schedule_id>/enable")
@operation(Schedule)
async def enable_schedule(schedule_id: UUID) -> Response:
  """Let a schedule fire, from now on."""
  return await _switch(schedule_id, True)


@blueprint.post("/<uuid:schedule_id>/disable")
@operation(Schedule)
async def disable_schedule(schedule_id: UUID) -> Response:
  """Keep a schedule from firing."""
  return await _switch(schedule_id, False)


blueprint.get("/<uuid:schedule_id>/ledger")(read_ledger)
blueprint.post("/<uuid:schedule_id>/backfill")(backfill_schedule)


async def _switch(schedule_id: UUID, enabled: bool) -> Response:
  """Enable or disable."""
  schedule = await schedules.set_schedule_enabled(
    services().database, schedule_id, enabled
  )
  services().wake("schedules", schedule.namespace_id)
  return answer(schedule)
