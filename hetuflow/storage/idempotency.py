"""First answers: a repeated request is answered as it was the first time.

A request takes its key, does its work and keeps its answer in one transaction. Who comes
with the same key meanwhile waits in ``recall`` for the end of it: then either the answer
is there, or the first one failed, left nothing behind, and the second one does the work.
"""

from typing import Any

import attrs

from hetuflow.protocol.model import NamespaceId
from hetuflow.storage.connect import Connection
from hetuflow.storage.rows import Executor
from hetuflow.storage.sql import load_queries

__all__ = ["Answer", "Key", "forget_expired", "recall", "remember"]

_sql = load_queries("idempotency")

EVERYWHERE = NamespaceId("*")
"""For keys that belong to no one namespace."""


@attrs.frozen(kw_only=True)
class Key:
  """What names a request: who promised (``scope``) and the caller's key, hashed or not."""

  namespace_id: NamespaceId = EVERYWHERE
  scope: str
  key: str


@attrs.frozen(kw_only=True)
class Answer:
  """What was answered to which request.

  ``fingerprint`` tells whether it is the same request; ``status`` is 0 and ``body`` None
  until the work is done.
  """

  fingerprint: str
  status: int = 0
  body: Any = None


async def recall(connection: Connection, key: Key, fingerprint: str) -> Answer | None:
  """Return the first answer, or take the key and return None: the work is the caller's.

  Args:
    connection: in the transaction that does the work.
    key: of the request.
    fingerprint: of what the request asks for.

  Raises:
    Unavailable: another request with this key is taking long.
  """
  names = attrs.asdict(key)
  while True:
    taken = await connection.fetchval(
      _sql.take_key, **names, answer=Answer(fingerprint=fingerprint)
    )
    if taken is not None:
      return None
    record = await connection.fetchrow(_sql.read_answer, **names)
    # None where the answer expired and was removed in between.
    if record is not None:
      return Answer(**record["answer"])


async def remember(connection: Connection, key: Key, answer: Answer) -> None:
  """Keep the answer, in the transaction that took the key."""
  await connection.fetch(_sql.write_answer, **attrs.asdict(key), answer=answer)


async def forget_expired(database: Executor, limit: int) -> int:
  """Remove at most ``limit`` keys that have expired; return how many were."""
  count: int = await database.fetchval(_sql.delete_expired, limit=limit)
  return count
