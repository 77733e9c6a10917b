"""The parts of a server and who knows whom: all of the wiring, in one place."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from hetuflow import __version__
from hetuflow.nursery import Group, Supervisor, Wakeup
from hetuflow.protocol.model import ServerForCreate, ServerId
from hetuflow.server.api.app import create_app
from hetuflow.server.api.services import ApiServices
from hetuflow.server.clock import DatabaseClock
from hetuflow.server.config import ServerConfig
from hetuflow.server.gateway.door import Doorkeeper
from hetuflow.server.gateway.gateway import Gateway
from hetuflow.server.gateway.presence import Presence
from hetuflow.server.scheduling.bindings import Bindings
from hetuflow.server.scheduling.broadcaster import Broadcaster
from hetuflow.server.scheduling.canceller import Canceller
from hetuflow.server.scheduling.generator import Generator
from hetuflow.server.scheduling.hints import Hints
from hetuflow.server.scheduling.janitor import Janitor
from hetuflow.server.scheduling.leading.balancer import Balancer
from hetuflow.server.scheduling.leading.elector import Elector
from hetuflow.server.scheduling.leading.office import Office
from hetuflow.server.scheduling.limiter import Limiter
from hetuflow.server.scheduling.notifier import Notifier
from hetuflow.server.scheduling.poller import Poller
from hetuflow.server.scheduling.reaper import Reaper
from hetuflow.server.scheduling.reconciler import Reconciler
from hetuflow.server.scheduling.recorder import Recorder
from hetuflow.server.scheduling.registry import Announcer, Registry
from hetuflow.server.sessions import Sessions
from hetuflow.storage.connect import Database
from hetuflow.storage.embedded import Cluster

__all__ = ["LeaderParts", "Parts", "wire_parts"]

MAX_PLAN_INTERVAL = 5.0
"""Seconds between two passes of the generator at most."""


@attrs.frozen(kw_only=True)
class LeaderParts:
  """What the leader runs."""

  balancer: Balancer
  reaper: Reaper
  janitor: Janitor


@attrs.frozen(kw_only=True)
class Parts:
  """What the tree runs."""

  cluster: Cluster | None
  notifier: Notifier
  registry: Registry
  recorder: Recorder
  presence: Presence
  sessions: Sessions
  gateway: Gateway
  elector: Elector
  leader: Supervisor
  generator: Generator
  broadcaster: Broadcaster
  limiter: Limiter
  reconciler: Reconciler
  poller: Poller
  canceller: Canceller
  announcer: Announcer

  def figures(self) -> dict[str, Any]:
    """Return what each loop has done since the start, as plain JSON types."""
    return {
      "generator": {"planned": self.generator.planned},
      "limiter": {"passes": self.limiter.passes, "promoted": self.limiter.promoted},
      "poller": attrs.asdict(self.poller.statistics),
      "recorder": attrs.asdict(self.recorder.statistics),
      "gateway": self.gateway.statistics(),
    }


def wire_parts(
  config: ServerConfig,
  *,
  database: Database,
  cluster: Cluster | None,
  listener: socket.socket,
  server: ServerForCreate,
  build_leader: Callable[[LeaderParts], Group],
  show_tree: Callable[[], dict[str, Any]],
) -> Parts:
  """Make every part of one server.

  Args:
    config: the settings.
    database: the open storage.
    cluster: the embedded PostgreSQL, where it is used.
    listener: the bound socket.
    server: this server's row.
    build_leader: declares what only the leader does.
    show_tree: returns the state of the running tree.
  """
  parts: Parts
  settings, server_id = config.server, ServerId(server.id)
  hints, office = Hints(), Office(ttl=settings.server_ttl)
  bindings = Bindings(server_id)
  clock = DatabaseClock(gap=min(settings.server_ttl, settings.session_lease / 2))
  sessions = Sessions()
  to_beat, to_balance, to_plan, to_poll, to_cancel = (Wakeup() for _ in range(5))
  recorder = Recorder(database)
  presence = Presence(database, clock, sessions, lease=settings.session_lease)
  poller = Poller(database, sessions, interval=settings.poll_interval, wakeup=to_poll)
  broadcaster = Broadcaster(
    database, bindings, Wakeup(), lost_grace=settings.lost_grace
  )
  limiter = Limiter(database, bindings, Wakeup())
  reconciler = Reconciler(database, bindings, Wakeup(), horizon=settings.horizon)

  hints.wake(to_beat, "bindings")
  hints.wake(to_balance, "servers", "namespaces")
  hints.wake(to_plan, "schedules")
  hints.wake(to_cancel, "cancels")
  hints.tell(lambda _: office.hint(), "leader")
  hints.tell(lambda _: presence.hint(), "agents")
  hints.tell(poller.hint, "routes", "tasks")
  hints.tell(limiter.hint, "limits")
  hints.tell(broadcaster.hint, "routes", "tasks", "ends", "cancels")
  hints.tell(reconciler.hint, "schedules", "ends")

  gateway = Gateway(
    listener,
    Doorkeeper(
      database=database,
      server_id=server_id,
      sessions=sessions,
      recorder=recorder,
      presence=presence,
      wake=to_poll.set,
      heartbeat_interval=settings.heartbeat,
      session_lease=settings.session_lease,
      max_message_size=settings.max_message_size,
      max_hold=settings.hold,
      ack_retries=settings.ack_retries,
      compression=settings.compression,
    ),
    lambda gateway: create_app(
      ApiServices(
        database=database,
        server_id=server_id,
        version=__version__,
        max_body_size=settings.max_body_size,
        max_followers=settings.max_followers,
        cors_origins=settings.cors_origins,
        wake=lambda kind, namespace_id: hints.hear(
          f"tasks:{namespace_id}" if kind == "tasks" else kind
        ),
        figures=lambda: parts.figures(),
        tree=show_tree,
        gateway=gateway,
        draining=gateway.draining,
      )
    ),
    max_connections=settings.max_connections,
    max_requests=settings.max_requests,
  )
  leader = Supervisor(
    build_leader(
      LeaderParts(
        balancer=Balancer(database, office, to_balance),
        reaper=Reaper(
          database,
          office,
          clock,
          lease=settings.session_lease,
          lost_grace=settings.lost_grace,
        ),
        janitor=Janitor(database),
      )
    )
  )
  parts = Parts(
    cluster=cluster,
    notifier=Notifier(database, hints.hear),
    registry=Registry(
      database, server, clock, office=office, bindings=bindings, wakeup=to_beat
    ),
    recorder=recorder,
    presence=presence,
    sessions=sessions,
    gateway=gateway,
    elector=Elector(database, server_id, office, leader),
    leader=leader,
    generator=Generator(
      database,
      bindings,
      horizon=settings.horizon,
      interval=min(settings.horizon / 12, MAX_PLAN_INTERVAL),
      wakeup=to_plan,
    ),
    broadcaster=broadcaster,
    limiter=limiter,
    reconciler=reconciler,
    poller=poller,
    canceller=Canceller(database, sessions, to_cancel),
    announcer=Announcer(Path(settings.data_dir), server),
  )
  return parts
