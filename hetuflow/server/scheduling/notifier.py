"""LISTEN becomes wake-ups.

Run by: one child of each server, the first to start. Owns one connection. A notification
says what to look at, never what is there; loops that miss one find the same by polling.
A connection that dies says so; one that hangs is found by a query every few seconds.
Either way listening begins again on a fresh one, and everything counts as notified: at
once where the connection had been proved, with growing delays where none comes about.
"""

from collections.abc import Callable

import structlog
import trio

from hetuflow.errors import Unavailable
from hetuflow.nursery import Outage
from hetuflow.nursery.groups import consists_of, sole_leaf
from hetuflow.storage.connect import Connection, Database
from hetuflow.storage.maintenance import read_clock

__all__ = ["CHANNEL", "Notifier"]

CHANNEL = "hetuflow"
KEEP_ALIVE_INTERVAL = 5.0
KEEP_ALIVE_TIMEOUT = 4.0

_log = structlog.get_logger()


class Notifier:
  """The one listener of a server.

  Args:
    database: where to listen.
    hear: called with each payload, such as ``tasks:default``; with None when some may
      have been missed.
  """

  def __init__(self, database: Database, hear: Callable[[str | None], None]) -> None:
    self._database = database
    self._hear = hear
    self._outage = Outage(Unavailable, event="notifier_waits_for_database")
    self.heard = 0

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Listen for ever; after every interruption everything may have been missed."""
    task_status.started()
    while True:
      await self._outage.retry(self._listen)

  async def _listen(self) -> None:
    """Listen on one connection until it is found dead.

    Raises:
      Unavailable: it died before it had answered a single time.
    """
    proved = trio.Event()
    try:
      await self._listen_once(proved)
    except Exception as error:
      # Raised on, each death in the life of the server would lengthen the next delay.
      if not (proved.is_set() and consists_of(error, Unavailable)):
        raise
      _log.warning("notifier_connection_lost", error=str(sole_leaf(error)))

  async def _listen_once(self, proved: trio.Event) -> None:
    """Listen on a fresh connection; say when it has answered.

    Raises:
      Unavailable: it is dead.
    """
    async with (
      self._database.connection() as connection,
      connection.listen(CHANNEL) as notifications,
      trio.open_nursery() as nursery,
    ):
      self._hear(None)
      nursery.start_soon(self._prove_alive, connection, proved)
      async for payload in notifications:
        self.heard += 1
        self._hear(payload)
      raise Unavailable("the listening connection has died")

  async def _prove_alive(self, connection: Connection, proved: trio.Event) -> None:
    """Ask the database something every few seconds; silence means it is gone."""
    while True:
      await trio.sleep(KEEP_ALIVE_INTERVAL)
      with trio.move_on_after(KEEP_ALIVE_TIMEOUT) as limit:
        await read_clock(connection)
      if limit.cancelled_caught:
        raise Unavailable("the listening connection does not answer")
      proved.set()
