"""``Idempotency-Key``: creating twice gives the first answer.

The work, the key and the answer are one transaction, so that a crash leaves all or
nothing; two requests with one key at the same time wait for each other.
"""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

from quart import g, request

from hetuflow.errors import ProtocolError
from hetuflow.protocol import wire
from hetuflow.server.api.exchange import raw_body
from hetuflow.server.api.services import services
from hetuflow.storage.idempotency import Answer, Key, recall, remember
from hetuflow.storage.rows import Executor

__all__ = ["HEADER", "create_once"]

HEADER = "Idempotency-Key"
SCOPE = "http"
MAX_KEY = 255


async def create_once(work: Callable[[Executor], Awaitable[Any]]) -> Any:
  """Create something, or answer as the first time when the caller's key is known.

  Args:
    work: creates it and returns it; given the pool, or the transaction that also keeps
      the answer.

  Returns:
    What was created, as plain JSON types.

  Raises:
    ProtocolError: the key was used for another request, or is too long.
    Whatever ``work`` raises; the key is free again then.
  """
  text = request.headers.get(HEADER)
  if text is None:
    return wire.dump(await work(services().database))
  return await _recalled(work, text)


async def _recalled(work: Callable[[Executor], Awaitable[Any]], text: str) -> Any:
  """Return the first answer, made now if need be."""
  if not 1 <= len(text) <= MAX_KEY:
    raise ProtocolError([(HEADER, f"expected 1 to {MAX_KEY} characters")])
  caller = (request.method, request.path, str(g.principal.id), text)
  key = Key(scope=SCOPE, key=_digest("\0".join(caller).encode()))
  fingerprint = _digest(await raw_body())
  async with services().database.transaction() as connection:
    known = await recall(connection, key, fingerprint)
    if known is None:
      body = wire.dump(await work(connection))
      known = Answer(fingerprint=fingerprint, status=201, body=body)
      await remember(connection, key, known)
  if known.fingerprint != fingerprint:
    raise ProtocolError([(HEADER, "was used before with another body")])
  return known.body


def _digest(data: bytes) -> str:
  """Return the SHA-256 in hexadecimal."""
  return hashlib.sha256(data).hexdigest()
