"""Those who have gone silent: attempts given up, waited for and closed; servers gone."""

from collections.abc import Sequence
from datetime import datetime

import attrs

from hetuflow.protocol.model import AgentId, ServerId
from hetuflow.storage.connect import Database
from hetuflow.storage.leader import Term, fetch_led
from hetuflow.storage.sql import load_queries

__all__ = [
  "LostAgent",
  "Overdue",
  "Patience",
  "close_lost",
  "find_overdue",
  "lose_instances",
  "sign_off_servers",
]

_sql = load_queries("reaping")

LIMIT = 1_000
"""Agents looked at, and attempts written, in one statement, which has little time."""


@attrs.frozen(kw_only=True)
class Patience:
  """How long is waited for whom, in seconds.

  Args:
    lease: for agents, once servers and database are in touch again.
    term: for agents, after a change of the leader.
    lost: for lost attempts.
  """

  lease: float
  term: float
  lost: float


@attrs.frozen(kw_only=True)
class Overdue:
  """Who has something to be given up; whether lost attempts and servers are overdue."""

  agents: Sequence[AgentId] = ()
  lost: bool = False
  servers: bool = False


@attrs.frozen(kw_only=True)
class LostAgent:
  """An agent that was silent for too long, and how many attempts it lost."""

  id: AgentId
  name: str
  count: int


async def find_overdue(
  database: Database, patience: Patience, *, steady_since: datetime
) -> Overdue:
  """Look once for what there is to do.

  Args:
    database: where.
    patience: how long is waited.
    steady_since: since when this server has been in touch with the database.
  """
  row = await database.fetchrow(
    _sql.find_overdue,
    steady_since=steady_since,
    lease=patience.lease,
    term_grace=patience.term,
    lost_grace=patience.lost,
    limit=LIMIT,
  )
  return Overdue() if row is None else Overdue(**row)


async def lose_instances(
  database: Database, term: Term, agents: Sequence[AgentId]
) -> list[LostAgent]:
  """Give up attempts of agents whose lease is over; a limited number of them.

  Args:
    database: where.
    term: of the leader that does it.
    agents: some that were found overdue.

  Returns:
    The agents that lost any; nobody where nothing is left to be given up.

  Raises:
    TermOver: the term is over.
  """
  rows = await fetch_led(
    database, _sql.lose_instances, term, agents=agents, limit=LIMIT
  )
  return [
    LostAgent(id=row["id"], name=row["name"], count=row["count"])
    for row in rows
    if row["id"] is not None
  ]


async def close_lost(database: Database, term: Term, patience: Patience) -> int:
  """Wait no longer for lost attempts that are superseded or overdue.

  Returns:
    How many they were; there may be more, as their number is limited.

  Raises:
    TermOver: the term is over.
  """
  rows = await fetch_led(
    database, _sql.close_lost, term, lost_grace=patience.lost, limit=LIMIT
  )
  return sum(row["id"] is not None for row in rows)


async def sign_off_servers(database: Database, term: Term) -> list[ServerId]:
  """Say of servers that have gone silent that they have stopped; return which.

  Raises:
    TermOver: the term is over.
  """
  rows = await fetch_led(database, _sql.sign_off_servers, term)
  return [ServerId(row["id"]) for row in rows if row["id"] is not None]
