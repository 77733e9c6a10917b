"""The leader's office: taken, given up, and checked by every write of the leader.

Terms are numbered by the database; each is higher than all before it. It is renewed with
the sign of life of the server that holds it (``servers.beat_server``).
"""

from collections.abc import Sequence
from typing import Any

import attrs

from hetuflow.errors import HetuflowError
from hetuflow.protocol.model import ServerId
from hetuflow.storage.connect import Record
from hetuflow.storage.rows import Executor
from hetuflow.storage.sql import Query, load_queries

__all__ = ["Term", "TermOver", "acquire_leader", "fetch_led", "resign_leader"]

_sql = load_queries("leader")


class TermOver(HetuflowError):
  """A term has ended; what was to be done in it was not done."""


@attrs.frozen(kw_only=True)
class Term:
  """One period of one leader.

  Args:
    owner: the server that leads.
    term: the number of the period.
  """

  owner: ServerId
  term: int


async def acquire_leader(
  database: Executor, owner: ServerId, *, ttl: float
) -> Term | None:
  """Take the office if nobody holds it.

  Args:
    database: where.
    owner: the server that is to lead.
    ttl: seconds for which the term lasts unless it is renewed.

  Returns:
    The new term, or None where somebody leads.
  """
  term: int | None = await database.fetchval(_sql.acquire_leader, owner=owner, ttl=ttl)
  return None if term is None else Term(owner=owner, term=term)


async def resign_leader(database: Executor, term: Term) -> bool:
  """End a term at once; tell whether it had not ended before."""
  row = await database.fetchrow(_sql.resign_leader, owner=term.owner, term=term.term)
  return row is not None


async def fetch_led(
  database: Executor, query: Query, term: Term, /, **values: Any
) -> Sequence[Record]:
  """Run a statement of the leader.

  Args:
    database: where.
    query: begins as ``leader.sql`` says, with the parameters ``owner`` and ``term``.
    term: in which it is run.
    values: its other parameters.

  Returns:
    Its rows, at least one.

  Raises:
    TermOver: the term has ended; nothing was written.
  """
  rows = await database.fetch(query, owner=term.owner, term=term.term, **values)
  if not rows:
    raise TermOver(f"term {term.term} is over")
  return rows
