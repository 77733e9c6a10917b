"""Whether each planned time of the last days came to something, schedule by schedule."""

from datetime import timedelta
from uuid import UUID

from hetuflow.errors import NotFound, ScheduleError
from hetuflow.protocol.model import LedgerCheck
from hetuflow.storage.connect import Database, Record
from hetuflow.storage.doctor import SHOWN, Fault, list_planned
from hetuflow.storage.ledger import check_ledger

__all__ = ["look_at_ledgers"]

PAGE = 500
"""Schedules that are listed at a time."""


async def look_at_ledgers(database: Database, *, days: int) -> tuple[int, list[Fault]]:
  """Look for planned times that came to nothing, or to two things.

  Args:
    database: where.
    days: how far back.

  Returns:
    How many schedules are at fault, and the first of them.
  """
  count, faults = 0, list[Fault]()
  after: UUID | None = None
  while page := await list_planned(database, after=after, limit=PAGE):
    for schedule in page:
      fault = await _look(database, schedule, days)
      count += fault is not None
      if fault is not None and len(faults) < SHOWN:
        faults.append(fault)
    after = page[-1]["id"]
  return count, faults


async def _look(database: Database, schedule: Record, days: int) -> Fault | None:
  """Look at one schedule, part by part; None if it is well, or gone by now."""
  since = schedule["now"] - timedelta(days=days)
  try:
    check = await check_ledger(database, schedule["id"], since)
    while check.complete and check.more:
      check = await check_ledger(database, schedule["id"], check.until_at)
  except NotFound:
    return None
  except ScheduleError as error:
    matter = f"cannot be understood any more: {error}"
  else:
    if check.complete:
      return None
    matter = _matter(check)
  return Fault(subject=str(schedule["id"]), matter=f"{schedule['name']} {matter}")


def _matter(check: LedgerCheck) -> str:
  """Say what is wrong with the times of a schedule."""
  kinds = (
    ("came to nothing", check.uncovered),
    ("are there twice", check.doubled),
    ("begin a gap that is miscounted", check.miscounted),
  )
  wrong = [
    f"{len(times)} {what} (the first: {times[0]})" for what, times in kinds if times
  ]
  covered = f"has {check.planned} planned times, of which {check.covered} are covered"
  return "; ".join([covered, *wrong])
