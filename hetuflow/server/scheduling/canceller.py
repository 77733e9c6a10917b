"""Requested cancels and kills are told to the agents that have the tasks.

Run by: one child of each server, for the agents connected to it. Owns the memory of what
was told when. The request stands in the task's row: a server that dies, or an agent that
was not connected, changes nothing, for it is told again until the row has ended.
"""

from collections.abc import Sequence

import trio

from hetuflow.errors import Unavailable
from hetuflow.nursery import Outage, Wakeup
from hetuflow.protocol.messages import AgentCommand, AgentCommandKind, MessageKind
from hetuflow.server.session import Session
from hetuflow.server.sessions import Sessions
from hetuflow.storage.agents import Cancel, list_cancels
from hetuflow.storage.connect import Database

__all__ = ["Canceller"]

INTERVAL = 1.0
REPEAT_AFTER = 5.0
"""Seconds after which an agent is told again."""


class Canceller:
  """The loop that passes cancels on.

  Args:
    database: where the requests are.
    sessions: the connected agents.
    wakeup: set when somebody asked for a cancel.
  """

  def __init__(self, database: Database, sessions: Sessions, wakeup: Wakeup) -> None:
    self._database = database
    self._sessions = sessions
    self._wakeup = wakeup
    self._told: dict[Cancel, float] = {}
    self._outage = Outage(Unavailable, event="canceller_waits_for_database")

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Pass cancels on for ever."""
    task_status.started()
    while True:
      hinted = await self._wakeup.wait(INTERVAL)
      # An idle server need not ask; a report that crosses a dispatch could be mistaken.
      if hinted or not all(session.at_rest for session in self._sessions):
        await self._outage.retry(self.cancel_once)

  async def cancel_once(self) -> int:
    """Tell every agent what to cancel that it was not just told; return how much."""
    now = trio.current_time()
    cancels = await list_cancels(self._database, self._sessions.agent_ids())
    told: dict[Cancel, float] = {}
    for agent_id, wanted in cancels.items():
      fresh = [
        cancel
        for cancel in wanted
        if now - self._told.get(cancel, -REPEAT_AFTER) >= REPEAT_AFTER
      ]
      told |= {cancel: self._told.get(cancel, now) for cancel in wanted}
      session = self._sessions.get(agent_id)
      if fresh and session is not None:
        told |= dict.fromkeys(fresh, now)
        _tell(session, fresh)
    self._told = told
    return sum(map(len, cancels.values()))


def _tell(session: Session, cancels: Sequence[Cancel]) -> None:
  """Tell an agent what to cancel and what to kill."""
  for kind, reason in (
    (AgentCommandKind.CANCEL, "cancelled by request"),
    (AgentCommandKind.KILL, "killed by request"),
  ):
    kill = kind is AgentCommandKind.KILL
    ids = [cancel.instance_id for cancel in cancels if cancel.kill is kill]
    if ids:
      command = AgentCommand(command=kind, instance_ids=ids, reason=reason)
      session.send(MessageKind.AGENT_COMMAND, command)
