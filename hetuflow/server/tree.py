"""The server tree, and nothing else.

List order is start order and dependency; the stop is the reverse. ``parts`` makes what
the children are.
"""

import math
from collections.abc import Awaitable, Callable

from hetuflow.nursery import Child, Group
from hetuflow.server.parts import LeaderParts, Parts
from hetuflow.server.scheduling.leading.elector import IN_TERM, STOP_TIMEOUT

__all__ = ["build_leader", "build_tree"]


def build_tree(parts: Parts) -> Group:
  """Declare the children of a server in the order in which they start."""
  embedded = (
    [Child("postgres", parts.cluster.run, doc="the private PostgreSQL, watched")]
    if parts.cluster is not None
    else []
  )
  return Group(
    "server",
    [
      *embedded,
      Child("notifier", parts.notifier.run, doc="LISTEN becomes wake-ups"),
      Child("registry", parts.registry.run, doc="this server's row, heartbeat"),
      Child(
        "recorder",
        parts.recorder.run,
        doc="reports become rows, in batches; commit, then ack",
        drain=parts.recorder.drain,
      ),
      Child(
        "presence", parts.presence.run, doc="agents' heartbeats renew their leases"
      ),
      Child(
        "gateway",
        parts.gateway.run,
        doc="HTTP and /ws on one port",
        drain=parts.gateway.drain,
        drain_timeout=math.inf,  # requests have all the time that the whole drain has
        inner=[parts.sessions],
      ),
      Child(
        "elector",
        parts.elector.run,
        doc="lease; runs the leader group inside its term",
        drain=parts.registry.sign_off,  # before it resigns: others take over at once
        drain_timeout=2.0,
        inner=[parts.leader],
      ),
      Child("generator", parts.generator.run, doc="due schedules become tasks"),
      Child(
        "broadcaster",
        parts.broadcaster.run,
        doc="a part for each matching agent; the end when all parts have ended",
      ),
      Child("limiter", parts.limiter.run, doc="free places go to those who wait"),
      Child(
        "reconciler", parts.reconciler.run, doc="daemons and delays are kept going"
      ),
      Child("poller", parts.poller.run, doc="claims for waiting agents"),
      Child("canceller", parts.canceller.run, doc="requested cancels reach the agents"),
      Child("announcer", parts.announcer.run, doc="server.json while all of it runs"),
    ],
  )


def build_leader(parts: LeaderParts) -> Group:
  """Declare what only the leader does, in the order in which it starts."""

  def child(name: str, run: Callable[..., Awaitable[None]], doc: str) -> Child:
    """Declare a child that ends with the term."""
    return Child(name, run, doc=doc, restart=IN_TERM, stop_timeout=STOP_TIMEOUT)

  return Group(
    "leader",
    [
      child("balancer", parts.balancer.run, "namespaces go to live servers, by weight"),
      child("reaper", parts.reaper.run, "what silent agents have goes to others"),
      child("janitor", parts.janitor.run, "partitions ahead, what is old is forgotten"),
    ],
  )
