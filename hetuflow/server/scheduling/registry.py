"""This server's own row, and the file that says where it is.

Run by: two children of each server. ``Registry`` owns the row in ``sched_server`` and
renews it; by the way it learns the database's time. ``Announcer`` owns the ready files
and stands last in the tree: they exist while everything before it runs.

When the database is away the row grows old and other servers see this one as gone; it is
entered afresh as soon as the database is back.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

import structlog
import trio

from hetuflow.errors import Unavailable
from hetuflow.nursery import Outage
from hetuflow.protocol import wire
from hetuflow.protocol.model import ServerForCreate
from hetuflow.ready import publish_ready
from hetuflow.server.clock import DatabaseClock
from hetuflow.storage.connect import Database
from hetuflow.storage.servers import create_server, stop_server, touch_server

__all__ = ["Announcer", "Registry"]

STOP_TIMEOUT = 2.0

_log = structlog.get_logger()


class Registry:
  """The heartbeat of this server.

  Args:
    database: where the row is.
    server: what it says.
    clock: learns the database's time.
    ttl: seconds for which a heartbeat is good; there are four in that time.
  """

  def __init__(
    self,
    database: Database,
    server: ServerForCreate,
    clock: DatabaseClock,
    *,
    ttl: float,
  ) -> None:
    self._database = database
    self._server = server
    self._clock = clock
    self._ttl = ttl
    self._outage = Outage(Unavailable, event="registry_waits_for_database")

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Enter the row, renew it for ever, and sign off at the end."""
    await self._outage.retry(self.beat_once)
    task_status.started()
    try:
      while True:
        await trio.sleep(self._ttl / 4)
        await self._outage.retry(self.beat_once)
    finally:
      with trio.move_on_after(STOP_TIMEOUT, shield=True):
        await self._sign_off()

  async def beat_once(self) -> None:
    """Renew the row, or enter it where there is none."""
    asked_at = time.monotonic()
    read = await touch_server(self._database, self._server.id, ttl=self._ttl)
    if read is None:
      await create_server(self._database, self._server, ttl=self._ttl)
      asked_at = time.monotonic()
      read = await touch_server(self._database, self._server.id, ttl=self._ttl)
    if read is not None:
      self._clock.learn(read, asked_at, time.monotonic())

  async def _sign_off(self) -> None:
    """Say that this server stops, if the database hears it."""
    try:
      await stop_server(self._database, self._server.id)
    except Unavailable as error:
      _log.debug("server_not_signed_off", error=str(error))


class Announcer:
  """The ready files ``servers/<id>.json`` and ``server.json``.

  Args:
    data_dir: where they go.
    server: what they say.
  """

  def __init__(self, data_dir: Path, server: ServerForCreate) -> None:
    self._own = data_dir / "servers" / f"{server.id}.json"
    self._last = data_dir / "server.json"
    self._server = server

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Write the files, and remove them at the end."""
    text = wire.encode(
      {
        "url": self._server.url,
        "pid": os.getpid(),
        "version": self._server.version,
        "server_id": str(self._server.id),
      }
    )
    self._own.parent.mkdir(parents=True, exist_ok=True)
    with publish_ready(self._own, text), publish_ready(self._last, text):
      _log.info("server_ready", url=self._server.url, server_id=str(self._server.id))
      task_status.started()
      try:
        await trio.sleep_forever()
      finally:
        self._own.unlink(missing_ok=True)
        if self._speaks_of_us(self._last):
          self._take_down()

  def _take_down(self) -> None:
    """Remove ``server.json``; what another server wrote meanwhile is put back.

    Nobody can look and remove in one step, so it is moved aside first: what was moved
    is looked at in peace, and put back unless a yet newer one has come.
    """
    aside = self._last.with_name(f".{self._last.name}.{self._server.id}")
    with suppress(OSError):
      self._last.replace(aside)
      if not self._speaks_of_us(aside):
        self._last.hardlink_to(aside)
    aside.unlink(missing_ok=True)

  def _speaks_of_us(self, file: Path) -> bool:
    """Tell whether a file is what this server wrote."""
    try:
      return str(self._server.id) in file.read_text(encoding="utf-8")
    except OSError:
      return False
