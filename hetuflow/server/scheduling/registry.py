"""This server's own row, and the file that says where it is.

Run by: two children of each server. ``Registry`` owns the row in ``sched_server`` and
renews it, and with it the leader's term where this server leads; by the way it learns the
database's time, which namespaces it is to plan for, and until when somebody leads.
``Announcer`` owns the ready files and stands last in the tree: they exist while everything
before it runs.

When the database is away the row grows old and other servers see this one as gone; by its
own clocks it has let go of its namespaces before. It is entered afresh as soon as the
database is back.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

import structlog
import trio

from hetuflow.errors import Unavailable
from hetuflow.nursery import Backoff, Outage, Wakeup
from hetuflow.protocol import wire
from hetuflow.protocol.model import ServerForCreate, ServerId
from hetuflow.ready import publish_ready
from hetuflow.server.clock import DatabaseClock
from hetuflow.server.load import LoadMeter
from hetuflow.server.scheduling.bindings import Bindings
from hetuflow.server.scheduling.leading.office import MARGIN_SHARE, Office
from hetuflow.server.trust import Moment, Trust
from hetuflow.storage.connect import Database
from hetuflow.storage.servers import beat_server, create_server, stop_server

__all__ = ["Announcer", "Registry"]

STOP_TIMEOUT = 2.0
BEATS_PER_TTL = 4
"""Signs of life in the time for which one is good."""

_log = structlog.get_logger()


class Registry:
  """The heartbeat of this server.

  Args:
    database: where the row is.
    server: what it says.
    clock: learns the database's time.
    office: whose term is renewed, and which learns until when others lead.
    bindings: learns which namespaces this server plans for.
    wakeup: set when the bindings have changed.
  """

  def __init__(
    self,
    database: Database,
    server: ServerForCreate,
    clock: DatabaseClock,
    *,
    office: Office,
    bindings: Bindings,
    wakeup: Wakeup,
  ) -> None:
    self._database = database
    self._server = server
    self._clock = clock
    self._office = office
    self._bindings = bindings
    self._wakeup = wakeup
    self._ttl = office.ttl
    self._interval = self._ttl / BEATS_PER_TTL
    self._load = LoadMeter()
    self._trust = Trust()
    self._print: int | None = None
    self._stopping = False
    self._outage = Outage(
      Unavailable,
      event="registry_waits_for_database",
      backoff=Backoff(maximum=self._interval),
    )

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Enter the row, renew it for ever, and sign off at the end."""
    self._stopping = False
    await self._outage.retry(self.beat_once)
    task_status.started()
    try:
      async with trio.open_nursery() as nursery:
        nursery.start_soon(self._watch_trust)
        while True:
          await self._wakeup.wait(self._interval)
          await self._outage.retry(self.beat_once)
    finally:
      self._let_go()
      with trio.move_on_after(STOP_TIMEOUT, shield=True):
        await self.sign_off()

  async def beat_once(self) -> None:
    """Renew the row, or enter it where there is none, and take what is heard."""
    if not await self._beat():
      await create_server(self._database, self._server, ttl=self._ttl)
      await self._beat()

  async def sign_off(self) -> None:
    """Say that this server stops, if the database hears it; later beats keep to that."""
    self._stopping = True
    try:
      await stop_server(self._database, ServerId(self._server.id))
    except Unavailable as error:
      _log.debug("server_not_signed_off", error=str(error))

  async def _beat(self) -> bool:
    """Give one sign of life; tell whether there is a row for it."""
    since, asked_at, term = Moment(), time.monotonic(), self._office.held
    beat = await beat_server(
      self._database,
      ServerId(self._server.id),
      ttl=self._ttl,
      load=self._load.read(),
      stopping=self._stopping,
      term=term,
      known=self._print,
    )
    if beat is None:
      return False
    self._clock.learn(beat.now, asked_at, time.monotonic())
    self._office.hear(term, since, renewed=beat.renewed, leads_for=beat.leads_for)
    self._trust.extend(since, self._ttl * (1 - MARGIN_SHARE))
    # An answer that took too long may say what is no longer so.
    if beat.bound is not None and self._trust.holds:
      self._print = beat.print
      self._bindings.replace(beat.bound)
    self._bindings.note_blocked(beat.blocked)
    return True

  async def _watch_trust(self) -> None:
    """Plan for nobody and do not lead once nothing was heard for too long.

    Others may do so from then on. No answer of the database is waited for here.
    """
    while True:
      self._office.expire()
      if self._print is not None and not self._trust.holds:
        _log.warning("bindings_let_go")
        self._let_go()
      ends = (self._trust.left, self._office.left)
      await trio.sleep(min([self._interval, *(left for left in ends if left > 0)]))

  def _let_go(self) -> None:
    """Plan for nobody until the bindings are heard again."""
    self._print = None
    self._bindings.clear()


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
