"""What operators want of agents, kept until their servers have seen to it.

An order stands in the agent's row: a server learns of it with the next heartbeat, if the
notification does not reach it before, and so does the one that the agent goes to next.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from uuid import UUID

import attrs

from hetuflow.protocol.model import AgentId, AgentOrder, NamespaceId
from hetuflow.storage.rows import Executor
from hetuflow.storage.sql import load_queries

__all__ = ["Order", "list_orders", "order_agents"]

_sql = load_queries("orders")

_ANY: Mapping[str, str] = MappingProxyType({})


@attrs.frozen(kw_only=True)
class Order:
  """What is wanted: that the agent takes nothing new, and what its session is told."""

  drained: bool = False
  kind: str | None = None


async def order_agents(
  executor: Executor,
  order: AgentOrder,
  *,
  agent_ids: Sequence[AgentId] | None = None,
  namespace_id: NamespaceId | None = None,
  labels: Mapping[str, str] = _ANY,
) -> int:
  """Say what is wanted of agents, and hint.

  Args:
    executor: where to write.
    order: what is wanted; a session ends, or is told to, only where there is one.
    agent_ids: of whom; None means of all.
    namespace_id: only of those that belong to it.
    labels: only of those that have all of them.

  Returns:
    Of how many agents it is wanted.
  """
  count: int = await executor.fetchval(
    _sql.order_agents,
    ids=agent_ids,
    namespace_id=namespace_id,
    labels=dict(labels),
    command=order,
  )
  return count


async def list_orders(
  executor: Executor, agent_ids: Sequence[AgentId]
) -> dict[UUID, Order]:
  """Read what is wanted of some agents, by their live sessions."""
  rows = await executor.fetch(_sql.list_orders, agent_ids=agent_ids)
  return {
    row["session_id"]: Order(drained=row["drained"], kind=row["order_kind"])
    for row in rows
  }
