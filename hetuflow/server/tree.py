"""The server tree, and nothing else.

List order is start order and dependency; the stop is the reverse. ``Services`` is the
container: what the children are, made in one place from what they need.
"""

import math
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from hetuflow import __version__
from hetuflow.nursery import Child, Group, Supervisor, Wakeup
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
from hetuflow.server.scheduling.janitor import Janitor
from hetuflow.server.scheduling.leading.balancer import Balancer
from hetuflow.server.scheduling.leading.elector import IN_TERM, STOP_TIMEOUT, Elector
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

__all__ = ["Services", "build_tree"]


def build_tree(services: "Services") -> Group:
  """Declare the children of a server in the order in which they start."""
  s = services
  embedded = (
    [Child("postgres", s.cluster.run, doc="the private PostgreSQL, watched")]
    if s.cluster is not None
    else []
  )
  return Group(
    "server",
    [
      *embedded,
      Child("notifier", s.notifier.run, doc="LISTEN becomes wake-ups"),
      Child("registry", s.registry.run, doc="this server's row, heartbeat"),
      Child(
        "recorder",
        s.recorder.run,
        doc="reports become rows, in batches; commit, then ack",
        drain=s.recorder.drain,
      ),
      Child("presence", s.presence.run, doc="agents' heartbeats renew their leases"),
      Child(
        "gateway",
        s.gateway.run,
        doc="HTTP and /ws on one port",
        drain=s.gateway.drain,
        drain_timeout=math.inf,  # requests have all the time that the whole drain has
        inner=[s.sessions],
      ),
      Child(
        "elector",
        s.elector.run,
        doc="lease; runs the leader group inside its term",
        drain=s.registry.sign_off,  # before it resigns: others take over at once
        drain_timeout=2.0,
        inner=[s.leader],
      ),
      Child("generator", s.generator.run, doc="due schedules become tasks"),
      Child(
        "broadcaster",
        s.broadcaster.run,
        doc="a part for each matching agent; the end when all parts have ended",
      ),
      Child("limiter", s.limiter.run, doc="free places go to those who wait"),
      Child("reconciler", s.reconciler.run, doc="daemons and delays are kept going"),
      Child("poller", s.poller.run, doc="claims for waiting agents"),
      Child("canceller", s.canceller.run, doc="requested cancels reach the agents"),
      Child("announcer", s.announcer.run, doc="server.json while all of it runs"),
    ],
  )


def build_leader(balancer: Balancer, reaper: Reaper, janitor: Janitor) -> Group:
  """Declare what only the leader does, in the order in which it starts."""
  return Group(
    "leader",
    [
      Child(
        "balancer",
        balancer.run,
        doc="namespaces go to servers that are alive, by weight",
        restart=IN_TERM,
        stop_timeout=STOP_TIMEOUT,
      ),
      Child(
        "reaper",
        reaper.run,
        doc="what silent agents have goes to others",
        restart=IN_TERM,
        stop_timeout=STOP_TIMEOUT,
      ),
      Child(
        "janitor",
        janitor.run,
        doc="partitions ahead, expired keys",
        restart=IN_TERM,
        stop_timeout=STOP_TIMEOUT,
      ),
    ],
  )


@attrs.frozen(kw_only=True)
class Services:
  """Every service of a server, wired."""

  cluster: Cluster | None
  notifier: Notifier
  registry: Registry
  recorder: Recorder
  presence: Presence
  sessions: Sessions
  gateway: Gateway
  bindings: Bindings
  elector: Elector
  leader: Supervisor
  generator: Generator
  broadcaster: Broadcaster
  reconciler: Reconciler
  limiter: Limiter
  poller: Poller
  canceller: Canceller
  announcer: Announcer

  @classmethod
  def make(
    cls,
    config: ServerConfig,
    *,
    database: Database,
    cluster: Cluster | None,
    listener: socket.socket,
    server: ServerForCreate,
    show_tree: Callable[[], dict[str, Any]],
  ) -> "Services":
    """Make every service of one server.

    Args:
      config: the settings.
      database: the open storage.
      cluster: the embedded PostgreSQL, where it is used.
      listener: the bound socket.
      server: this server's row.
      show_tree: returns the state of the running tree.
    """
    settings = config.server
    clock = DatabaseClock(gap=min(settings.server_ttl, settings.session_lease / 2))
    sessions = Sessions()
    recorder = Recorder(database)
    presence = Presence(database, clock, sessions, lease=settings.session_lease)
    office, bindings = Office(ttl=settings.server_ttl), Bindings(ServerId(server.id))
    to_poll, to_plan, to_cancel = Wakeup(), Wakeup(), Wakeup()
    to_beat, to_balance = Wakeup(), Wakeup()
    poller = Poller(database, sessions, interval=settings.poll_interval, wakeup=to_poll)
    broadcaster = Broadcaster(database, bindings, Wakeup())
    reconciler = Reconciler(database, bindings, Wakeup(), horizon=settings.horizon)
    limiter = Limiter(database, bindings, Wakeup())

    def hear(payload: str | None) -> None:
      """Turn a notification into the wake-ups it is meant for."""
      if payload is None or payload == "schedules":
        to_plan.set()
      if payload is None or payload == "cancels":
        to_cancel.set()
      if payload is None or payload == "agents":
        presence.hint()
      if payload is None or payload == "bindings":
        to_beat.set()
      if payload in (None, "servers", "namespaces"):
        to_balance.set()
      if payload == "leader":
        office.hint()
      if payload is None or payload == "routes" or payload.startswith("tasks:"):
        poller.hint(payload)
      broadcaster.hint(payload)
      reconciler.hint(payload)
      limiter.hint(payload)

    gateway = Gateway(
      listener,
      Doorkeeper(
        database=database,
        server_id=ServerId(server.id),
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
          server_id=ServerId(server.id),
          version=__version__,
          max_body_size=settings.max_body_size,
          max_followers=settings.max_followers,
          cors_origins=settings.cors_origins,
          wake=lambda kind, namespace_id: hear(
            f"tasks:{namespace_id}" if kind == "tasks" else kind
          ),
          tree=show_tree,
          gateway=gateway,
          draining=gateway.draining,
        )
      ),
      max_connections=settings.max_connections,
      max_requests=settings.max_requests,
    )
    reaper = Reaper(
      database,
      office,
      clock,
      lease=settings.session_lease,
      lost_grace=settings.lost_grace,
    )
    leader = Supervisor(
      build_leader(Balancer(database, office, to_balance), reaper, Janitor(database))
    )
    return cls(
      cluster=cluster,
      notifier=Notifier(database, hear),
      registry=Registry(
        database, server, clock, office=office, bindings=bindings, wakeup=to_beat
      ),
      recorder=recorder,
      presence=presence,
      sessions=sessions,
      gateway=gateway,
      bindings=bindings,
      elector=Elector(database, ServerId(server.id), office, leader),
      leader=leader,
      generator=Generator(
        database,
        bindings,
        horizon=settings.horizon,
        interval=min(settings.horizon / 12, 5.0),
        wakeup=to_plan,
      ),
      broadcaster=broadcaster,
      reconciler=reconciler,
      limiter=limiter,
      poller=poller,
      canceller=Canceller(database, sessions, to_cancel),
      announcer=Announcer(Path(settings.data_dir), server),
    )
