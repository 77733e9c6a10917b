"""Why a task is not running, or why it ran as it did."""

from enum import StrEnum

import attrs

from hetuflow.protocol.model.ids import Instant, JsonObject, TaskId
from hetuflow.protocol.states import TaskStatus

__all__ = ["Explanation", "Reason", "ReasonCode"]


class ReasonCode(StrEnum):
  """What may stand in a task's way, or have made it run or end as it did."""

  NOT_DUE = "not_due"
  BLOCKED_BY_LIMIT = "blocked_by_limit"
  RATE_LIMITED = "rate_limited"
  NAMESPACE_UNBOUND = "namespace_unbound"
  SERVER_AWAY = "server_away"
  PAUSED = "paused"
  JOB_DISABLED = "job_disabled"
  NO_AGENT = "no_agent"
  NO_FREE_SLOT = "no_free_slot"
  CLAIMABLE = "claimable"
  GIVEN_BACK = "given_back"
  WAITING_RETRY = "waiting_retry"
  DISPATCHED_NOT_STARTED = "dispatched_not_started"
  RUNNING = "running"
  WAITING_FOR_CHILDREN = "waiting_for_children"
  CANCEL_REQUESTED = "cancel_requested"
  MISSED_AFTER = "missed_after"
  FAILS_AFTER = "fails_after"
  CAUSE = "cause"
  WAITED = "waited"
  STARTED = "started"
  ENDED = "ended"


@attrs.frozen(kw_only=True)
class Reason:
  """One reason, for programs and for people; ``details`` depend on the code.

  Example:
    {"code": "not_due", "message": "it is due in 40 s", "details": {"due_in": 40.0}}
  """

  code: ReasonCode
  message: str
  details: JsonObject = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Explanation:
  """Why a task is not running, why it runs, or why it ended so.

  ``verdict`` is the first of the reasons as a sentence, ``since`` when the task came to be
  as it is. ``expected_start_at`` is when it is thought to start, as far as that can be
  told; ``estimated`` says that this comes from how long the job took before.

  Example:
    {"task_id": "0190a8b4-7c00-7000-8000-000000000003", "status": "pending",
     "verdict": "It is due in 40 s.",
     "reasons": [{"code": "not_due", "message": "it is due in 40 s",
                  "details": {"due_in": 40.0}}],
     "since": "2026-01-01T00:00:00Z", "expected_start_at": "2026-01-01T00:00:40Z",
     "estimated": false}
  """

  task_id: TaskId
  status: TaskStatus
  verdict: str
  reasons: list[Reason]
  since: Instant
  expected_start_at: Instant | None = None
  estimated: bool = False
