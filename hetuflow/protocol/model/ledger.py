"""The ledger of a schedule: what became of each of its planned times."""

import attrs

from hetuflow.protocol.checks import FieldError
from hetuflow.protocol.model.ids import Instant, TaskId
from hetuflow.protocol.states import Coverage, TaskCause, TaskStatus

__all__ = [
  "Backfill",
  "BackfillForCreate",
  "Ledger",
  "LedgerCheck",
  "LedgerItem",
  "LedgerTotals",
]


@attrs.frozen(kw_only=True)
class LedgerItem:
  """One planned time that has a task, or ``count`` of them in a row that have none.

  ``planned_at`` is that of the task; ``status`` and ``cause`` are the task's, too.

  Example:
    {"outcome": "ran", "planned_at": "2026-01-01T02:30:00Z",
     "from_at": "2026-01-01T02:30:00Z", "to_at": "2026-01-01T02:30:00Z", "count": 1,
     "reason": null, "task_id": "0190a8b4-7c00-7000-8000-000000000003",
     "status": "succeeded", "cause": "schedule"}
  """

  outcome: Coverage
  planned_at: Instant | None = None
  from_at: Instant
  to_at: Instant
  count: int = 1
  reason: str | None = None
  task_id: TaskId | None = None
  status: TaskStatus | None = None
  cause: TaskCause | None = None


@attrs.frozen(kw_only=True)
class LedgerTotals:
  """How many planned times came to what; of a gap only what lies in the span counts.

  Example:
    {"waiting": 1, "ran": 9, "cancelled": 0, "skipped": 0, "missed": 0, "merged": 3}
  """

  waiting: int = 0
  ran: int = 0
  cancelled: int = 0
  skipped: int = 0
  missed: int = 0
  merged: int = 0


@attrs.frozen(kw_only=True)
class LedgerCheck:
  """Whether the planned times behind ``after_at``, up to ``until_at``, are covered once.

  What was planned by an earlier definition is not looked at: ``after_at`` is not before
  the last change of what the schedule is planned by, and ``until_at`` not behind what is
  planned yet. ``more`` says that only a part was looked at, because there is so much.
  ``uncovered`` and ``doubled`` are the first of the times that are covered by nothing, or
  twice; ``miscounted`` the beginnings of gaps that count other than the definition does.

  Example:
    {"after_at": "2026-01-01T00:00:00Z", "until_at": "2026-01-02T00:00:00Z",
     "planned": 24, "covered": 24, "uncovered": [], "doubled": [], "miscounted": [],
     "complete": true, "more": false}
  """

  after_at: Instant
  until_at: Instant
  planned: int
  covered: int
  uncovered: list[Instant]
  doubled: list[Instant]
  miscounted: list[Instant]
  complete: bool
  more: bool


@attrs.frozen(kw_only=True)
class Ledger:
  """A page of what became of planned times, in their order.

  The first page also has the totals of the whole span, and the check; that is null where
  the schedule has no times of its own, or none that can be understood.

  Example:
    {"items": [{"outcome": "merged", "from_at": "2026-01-01T00:00:00Z",
                "to_at": "2026-01-01T01:00:00Z", "count": 61,
                "reason": "caught up by one later run"}],
     "next_cursor": null, "totals": {"merged": 61}, "check": null}
  """

  items: list[LedgerItem]
  next_cursor: str | None
  totals: LedgerTotals | None = None
  check: LedgerCheck | None = None


@attrs.frozen(kw_only=True)
class BackfillForCreate:
  """Which planned times are to run after all: from one moment to another, both included.

  Example:
    {"start_at": "2026-01-01T00:00:00Z", "end_at": "2026-01-02T00:00:00Z"}
  """

  start_at: Instant
  end_at: Instant

  def __attrs_post_init__(self) -> None:
    """Demand that the span is none that ends before it begins."""
    if self.end_at < self.start_at:
      raise FieldError("end_at", "expected a time that is not before start_at")


@attrs.frozen(kw_only=True)
class Backfill:
  """How many tasks were made, and which, in the order of their planned times.

  Example:
    {"tasks": 1, "ids": ["0190a8b4-7c00-7000-8000-000000000003"]}
  """

  tasks: int
  ids: list[TaskId]
