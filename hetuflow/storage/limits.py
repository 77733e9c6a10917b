"""Limits and deadlines of tasks: who gets a place, who is too late.

A place in a lane is held by being ``pending``, ``dispatched``, ``running`` or
``waiting_retry``. Places are counted anew for every decision, with the namespace's lock,
so that nothing can leak: what ends, however it ends, holds nothing any more.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import attrs

from hetuflow.protocol.model import NamespaceId
from hetuflow.protocol.states import OverlapPolicy, TaskStatus
from hetuflow.storage.connect import Connection, Database, Record
from hetuflow.storage.judgement import (
  Candidate,
  Judgement,
  Rate,
  choose_replaced,
  judge,
)
from hetuflow.storage.lanes import NAMESPACE_LANE, reason_of
from hetuflow.storage.sql import load_queries

__all__ = [
  "Look",
  "Pass",
  "adopt_running",
  "adopt_waiting",
  "expire_overdue",
  "judge_tasks",
  "look_at_limits",
  "miss_late",
]

_sql = load_queries("limits")

LANES_PER_PASS = 500
BATCH = 2_000
SHARE = 500
"""Rows of one lane in a pass; a lane without end must not be all that is looked at."""
SWEEP_LIMIT = 1_000


@attrs.frozen(kw_only=True)
class Look:
  """What there is to decide in a namespace; times in seconds from now, None: never.

  ``strays`` says that tasks wait without a lane though the namespace is ``limited``.
  """

  namespace_id: NamespaceId
  due_in: float | None
  start_in: float | None
  end_in: float | None
  strays: bool
  limited: bool


@attrs.frozen(kw_only=True)
class Pass:
  """What one pass over a namespace came to.

  ``next_in`` is the seconds until something is due or free by time alone; ``after`` is
  the lane behind which the next pass goes on, empty where all were looked at; ``more``
  says that there is more to do at once.
  """

  promoted: int
  settled: int
  replaced: int
  next_in: float | None
  after: str
  more: bool


async def look_at_limits(
  executor: Database | Connection, namespace_ids: Sequence[NamespaceId] | None
) -> list[Look]:
  """Read where there is anything to decide, now or later.

  Args:
    executor: where to read.
    namespace_ids: which ones to look at; None: all.
  """
  rows = await executor.fetch(
    _sql.look_at_limits,
    namespace_ids=None if namespace_ids is None else list(namespace_ids),
  )
  return [Look(**dict(row)) for row in rows]


async def judge_tasks(
  database: Database, namespace_id: NamespaceId, *, after: str = ""
) -> Pass:
  """Decide once over the tasks of a namespace that wait for a place.

  Args:
    database: where to decide; takes a transaction of its own.
    namespace_id: whose tasks.
    after: the lane behind which to begin.
  """
  async with database.transaction() as connection:
    await connection.fetch(_sql.lock_limits, namespace_id=namespace_id)
    rows = await connection.fetch(
      _sql.list_candidates,
      namespace_id=namespace_id,
      after=after,
      lanes=LANES_PER_PASS,
      share=SHARE,
      batch=BATCH,
      free_lane=NAMESPACE_LANE,
    )
    if not rows:  # there is no such namespace any more
      return Pass(promoted=0, settled=0, replaced=0, next_in=None, after="", more=False)
    candidates = [_candidate(row) for row in rows if row["lane"] is not None]
    judgement = judge(
      candidates,
      {row["lane"]: row["holders"] for row in rows if row["lane"] is not None},
      room=_room(rows[0]),
      now=rows[0]["now"],
    )
    holders = await _list_holders(connection, namespace_id, judgement)
    lanes = {each.id: each.lane for each in candidates}
    promoted, settled = await _settle(
      connection, namespace_id, judgement, holders, lanes
    )
    replaced, ended = await _replace(connection, namespace_id, judgement, holders)
  behind, cut = _behind(rows)
  if judgement.room <= 0:
    # The lanes behind go first when there is room again.
    cut = False
  return Pass(
    promoted=promoted,
    settled=settled,
    replaced=replaced,
    next_in=_next_in(rows[0], judgement),
    after=behind,
    more=cut or ended > 0 or _goes_on(rows, judgement),
  )


def _candidate(row: Record) -> Candidate:
  """Read one task that waits, with what its job says of its lane."""
  limits = {} if row["lane"] == NAMESPACE_LANE else _limits(row)
  return Candidate(
    id=row["id"], lane=row["lane"], job_id=row["job_id"], due_at=row["due_at"], **limits
  )


def _limits(row: Record) -> dict[str, Any]:
  """Read the limits of a job."""
  overlap = OverlapPolicy(row["overlap"])
  limits: dict[str, Any] = {"overlap": overlap}
  if row["max_concurrent"] is not None:
    limits["max"] = row["max_concurrent"]
  elif row["concurrency_key"] is not None or overlap is not OverlapPolicy.ALLOW:
    limits["max"] = 1
  if row["rate_count"] is not None:
    limits["rate"] = Rate(
      count=row["rate_count"], seconds=row["rate_seconds"], arrival_at=row["arrival_at"]
    )
  return limits


def _room(row: Record) -> float:
  """Say how many more tasks the namespace may have under way."""
  if row["max_running"] is None:
    return float("inf")
  return float(row["max_running"] - row["running"])


async def _list_holders(
  connection: Connection, namespace_id: NamespaceId, judgement: Judgement
) -> dict[str, list[tuple[UUID, bool]]]:
  """Read who has the places, where that matters for those who find none."""
  lanes = {each.lane for each in judgement.skipped} | set(judgement.replacing)
  if not lanes:
    return {}
  rows = await connection.fetch(
    _sql.list_holders, namespace_id=namespace_id, lanes=sorted(lanes), limit=SHARE
  )
  holders: dict[str, list[tuple[UUID, bool]]] = {lane: [] for lane in lanes}
  for row in rows:
    holders[row["lane"]].append((row["id"], row["ending"]))
  return holders


async def _settle(
  connection: Connection,
  namespace_id: NamespaceId,
  judgement: Judgement,
  holders: dict[str, list[tuple[UUID, bool]]],
  lanes: dict[UUID, str],
) -> tuple[int, int]:
  """Carry out what was decided of tasks that wait; count promoted and all of them."""
  pending, skipped = TaskStatus.PENDING, TaskStatus.SKIPPED
  first = {lane: str(found[0][0]) for lane, found in holders.items() if found}
  first |= {
    each.lane: str(each.id) for each in judgement.promoted if each.lane not in first
  }
  settled: list[tuple[UUID, TaskStatus, str | None]] = [
    *((each.id, pending, None) for each in judgement.promoted),
    *(
      (each.id, skipped, f"skipped: task {first.get(each.lane)} has the place")
      for each in judgement.skipped
    ),
    *(
      (id, skipped, f"replaced by task {newer}")
      for id, newer in judgement.outrun.items()
    ),
  ]
  if not settled:
    return 0, 0
  row = await connection.fetchrow(
    _sql.settle_tasks,
    namespace_id=namespace_id,
    ids=[id for id, _, _ in settled],
    lanes=[lanes[id] for id, _, _ in settled],
    statuses=[status for _, status, _ in settled],
    reasons=[reason for _, _, reason in settled],
    rate_jobs=sorted(judgement.arrivals),
    arrivals=[judgement.arrivals[job_id] for job_id in sorted(judgement.arrivals)],
  )
  return (0, 0) if row is None else (row["promoted"], row["settled"])


async def _replace(
  connection: Connection,
  namespace_id: NamespaceId,
  judgement: Judgement,
  holders: dict[str, list[tuple[UUID, bool]]],
) -> tuple[int, int]:
  """End holders for those that replace them; count them, and those that ended at once."""
  replaced: dict[UUID, UUID] = {}
  for lane in judgement.replacing:
    replaced |= choose_replaced(judgement, lane, holders[lane])
  if not replaced:
    return 0, 0
  row = await connection.fetchrow(
    _sql.replace_tasks,
    namespace_id=namespace_id,
    ids=list(replaced),
    reasons=[f"replaced by task {newer}" for newer in replaced.values()],
  )
  return (0, 0) if row is None else (row["replaced"], row["ended"])


def _behind(rows: Sequence[Record]) -> tuple[str, bool]:
  """Say behind which lane to go on, and whether there are lanes not looked at."""
  lanes = sorted({row["lane"] for row in rows if row["lane"] is not None})
  if len(rows) >= BATCH:
    # The last lane may have been cut off; there are others, as none fills a batch.
    return lanes[-2], True
  behind: str | None = rows[0]["last_lane"]
  return behind or "", behind is not None


def _goes_on(rows: Sequence[Record], judgement: Judgement) -> bool:
  """Tell whether some lane may have more places than candidates were read of it."""
  if not judgement.settled:
    return False
  read = Counter(row["lane"] for row in rows)
  settled = Counter(each.lane for each in judgement.promoted + judgement.skipped)
  settled.update(row["lane"] for row in rows if row["id"] in judgement.outrun)
  return any(
    row["places"] == read[row["lane"]] == settled[row["lane"]]
    for row in rows
    if row["lane"] in settled
  )


def _next_in(row: Record, judgement: Judgement) -> float | None:
  """Say in how many seconds time alone makes a difference."""
  now: datetime = row["now"]
  moments = [at for at in (row["next_due_at"], judgement.free_at) if at is not None]
  return min(((at - now) / timedelta(seconds=1) for at in moments), default=None)


async def adopt_waiting(database: Database, namespace_id: NamespaceId) -> bool:
  """Put waiting tasks without a lane behind their namespace's limit.

  Returns:
    Whether there may be more.
  """
  rows = await database.fetch(
    _sql.adopt_waiting,
    namespace_id=namespace_id,
    lane=NAMESPACE_LANE,
    reason=reason_of(NAMESPACE_LANE),
    limit=SWEEP_LIMIT,
  )
  return len(rows) == SWEEP_LIMIT


async def adopt_running(database: Database, namespace_id: NamespaceId) -> int:
  """Let what agents have without a lane count for the namespace's limit.

  Returns:
    How many tasks that are.
  """
  return len(
    await database.fetch(
      _sql.adopt_running, namespace_id=namespace_id, lane=NAMESPACE_LANE
    )
  )


async def miss_late(database: Database, namespace_id: NamespaceId) -> bool:
  """End tasks that should have started by now and never did.

  Returns:
    Whether there may be more.
  """
  row = await database.fetchrow(
    _sql.miss_late, namespace_id=namespace_id, limit=SWEEP_LIMIT
  )
  return row is not None and row["count"] == SWEEP_LIMIT


async def expire_overdue(database: Database, namespace_id: NamespaceId) -> bool:
  """End tasks whose time for all their attempts is over, or ask their agents to.

  Returns:
    Whether there may be more.
  """
  row = await database.fetchrow(
    _sql.expire_overdue, namespace_id=namespace_id, limit=SWEEP_LIMIT
  )
  return row is not None and row["count"] == SWEEP_LIMIT
