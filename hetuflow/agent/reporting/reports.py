"""What the agent says of an attempt: outcomes, and the updates made of them."""

import traceback
from datetime import UTC, datetime

import attrs

from hetuflow.agent.instances import Instance
from hetuflow.protocol.messages import TaskInstanceUpdate
from hetuflow.protocol.model import TaskMetrics
from hetuflow.protocol.states import TaskInstanceStatus

__all__ = ["Outcome", "as_instant", "clean", "describe_exception", "make_update"]

REASON_LENGTH = 500
ERROR_LENGTH = 2_000
OUTPUT_BYTES = 4_096


@attrs.frozen(kw_only=True)
class Outcome:
  """How an attempt went; times are epoch seconds of the database's clock."""

  status: TaskInstanceStatus
  reason: str | None = None
  started_at: float | None = None
  completed_at: float | None = None
  exit_code: int | None = None
  error_message: str | None = None
  output: bytes = b""
  metrics: TaskMetrics | None = None


def make_update(instance: Instance, outcome: Outcome) -> TaskInstanceUpdate:
  """Make the report of an outcome, within the limits of the wire.

  Args:
    instance: the attempt.
    outcome: what became of it.
  """
  task, reason, error = instance.task, outcome.reason, outcome.error_message
  return TaskInstanceUpdate(
    instance_id=task.instance_id,
    namespace_id=task.namespace_id,
    claim_token=task.claim_token,
    status=outcome.status,
    reason=clean(reason)[:REASON_LENGTH] if reason else reason,
    started_at=as_instant(outcome.started_at),
    completed_at=as_instant(outcome.completed_at),
    exit_code=outcome.exit_code,
    error_message=clean(error)[-ERROR_LENGTH:] if error else error,
    output=_tail(outcome.output) if outcome.output else "",
    metrics=outcome.metrics,
  )


def as_instant(epoch_seconds: float | None) -> datetime | None:
  """Turn epoch seconds into an aware time."""
  if epoch_seconds is None:
    return None
  return datetime.fromtimestamp(epoch_seconds, UTC)


def clean(text: str) -> str:
  """Replace what no database can store: U+0000 and lone surrogates."""
  return (
    text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
  )


def describe_exception(error: BaseException) -> str:
  """Return the end of an exception's traceback."""
  return clean("".join(traceback.format_exception(error)))[-ERROR_LENGTH:]


def _tail(output: bytes) -> str:
  """Return the last bytes as text."""
  text = output[-OUTPUT_BYTES:].decode("utf-8", "replace")
  return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
