"""The tree of the agent."""

from hetuflow.agent.link.connection import Replaced
from hetuflow.agent.parts import Parts
from hetuflow.errors import Refused, SettingsError
from hetuflow.nursery import Child, Group, Restart

__all__ = ["build_tree"]

SLACK_SECONDS = 15.0


def build_tree(parts: Parts) -> Group:
  """Declare what runs, in the order it starts; it stops in the reverse.

  Args:
    parts: wired to each other.
  """
  settings = parts.config.agent
  lasting = settings.drain_timeout + settings.kill_grace + SLACK_SECONDS
  return Group(
    "agent",
    [
      Child(
        "connection",
        parts.connection.run,
        doc="register, one session, reconnect with backoff",
        restart=Restart(fatal=(Refused, Replaced, SettingsError)),
        drain=parts.connection.drain,
      ),
      Child(
        "clock",
        parts.clock_keeper.run,
        doc="offset to database time, discipline, refusal bound",
      ),
      Child("heartbeat", parts.heartbeat.run, doc="liveness, metrics, leases renewed"),
      Child(
        "outbox",
        parts.outbox.run,
        doc="reports until acknowledged (journal behind it)",
        drain=parts.outbox.drain,
      ),
      Child(
        "executor",
        parts.executor.run,
        doc="slots for what is due",
        drain=parts.executor.drain,
        drain_timeout=lasting,
        stop_timeout=SLACK_SECONDS,
        inner=[parts.crowd],
      ),
      Child(
        "wheel",
        parts.wheel.run,
        doc="fires what is due, to the millisecond",
        drain=parts.intake.give_back,
      ),
      Child(
        "puller",
        parts.puller.run,
        doc="asks for as much as there are free slots",
        drain=parts.puller.drain,
      ),
    ],
  )
