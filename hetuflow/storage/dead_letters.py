"""Messages that could not be delivered or stored, kept for a person to look at."""

from typing import Any
from uuid import UUID

from hetuflow.protocol.model import new_id
from hetuflow.storage.connect import Connection, Database
from hetuflow.storage.sql import load_queries

__all__ = ["bury", "forget_letters"]

_sql = load_queries("dead_letters")

MAX_REASON = 2_000


async def bury(
  executor: Database | Connection,
  *,
  kind: str,
  agent_id: UUID | None,
  reason: str,
  payload: Any,
) -> None:
  """Keep a message with the reason why it came to nothing.

  Args:
    executor: where to write.
    kind: the kind of the message.
    agent_id: from or for whom, where known.
    reason: what went wrong.
    payload: the message, as JSON types or a model.
  """
  await executor.fetch(
    _sql.insert_dead_letter,
    id=new_id(),
    kind=kind,
    agent_id=agent_id,
    reason=_storable(reason[:MAX_REASON]),
    payload=_storable(payload) if isinstance(payload, str) else payload,
  )


async def forget_letters(
  executor: Database | Connection, *, days: int, limit: int
) -> int:
  """Remove at most ``limit`` letters older than so many days; return how many were."""
  count: int = await executor.fetchval(_sql.delete_old_letters, days=days, limit=limit)
  return count


def _storable(text: str) -> str:
  """Replace what PostgreSQL refuses: a letter about bad text must not fail by it."""
  return (
    text.encode("utf-8", "replace")
    .decode("utf-8")
    .replace("\0", "\N{REPLACEMENT CHARACTER}")
  )
