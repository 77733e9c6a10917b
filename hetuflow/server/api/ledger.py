"""``/schedules/{id}/ledger`` and ``/schedules/{id}/backfill``."""

from datetime import UTC, datetime
from uuid import UUID

import attrs
from quart import Response, request

from hetuflow.errors import ProtocolError
from hetuflow.protocol import wire
from hetuflow.protocol.model import Backfill, BackfillForCreate, Instant, Ledger
from hetuflow.server.api.exchange import (
  DEFAULT_LIMIT,
  MAX_LIMIT,
  answer,
  read_body,
  read_number,
  single,
)
from hetuflow.server.api.once import create_once
from hetuflow.server.api.operation import operation
from hetuflow.server.api.services import services
from hetuflow.storage import backfill
from hetuflow.storage.ledger import LedgerCursor, query_ledger

__all__ = ["backfill_schedule", "read_ledger"]

_TIME = {"type": "string", "format": "date-time"}
_LIMIT = {
  "type": "integer",
  "minimum": 1,
  "maximum": MAX_LIMIT,
  "default": DEFAULT_LIMIT,
}
_QUERY = {"from": _TIME, "to": _TIME, "limit": _LIMIT, "cursor": {"type": "string"}}


@attrs.frozen(kw_only=True)
class _Moment:
  """A time as it stands in a query."""

  at: Instant


@operation(Ledger, query=_QUERY)
async def read_ledger(schedule_id: UUID) -> Response:
  """Tell what became of the planned times of a schedule, in their order.

  From ``from`` to ``to``, both included; without them the last day up to where the
  schedule is planned. The first page also has the totals, and tells whether each planned
  time is covered exactly once, as far as that can be told: since the last change of the
  definition.
  """
  for name in request.args:
    if name not in _QUERY:
      raise ProtocolError([(f"$.{name}", "unknown key")])
  limit = DEFAULT_LIMIT
  if "limit" in request.args:
    limit = read_number("limit", single("limit"), 1, MAX_LIMIT)
  page, following = await query_ledger(
    services().database,
    schedule_id,
    from_at=_read_moment("from"),
    to_at=_read_moment("to"),
    limit=limit,
    cursor=_read_cursor(),
  )
  cursor = None if following is None else _write_cursor(following)
  return answer(attrs.evolve(page, next_cursor=cursor))


@operation(Backfill, status=201, body=BackfillForCreate, once=True)
async def backfill_schedule(schedule_id: UUID) -> Response:
  """Run the planned times of a past span that did not run.

  Those that have a task are left alone, whatever became of it, so that a repetition makes
  none. Tasks are due at once, in the order of their planned times.
  """
  wish = await read_body(BackfillForCreate)
  made = await create_once(
    lambda executor: backfill.backfill_schedule(executor, schedule_id, wish)
  )
  return answer(made, 201)


def _read_moment(name: str) -> datetime | None:
  """Read a time of the query; None where it is not given."""
  if name not in request.args:
    return None
  try:
    return wire.load(_Moment, {"at": single(name)}).at
  except ProtocolError:
    raise ProtocolError(
      [(f"$.{name}", "expected a time such as 2026-01-31T14:00:00Z")]
    ) from None


def _read_cursor() -> LedgerCursor | None:
  """Read where the page begins."""
  if "cursor" not in request.args:
    return None
  at, _, id = single("cursor").rpartition("_")
  try:
    return LedgerCursor(at=wire.load(_Moment, {"at": at}).at, id=UUID(id))
  except (ProtocolError, ValueError):
    raise ProtocolError([("$.cursor", "expected a next_cursor of a page")]) from None


def _write_cursor(cursor: LedgerCursor) -> str:
  """Write where the next page begins."""
  at = cursor.at.astimezone(UTC).replace(tzinfo=None)
  return f"{at.isoformat()}Z_{cursor.id}"
