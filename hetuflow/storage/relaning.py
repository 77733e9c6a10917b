"""A job has other limits than before: its tasks that are there go by them, too."""

from uuid import UUID

from hetuflow.storage.connect import Connection, Record
from hetuflow.storage.lanes import Columns, lane_of, reason_of
from hetuflow.storage.sql import load_queries

__all__ = ["LIMITS", "relane_tasks"]

_sql = load_queries("relaning")

LIMITS = ("overlap", "max_concurrent", "concurrency_key", "rate_count")
"""The columns of a job by which its tasks find their lanes."""
PAGE_SIZE = 1_000
_NO_ID = UUID(int=0)


async def relane_tasks(connection: Connection, job: Columns, namespace_id: str) -> int:
  """Put the live tasks of a job into the lanes that it now has for them.

  Args:
    connection: in a transaction that holds the job, so that no tasks are added.
    job: its columns as they are to be: id and ``LIMITS``.
    namespace_id: of the job.

  Returns:
    How many have another lane now.
  """
  max_running: int | None = await connection.fetchval(
    _sql.get_max_running, namespace_id=namespace_id
  )
  changed, after = 0, _NO_ID
  while rows := await connection.fetch(
    _sql.list_lanes,
    job_id=job["id"],
    namespace_id=namespace_id,
    after=after,
    limit=PAGE_SIZE,
  ):
    after = rows[-1]["id"]
    lanes = [(row, lane_of(job, max_running, row["parameters"])) for row in rows]
    moved = [(row, lane) for row, lane in lanes if row["lane"] != lane]
    await _change(connection, namespace_id, moved)
    changed += len(moved)
  await connection.fetch(_sql.hint_limits, namespace_id=namespace_id)
  return changed


async def _change(
  connection: Connection, namespace_id: str, moved: list[tuple[Record, str | None]]
) -> None:
  """Put some tasks into other lanes."""
  if not moved:
    return
  # Twice: those that others changed while they were waited for are locked, and nothing
  # more, the first time.
  for _ in range(2):
    rows = await connection.fetch(
      _sql.change_lanes,
      namespace_id=namespace_id,
      ids=[row["id"] for row, _ in moved],
      lanes=[lane for _, lane in moved],
      reasons=[None if lane is None else reason_of(lane) for _, lane in moved],
    )
    if len(rows) == len(moved):
      return
