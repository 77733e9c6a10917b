"""What becomes of a claim: dealt, counted, made into a message, its doubts ended.

Pure but for the sessions that are told to end; the poller calls it.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import attrs
import trio

from hetuflow.protocol.messages import DispatchedTask, DispatchTaskRequest
from hetuflow.protocol.model import InstanceId, NamespaceId, TaskId
from hetuflow.server.scheduling.configs import FrozenConfigs, Version
from hetuflow.server.session import Session
from hetuflow.storage.connect import Record
from hetuflow.storage.failures import may_have_happened

__all__ = ["PollStatistics", "deal", "in_doubt", "make_dispatch", "version_of"]


@attrs.define(kw_only=True)
class PollStatistics:
  """What the poller has done.

  ``claim_seconds`` is what its claims took, ``delay_seconds`` for how long the tasks that
  were due had been so, in sum and at most; those held until they are due have none.
  """

  polls: int = 0
  claims: int = 0
  empty_claims: int = 0
  claimed: int = 0
  claimed_ahead: int = 0
  claim_seconds: float = 0.0
  delay_seconds: float = 0.0
  max_delay_seconds: float = 0.0

  def count(self, rows: Sequence[Record], seconds: float) -> None:
    """Add what one claim got, and how long it took."""
    self.claims += 1
    self.empty_claims += not rows
    self.claimed += len(rows)
    self.claim_seconds += seconds
    for row in rows:
      if row["held"]:
        self.claimed_ahead += 1
      else:
        self.delay_seconds += row["delay"]
        self.max_delay_seconds = max(self.max_delay_seconds, row["delay"])


def version_of(row: Record) -> Version:
  """Return which configuration a claimed task runs with."""
  return row["job_id"], row["job_version"]


@contextmanager
def in_doubt(sessions: Iterable[Session], *, always: bool = False) -> Iterator[None]:
  """End sessions whose agents may have claims that they will never hear of.

  Args:
    sessions: for whom the block claims.
    always: whether that is so however the block fails.
  """
  try:
    yield
  except BaseException as error:
    if always or may_have_happened(error):
      code = 1001 if isinstance(error, trio.Cancelled) else 1011
      for session in sessions:
        session.close(code, "a claim was interrupted")
    raise


def deal(budgets: Sequence[tuple[Session, int]], limit: int) -> list[Session]:
  """Spread places over agents in proportion to what each can take.

  Args:
    budgets: each agent with its number of free places.
    limit: places in all.

  Returns:
    The agent of each place; agents with as many places alternate.
  """
  if len(budgets) == 1:
    session, places = budgets[0]
    return [session] * min(places, limit)
  total = max(1, sum(places for _, places in budgets))
  # Nobody gets more than half a place beyond its share: what lies further is not dealt.
  reach = limit + len(budgets) / 2
  spread = sorted(
    ((place + 0.5) / places, number)
    for number, (_, places) in enumerate(budgets)
    for place in range(min(places, limit, int(places * reach / total) + 1))
  )
  return [budgets[number][0] for _, number in spread[:limit]]


def make_dispatch(
  namespace_id: NamespaceId, rows: Sequence[Record], configs: FrozenConfigs
) -> DispatchTaskRequest:
  """Make the batch for one agent, with each configuration once."""
  versions = set(map(version_of, rows))
  return DispatchTaskRequest(
    configs={f"{job}:{version}": configs[job, version] for job, version in versions},
    tasks=[
      DispatchedTask(
        instance_id=InstanceId(row["instance_id"]),
        task_id=TaskId(row["task_id"]),
        namespace_id=namespace_id,
        claim_token=row["claim_token"],
        attempt=row["attempt"],
        config=f"{row['job_id']}:{row['job_version']}",
        scheduled_at=row["scheduled_at"],
        due_at=row["due_at"],
        lease=row["lease"],
        held=row["held"],
        parameters=row["parameters"],
      )
      for row in rows
    ],
  )
