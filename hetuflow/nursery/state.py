"""The supervision tree as it is now: plain frozen data for ``GET /system/tree``."""

import contextvars
from enum import StrEnum
from typing import Any

import attrs

__all__ = ["FAIL_FAST", "Kind", "NodeState", "Status", "describe"]

FAIL_FAST: contextvars.ContextVar[bool] = contextvars.ContextVar(
  "hetuflow_fail_fast", default=False
)
"""Set for everything below a supervisor made with ``fail_fast``: its groups, the
supervisors and crowds its children run inside themselves."""


class Kind(StrEnum):
  """What a node of the tree is."""

  GROUP = "group"
  CHILD = "child"
  CROWD = "crowd"
  MEMBER = "member"


class Status(StrEnum):
  """What a node does; ``stopped`` is also a child whose turn has not come."""

  STARTING = "starting"
  RUNNING = "running"
  BACKOFF = "backoff"
  DRAINING = "draining"
  STOPPED = "stopped"
  FAILED = "failed"


@attrs.frozen(kw_only=True)
class NodeState:
  """A snapshot of one node and what is below it.

  Args:
    name: as declared.
    kind: group, child, crowd or member.
    status: what it does.
    restarts: how often it was started again since its group began.
    since: when it entered this status, in seconds since the epoch.
    last_error: the latest crash in one line; kept after a recovery.
    count: how many are below it; of a crowd all members, though few are listed.
    children: the nodes below, in order.
  """

  name: str
  kind: Kind
  status: Status
  restarts: int = 0
  since: float
  last_error: str | None = None
  count: int = 0
  children: tuple["NodeState", ...] = ()

  def to_dict(self) -> dict[str, Any]:
    """Return the snapshot as JSON-ready dicts, lists, strings and numbers."""
    return {
      "name": self.name,
      "kind": self.kind.value,
      "status": self.status.value,
      "restarts": self.restarts,
      "since": self.since,
      "last_error": self.last_error,
      "count": self.count,
      "children": [child.to_dict() for child in self.children],
    }


def describe(error: BaseException) -> str:
  """Return an exception in one line: its type and the first line of its text."""
  text = str(error).partition("\n")[0]
  return f"{type(error).__name__}: {text}" if text else type(error).__name__
