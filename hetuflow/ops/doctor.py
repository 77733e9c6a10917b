"""``doctor`` and ``repair``: is the database consistent, and what of it can be mended.

Both may run beside servers. A repair leaves alone what has changed since it was found.
"""

import attrs

from hetuflow.errors import SchemaMismatch
from hetuflow.ops.ledgers import look_at_ledgers
from hetuflow.storage.connect import Database
from hetuflow.storage.doctor import CHECKS, Check, Fault, count_servers, look
from hetuflow.storage.migrate import check_schema
from hetuflow.storage.repair import Repair, repair

__all__ = ["DAYS", "LEDGER", "Finding", "Mended", "Report", "diagnose", "mend"]

DAYS = 7
"""How far back planned times are accounted for, unless it is said."""
LEDGER = "ledger"
NO_SERVER = "not judged: no server is there to see to it"


@attrs.frozen(kw_only=True)
class Finding:
  """What one check has found; ``ok`` is null where it could not be judged.

  ``repair`` says what ``hetuflow repair`` does about it, if anything.
  """

  name: str
  promise: str
  ok: bool | None
  count: int = 0
  examples: list[Fault] = attrs.field(factory=list)
  repair: str | None = None
  note: str | None = None


@attrs.frozen(kw_only=True)
class Report:
  """The findings of all checks."""

  checks: list[Finding]

  @property
  def ok(self) -> bool:
    """Whether nothing was found wrong."""
    return all(finding.ok is not False for finding in self.checks)


@attrs.frozen(kw_only=True)
class Mended:
  """What a repair has done, or would do: of how many rows."""

  name: str
  promise: str
  count: int


async def diagnose(database: Database, *, days: int = DAYS) -> Report:
  """Run every check; without the schema of this version only that is told.

  Args:
    database: what to look at.
    days: how far back the planned times of schedules are accounted for.
  """
  schema = await _check_schema(database)
  if not schema.ok:
    return Report(checks=[schema])
  served = await count_servers(database) > 0
  found = [await _judge(database, check, served=served) for check in CHECKS]
  return Report(checks=[schema, *found, await _check_ledgers(database, days)])


async def _check_schema(database: Database) -> Finding:
  """See that the database has the schema of this version."""
  name, promise = "schema", "the database has the schema of this version"
  try:
    await check_schema(database)
  except SchemaMismatch as error:
    fault = Fault(subject="schema", matter=str(error))
    return Finding(
      name=name,
      promise=promise,
      ok=False,
      count=1,
      examples=[fault],
      note="nothing else was judged",
    )
  return Finding(name=name, promise=promise, ok=True)


async def _judge(database: Database, check: Check, *, served: bool) -> Finding:
  """Run one check, unless there is nobody to blame."""
  finding = Finding(name=check.name, promise=check.promise, ok=None, note=NO_SERVER)
  if check.served and not served:
    return finding
  count, faults = await look(database, check)
  how = check.repair.promise if count and check.repair is not None else None
  return attrs.evolve(
    finding, ok=not count, count=count, examples=faults, repair=how, note=None
  )


async def _check_ledgers(database: Database, days: int) -> Finding:
  """Account for the planned times of every schedule."""
  count, faults = await look_at_ledgers(database, days=days)
  return Finding(
    name=LEDGER,
    promise=f"each planned time of the last {days} days came to exactly one thing",
    ok=not count,
    count=count,
    examples=faults,
  )


async def mend(database: Database, *, dry_run: bool) -> list[Mended]:
  """Mend what is mechanical, in the order of the checks.

  Args:
    database: what to mend.
    dry_run: whether only to say what would be done.

  Returns:
    What was done, or would be at this moment.

  Raises:
    SchemaMismatch: the database has not the schema of this version.
  """
  await check_schema(database)
  done: dict[str, Mended] = {}
  for check in CHECKS:
    if check.repair is None or check.repair.name in done:
      continue
    count, _ = await look(database, check)
    if count and not dry_run:
      count = await repair(database, check.repair)
    if count:
      done[check.repair.name] = _mended(check.repair, count)
  return list(done.values())


def _mended(how: Repair, count: int) -> Mended:
  """Say what was done."""
  return Mended(name=how.name, promise=how.promise, count=count)
