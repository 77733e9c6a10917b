"""Lanes: which limit decides when a task may be claimed.

A lane is a text in the task's row. Tasks of one lane share its places:

=================  ===================================================================
``key:<value>``    those of every job of the namespace whose ``concurrency_key`` comes
                   out at this value
``job:<id>``       those of one job that limits itself: ``max_concurrent``, an
                   ``overlap`` other than allow, or a ``rate_limit``
``namespace``      the others of a namespace with ``max_running``
null               no limit concerns the task; it is claimed as soon as it is due
=================  ===================================================================

Only who is asked is fixed in the lane: how many places it has is what the job says now.
"""

import hashlib
from typing import Any, Protocol

from hetuflow.protocol.model import JsonObject
from hetuflow.protocol.states import OverlapPolicy
from hetuflow.protocol.templates import MissingParameter, fill

__all__ = ["NAMESPACE_LANE", "Columns", "key_problem", "lane_of", "reason_of"]

NAMESPACE_LANE = "namespace"
KEY_LENGTH = 500
"""Bytes of a key's value that a lane spells out; an index bears no more than a few."""

_KEY = "key:"
_JOB = "job:"


class Columns(Protocol):
  """Some columns of a row: a record of the database, or a mapping."""

  def __getitem__(self, name: str, /) -> Any:
    """Return the value of a column."""
    ...


def lane_of(
  job: Columns, max_running: int | None, parameters: JsonObject
) -> str | None:
  """Say which lane a new task belongs to; None if no limit concerns it.

  Args:
    job: columns of ``sched_job``: id, overlap, max_concurrent, concurrency_key,
      rate_count.
    max_running: that of the namespace.
    parameters: those of the task; one that the key names and that is missing counts as
      empty, so that a plan nobody could be told about shares the strictest lane.
  """
  key = job["concurrency_key"]
  if key is not None:
    return _KEY + _short(fill(key, parameters, missing=""))
  if (
    job["overlap"] != OverlapPolicy.ALLOW
    or job["max_concurrent"] is not None
    or job["rate_count"] is not None
  ):
    return f"{_JOB}{job['id']}"
  return None if max_running is None else NAMESPACE_LANE


def key_problem(job: Columns, parameters: JsonObject) -> str | None:
  """Say why a job's ``concurrency_key`` has no value for some parameters, if so.

  Whoever asks for such a task is told, as an agent refuses to start it.

  Args:
    job: columns of ``sched_job``: concurrency_key.
    parameters: those of the task.
  """
  try:
    fill(job["concurrency_key"] or "", parameters)
  except MissingParameter as error:
    return f"expected {error.name!r}, which the job's concurrency_key needs"
  return None


def reason_of(lane: str) -> str:
  """Say for people what a blocked task of a lane waits for."""
  if lane == NAMESPACE_LANE:
    return "waits for a place: max_running of the namespace"
  if lane.startswith(_KEY):
    return f"waits for a place: concurrency_key {lane.removeprefix(_KEY)!r}"
  return "waits for a place: limits of the job"


def _short(value: str) -> str:
  """Keep a value as it is, or what tells it from others where it is long."""
  data = value.encode(errors="surrogatepass")
  if len(data) <= KEY_LENGTH:
    return value
  return f"{value[:100]}… {hashlib.sha256(data).hexdigest()}"
