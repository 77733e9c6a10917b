"""Waiting agents get tasks: one claim for all agents of a kind, one message each.

Run by: one child of each server, for the agents connected to it. Owns the floors (below
which rank a route was found empty).
Agents that satisfy the same routes of a namespace are interchangeable and claimed for
together; namespaces share the places of their agents by weight. A wake-up is a hint; every ``interval`` seconds everything is looked at.

If the server dies after a claim has committed and before the message has left, the agent
does not name the claim when it registers again and the task goes back to the queue at
once. If an agent's session ends in between, its claims meet the same fate. So they do
when nobody can tell whether a claim has committed, because the connection broke or the
loop was stopped: the sessions it was for are ended, and settled as the agents return.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import structlog
import trio

from hetuflow.errors import Unavailable
from hetuflow.nursery import Outage, Wakeup
from hetuflow.protocol.messages import TaskInstanceUpdate
from hetuflow.protocol.model import InstanceId, NamespaceId
from hetuflow.protocol.states import TaskInstanceStatus
from hetuflow.server.scheduling.claims import (
  PollStatistics,
  deal,
  in_doubt,
  make_dispatch,
  version_of,
)
from hetuflow.server.scheduling.configs import FrozenConfigs, Version
from hetuflow.server.scheduling.routing import Routing
from hetuflow.server.scheduling.shares import Shares
from hetuflow.server.session import Session
from hetuflow.server.sessions import Sessions
from hetuflow.storage.connect import Database, Record
from hetuflow.storage.routes import list_waiting_routes
from hetuflow.storage.transitions import (
  ClaimOffer,
  claim_tasks,
  fail_claims,
  record_updates,
)

__all__ = ["Poller"]

CLAIM_LIMIT = 500
"""Places of each budget in one claim; more took longer per task when measured."""
BOTTOM = datetime(1970, 1, 1, tzinfo=UTC)

_log = structlog.get_logger()


class Poller:
  """The loop that claims.

  Args:
    database: where tasks are.
    sessions: the connected agents with their budgets.
    interval: seconds between full looks.
    wakeup: set when there may be tasks, budgets or agents.
  """

  def __init__(
    self,
    database: Database,
    sessions: Sessions,
    *,
    interval: float,
    wakeup: Wakeup,
  ) -> None:
    self._database = database
    self._sessions = sessions
    self._interval = interval
    self._wakeup = wakeup
    self._routing = Routing(database, sessions)
    self._shares = Shares()
    self._floors: dict[int, datetime] = {}
    self._hints = 0
    self._full_look_at = 0.0
    self._configs = FrozenConfigs(database)
    self._outage = Outage(Unavailable, event="poller_waits_for_database")
    self.statistics = PollStatistics()

  def hint(self, payload: str | None) -> None:
    """Take a notification: there are tasks or routes, or anything may have happened."""
    if payload is None or payload == "routes":
      self._routing.hint()
    self._floors.clear()
    self._hints += 1
    self._wakeup.set()

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Claim for ever, as long as there is anybody to claim for."""
    task_status.started()
    while True:
      await self._wakeup.wait(self._interval)
      while await self._outage.retry(self.poll_once):
        pass

  async def poll_once(self) -> bool:
    """Claim once for every group of agents; tell whether some claim came back full."""
    now = trio.current_time()
    if now >= self._full_look_at:
      self._floors.clear()
      self._full_look_at = now + self._interval
    more = False
    self.statistics.polls += 1
    asking = {
      namespace_id: sessions
      for namespace_id, sessions in self._sessions.by_namespace().items()
      if any(session.run or session.hold for session in sessions)
    }
    for namespace_id in self._shares.order(asking):
      sessions = asking[namespace_id]
      if await self._routing.refresh(namespace_id):
        self._shares.weigh(self._routing.weights)
      full = False
      for routes, group in self._groups(namespace_id, sessions):
        full |= await self._claim(namespace_id, routes, group)
      full |= await self._claim_own(namespace_id, sessions)
      self._shares.waits(namespace_id, full)
      more |= full
    return more

  def _groups(
    self, namespace_id: NamespaceId, sessions: Iterable[Session]
  ) -> list[tuple[tuple[int, ...], list[Session]]]:
    """Put agents with a budget together that satisfy the same routes."""
    groups: dict[tuple[int, ...], list[Session]] = {}
    for session in sessions:
      if session.run or session.hold:
        routes = self._routing.satisfied(namespace_id, session)
        if routes:
          groups.setdefault(routes, []).append(session)
    return list(groups.items())

  async def _claim_own(
    self, namespace_id: NamespaceId, sessions: Iterable[Session]
  ) -> bool:
    """Claim what is for one agent alone, for those agents that there is anything for.

    Looked up first: else each agent would have to be asked for by itself each time.
    """
    own = {
      route: session
      for session in sessions
      if session.run or session.hold
      if (route := self._routing.own_route(namespace_id, session)) is not None
    }
    full = False
    if own:
      for route in await list_waiting_routes(self._database, namespace_id, list(own)):
        full |= await self._claim(namespace_id, (route,), [own[route]])
    return full

  async def _claim(
    self,
    namespace_id: NamespaceId,
    routes: tuple[int, ...],
    sessions: Sequence[Session],
  ) -> bool:
    """Claim for one group and send each agent its share."""
    portion = self._portion(namespace_id, sessions)
    run = deal([(session, session.run) for session in sessions], portion or 0)
    hold = deal([(session, session.hold) for session in sessions], CLAIM_LIMIT)
    passed_over = portion == 0
    if not (run or hold):  # others first; or they have left since they were grouped
      return passed_over
    offer = ClaimOffer(
      namespace_id=namespace_id,
      agents=[session.agent_id for session in sessions],
      sessions=[session.id for session in sessions],
      routes=routes,
      floors=[self._floors.get(route, BOTTOM) for route in routes],
      run_agents=[session.agent_id for session in run],
      hold_agents=[session.agent_id for session in hold],
    )
    started, hints = trio.current_time(), self._hints
    # An outage that is met here, before anything was asked, leaves nothing in doubt.
    async with self._database.connection() as connection:
      with in_doubt(sessions):
        rows = await claim_tasks(connection, offer)
    due = sum(not row["held"] for row in rows)
    self.statistics.count(rows, trio.current_time() - started)
    self._shares.charge(namespace_id, due)
    if not rows:
      return passed_over
    if hints == self._hints:
      self._raise_floors(rows)
    with in_doubt(sessions, always=True):
      versions = set(map(version_of, rows))
      problems = await self._outage.retry(partial(self._configs.learn, versions))
      if problems:
        await self._outage.retry(partial(self._fail, namespace_id, rows, problems))
      left = {session.agent_id for session in sessions if session.leaves}
      good = [row for row in rows if version_of(row) not in problems]
      unsent = [row for row in good if row["agent_id"] in left]
      self._send(
        namespace_id, sessions, [row for row in good if row["agent_id"] not in left]
      )
      if unsent:
        await self._outage.retry(partial(self._give_back, namespace_id, unsent))
    return passed_over or due == len(run) > 0 or len(rows) - due == len(hold) > 0

  def _portion(
    self, namespace_id: NamespaceId, sessions: Sequence[Session]
  ) -> int | None:
    """Return how many places of a group are for a namespace; None: there are none."""
    free = [session for session in sessions if session.run]
    if not free:
      return None
    rivals = {name for session in free for name in session.namespace_ids}
    places = sum(session.run for session in free)
    return min(CLAIM_LIMIT, self._shares.portion(namespace_id, places, rivals))

  def _raise_floors(self, rows: Iterable[Record]) -> None:
    """Remember up to which rank each route has been emptied.

    Not after a hint that came during the claim: it may speak of a lower rank.
    """
    for row in rows:
      if not row["held"]:
        floor = self._floors.get(row["route_id"], BOTTOM)
        self._floors[row["route_id"]] = max(floor, row["rank_at"])

  def _send(
    self,
    namespace_id: NamespaceId,
    sessions: Sequence[Session],
    rows: Sequence[Record],
  ) -> None:
    """Take the rows off the agents' budgets and send them off."""
    by_agent: dict[UUID, Session] = {session.agent_id: session for session in sessions}
    shares: dict[UUID, list[Record]] = {}
    for row in rows:
      shares.setdefault(row["agent_id"], []).append(row)
    for agent_id, share in shares.items():
      held = sum(row["held"] for row in share)
      session = by_agent[agent_id]
      session.run = max(0, session.run - (len(share) - held))
      session.hold = max(0, session.hold - held)
      session.dispatch(make_dispatch(namespace_id, share, self._configs))

  async def _give_back(self, namespace_id: NamespaceId, rows: Sequence[Record]) -> None:
    """Release claims of agents that asked for nothing more while they were made."""
    released = [
      TaskInstanceUpdate(
        instance_id=InstanceId(row["instance_id"]),
        namespace_id=namespace_id,
        claim_token=row["claim_token"],
        status=TaskInstanceStatus.RELEASED,
        reason="its agent left before it was told",
      )
      for row in rows
    ]
    await record_updates(self._database, namespace_id, released)

  async def _fail(
    self,
    namespace_id: NamespaceId,
    rows: Sequence[Record],
    problems: Mapping[Version, str],
  ) -> None:
    """End those claims that no agent can be sent."""
    claims = [
      (row["instance_id"], row["claim_token"], problems[version])
      for row in rows
      if (version := version_of(row)) in problems
    ]
    await fail_claims(self._database, namespace_id, claims)
