"""Bindings: which server plans for a namespace, as the leader decides it."""

from collections.abc import Mapping
from uuid import UUID

import attrs

from hetuflow.protocol.model import NamespaceId, ServerId
from hetuflow.storage.leader import Term, fetch_led
from hetuflow.storage.rows import Executor, found
from hetuflow.storage.sql import load_queries

__all__ = ["Balance", "NamespaceRow", "ServerRow", "move_namespaces", "read_balance"]

_sql = load_queries("bindings")


@attrs.frozen(kw_only=True)
class ServerRow:
  """A server that is alive, for ``seconds`` if it says nothing more."""

  id: ServerId
  weight: int
  load: float
  seconds: float


@attrs.frozen(kw_only=True)
class NamespaceRow:
  """A namespace: its size, the server that it is wished on, and the one that has it."""

  id: NamespaceId
  weight: int
  wish: ServerId | None
  server_id: ServerId | None


@attrs.frozen(kw_only=True)
class Balance:
  """All servers that are alive, and all namespaces."""

  servers: list[ServerRow]
  namespaces: list[NamespaceRow]


async def read_balance(database: Executor) -> Balance:
  """Read what the balancer weighs, as of one moment."""
  row = found(await database.fetchrow(_sql.read_balance), "answer", "balance")
  return Balance(
    servers=[
      ServerRow(
        id=ServerId(UUID(each["id"])),
        weight=each["weight"],
        load=each["load"],
        seconds=each["seconds"],
      )
      for each in row["servers"]
    ],
    namespaces=[
      NamespaceRow(
        id=NamespaceId(each["id"]),
        weight=each["weight"],
        wish=_server(each["wish"]),
        server_id=_server(each["server_id"]),
      )
      for each in row["namespaces"]
    ],
  )


async def move_namespaces(
  database: Executor, term: Term, moves: Mapping[NamespaceId, ServerId]
) -> int:
  """Bind namespaces to servers; the epoch of each that moves rises by one.

  Args:
    database: where.
    term: of the leader that moves them.
    moves: to which server each goes.

  Returns:
    How many moved.

  Raises:
    TermOver: it does not lead any more; none moved.
  """
  [row] = await fetch_led(
    database,
    _sql.move_namespaces,
    term,
    namespaces=list(moves),
    servers=list(moves.values()),
  )
  moved: int = row["moved"]
  return moved


def _server(id: str | None) -> ServerId | None:
  """Read the id of a server where there is one."""
  return None if id is None else ServerId(UUID(id))
