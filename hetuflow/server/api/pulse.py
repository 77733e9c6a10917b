"""Whether the database answers, asked at most once in a moment however many ask us.

Run by: the requests for the server's health, which need no key. Owns the last answer.
Whoever asks while a question is under way waits for its answer; a caller who goes away
in the middle leaves the question to the next one.
"""

import math

import trio

from hetuflow.errors import StorageError
from hetuflow.storage.connect import Database
from hetuflow.storage.servers import ping

__all__ = ["Pulse"]

PING_TIMEOUT = 2.0
FRESH = 0.5
"""Seconds for which an answer is given to others as well."""


class Pulse:
  """The health of a database, as it was a moment ago.

  Args:
    database: who is asked.
  """

  def __init__(self, database: Database) -> None:
    self._database = database
    self._asking = trio.Lock()
    self._well = False
    self._asked_at = -math.inf

  async def is_well(self) -> bool:
    """Tell whether the database answers soon."""
    async with self._asking:
      if trio.current_time() - self._asked_at > FRESH:
        self._well = await self._answers()
        self._asked_at = trio.current_time()
      return self._well

  async def _answers(self) -> bool:
    """Ask the database."""
    with trio.move_on_after(PING_TIMEOUT):
      try:
        await ping(self._database)
      except StorageError:
        return False
      return True
    return False
