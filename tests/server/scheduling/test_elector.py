"""One leads, and stops in time: several candidates on one database."""

import time
from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest
import trio
from support.programs import wait_until
from support.world import make_namespace, query

from hetuflow.errors import SupervisionError
from hetuflow.nursery import Child, Group, Restart, Status, Supervisor, Wakeup
from hetuflow.protocol.model import NamespaceId, ServerForCreate, ServerId
from hetuflow.server.clock import DatabaseClock
from hetuflow.server.scheduling.bindings import Bindings
from hetuflow.server.scheduling.leading.balancer import Balancer
from hetuflow.server.scheduling.leading.elector import IN_TERM, Elector
from hetuflow.server.scheduling.leading.office import Office
from hetuflow.server.scheduling.registry import Registry
from hetuflow.storage.connect import Database
from hetuflow.storage.leader import Term, TermOver, acquire_leader

ONE, TWO = ServerId(UUID(int=1)), ServerId(UUID(int=2))
TTL = 1.0
LOCK = query("SELECT owner, term, expires_at > now() AS held FROM distributed_lock")
USURP = query("""
  UPDATE distributed_lock
  SET owner = $owner, term = term + 1, expires_at = now() + '1 minute'
""")
BLOCK = query("LOCK distributed_lock IN ACCESS EXCLUSIVE MODE")
STOPPED = query("SELECT stopped_at IS NOT NULL FROM sched_server WHERE id = $id")


class Candidate:
  """A server reduced to its heartbeat, its candidacy and what it does as the leader.

  Args:
    database: where it stands.
    server_id: who it is.
    duty: what the leader does for as long as it leads; a balancer unless it is given.
  """

  def __init__(
    self,
    database: Database,
    server_id: ServerId,
    duty: Callable[..., Awaitable[None]] | None = None,
    *,
    ttl: float = TTL,
    restart: Restart = IN_TERM,
  ) -> None:
    server = ServerForCreate(id=server_id, name="s", url="http://s", version="1")
    self.office, self.bindings = Office(ttl=ttl), Bindings(server_id)
    self.to_beat, self.to_balance = Wakeup(), Wakeup()
    self.registry = Registry(
      database,
      server,
      DatabaseClock(),
      office=self.office,
      bindings=self.bindings,
      wakeup=self.to_beat,
    )
    duty = duty or Balancer(database, self.office, self.to_balance).run
    self.leader = Supervisor(Group("leader", [Child("duty", duty, restart=restart)]))
    self.elector = Elector(database, server_id, self.office, self.leader)

  @property
  def leads(self) -> bool:
    """Whether it trusts its term."""
    try:
      return bool(self.office.term)
    except TermOver:
      return False

  async def run(
    self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
  ) -> None:
    """Beat and stand."""
    async with trio.open_nursery() as nursery:
      await nursery.start(self.registry.run)
      await nursery.start(self.elector.run)
      task_status.started()


async def idle(*, task_status: trio.TaskStatus[None]) -> None:
  """Lead without doing anything."""
  task_status.started()
  await trio.sleep_forever()


async def test_a_single_server_leads_and_has_all_namespaces_at_once(
  database: Database,
) -> None:
  await make_namespace(database, "other")
  one = Candidate(database, ONE, ttl=40.0)
  with trio.fail_after(20):
    async with trio.open_nursery() as nursery:
      await nursery.start(one.run)
      await wait_until(lambda: one.leads)
      while not await _bound(database):
        pass
      await one.registry.beat_once()
      assert set(one.bindings.epochs) == {"default", "other"}
      nursery.cancel_scope.cancel()


async def _bound(database: Database) -> bool:
  """Tell whether every namespace has a server."""
  rows = await database.fetch(query("SELECT FROM sched_binding"))
  return len(rows) == 2


async def test_a_term_lasts_as_long_as_it_is_renewed(database: Database) -> None:
  one, two = Candidate(database, ONE, idle), Candidate(database, TWO, idle)
  with trio.fail_after(30):
    async with trio.open_nursery() as nursery:
      await nursery.start(one.run)
      await wait_until(lambda: one.leads)
      await nursery.start(two.run)
      with trio.move_on_after(2.5 * TTL):
        await wait_until(lambda: two.leads or not one.leads)
        pytest.fail("it changed")
      lock = await database.fetchrow(LOCK)
      assert lock is not None
      assert (lock["owner"], lock["term"], lock["held"]) == (ONE, 1, True)
      nursery.cancel_scope.cancel()


async def test_one_that_is_stopped_stops_its_group_and_then_resigns(
  database: Database,
) -> None:
  order: list[str] = []

  async def duty(*, task_status: trio.TaskStatus[None]) -> None:
    """See at its end whether somebody else may lead already."""
    task_status.started()
    try:
      await trio.sleep_forever()
    finally:
      with trio.CancelScope(shield=True):
        lock = await database.fetchrow(LOCK)
        assert lock is not None
        order.append("held" if lock["held"] else "free")

  one = Candidate(database, ONE, duty, ttl=40.0)
  with trio.fail_after(20):
    async with trio.open_nursery() as nursery:
      await nursery.start(one.run)
      await wait_until(lambda: one.leads)
      nursery.cancel_scope.cancel()
  assert order == ["held"]
  assert await acquire_leader(database, TWO, ttl=1.0) == Term(owner=TWO, term=2)


async def test_a_hint_of_a_vacancy_is_followed_at_once(database: Database) -> None:
  one, two = Candidate(database, ONE, idle, ttl=40.0), Candidate(database, TWO, idle)
  with trio.fail_after(20):
    async with trio.open_nursery() as outer:
      async with trio.open_nursery() as inner:
        await inner.start(one.run)
        await wait_until(lambda: one.leads)
        await outer.start(two.run)
        inner.cancel_scope.cancel()
      two.office.hint()
      await wait_until(lambda: two.leads)
      outer.cancel_scope.cancel()


async def test_one_whose_term_another_has_taken_learns_it_with_the_next_beat(
  database: Database,
) -> None:
  one = Candidate(database, ONE, idle, ttl=40.0)
  with trio.fail_after(20):
    async with trio.open_nursery() as nursery:
      await nursery.start(one.run)
      await wait_until(lambda: one.leads)
      await database.fetch(USURP, owner=TWO)
      await one.registry.beat_once()
      assert not one.leads
      await wait_until(lambda: one.leader.state().status is Status.STOPPED)
      nursery.cancel_scope.cancel()


async def test_a_leader_whose_write_is_refused_steps_down(database: Database) -> None:
  one = Candidate(database, ONE, ttl=40.0)
  with trio.fail_after(20):
    async with trio.open_nursery() as nursery:
      await nursery.start(one.run)
      await wait_until(lambda: one.leads)
      while not await database.fetch(query("SELECT FROM sched_binding")):
        pass
      await database.fetch(USURP, owner=TWO)
      await make_namespace(database, "new")
      one.to_balance.set()
      await wait_until(lambda: not one.leads)
      await wait_until(lambda: one.leader.state().status is not Status.RUNNING)
      nursery.cancel_scope.cancel()
  rows = await database.fetch(query("SELECT namespace_id FROM sched_binding"))
  assert [row["namespace_id"] for row in rows] == ["default"]


async def test_a_leader_that_cannot_renew_is_done_before_its_successor_begins(
  database: Database,
) -> None:
  one = Candidate(database, ONE, idle)
  with trio.fail_after(30):
    async with trio.open_nursery() as nursery:
      await nursery.start(one.run)
      await wait_until(lambda: one.leads)
      async with database.transaction() as connection:
        await connection.fetch(BLOCK)
        blocked_at = trio.current_time()
        await wait_until(lambda: not one.leads)
        assert trio.current_time() - blocked_at <= TTL
        # Its own clocks end the term, though no statement of it comes back.
        await wait_until(lambda: one.leader.state().status is Status.STOPPED)
        row = await connection.fetchrow(LOCK)
        assert row is not None
        assert row["held"] or trio.current_time() - blocked_at > 0.9 * TTL
        assert dict(one.bindings.epochs) == {}
      nursery.cancel_scope.cancel()


async def test_time_that_only_boot_time_has_seen_ends_trust_before_a_write(
  database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
  one = Candidate(database, ONE, idle, ttl=40.0)
  balancer = Balancer(database, one.office, Wakeup())
  with trio.fail_after(20):
    async with trio.open_nursery() as nursery:
      await nursery.start(one.run)
      await wait_until(lambda: one.leads)
      later = time.clock_gettime(time.CLOCK_BOOTTIME) + 60.0
      monkeypatch.setattr(time, "clock_gettime", lambda clock: later)
      with pytest.raises(TermOver):
        await balancer.balance_once()
      nursery.cancel_scope.cancel()


async def test_a_group_that_fails_too_often_gives_the_office_up(
  database: Database,
) -> None:

  async def duty(*, task_status: trio.TaskStatus[None]) -> None:
    """Crash."""
    task_status.started()
    raise RuntimeError("broken")

  one = Candidate(database, ONE, duty, ttl=40.0, restart=Restart.never())
  with trio.fail_after(20):
    async with trio.open_nursery() as nursery:
      await nursery.start(one.registry.run)
      with pytest.raises(SupervisionError, match="broken"):
        await one.elector.elect_once()
      nursery.cancel_scope.cancel()
  assert await acquire_leader(database, TWO, ttl=1.0) == Term(owner=TWO, term=2)


async def test_a_server_that_drains_is_taken_for_stopped_though_it_beats_on(
  database: Database,
) -> None:
  one = Candidate(database, ONE, idle, ttl=2_400.0)
  await one.registry.beat_once()
  assert not await database.fetchval(STOPPED, id=ONE)
  await one.registry.sign_off()
  await one.registry.beat_once()
  assert await database.fetchval(STOPPED, id=ONE)


async def test_bindings_are_heard_once_and_again_only_when_they_change(
  database: Database,
) -> None:
  heard: list[set[str]] = []
  one = Candidate(database, ONE, idle, ttl=2_400.0)
  one.bindings.tell(lambda: heard.append(set(one.bindings.epochs)))
  bind = query("""
    INSERT INTO sched_binding AS b (namespace_id, server_id)
    VALUES ('default', $server) ON CONFLICT (namespace_id)
    DO UPDATE SET server_id = excluded.server_id, epoch = b.epoch + 1
  """)
  await one.registry.beat_once()
  for server in (ONE, ONE, TWO):
    await database.fetch(bind, server=server)
    await one.registry.beat_once()
    await one.registry.beat_once()
  assert heard == [{"default"}, {"default"}, set()]
  assert NamespaceId("default") not in one.bindings.epochs


async def test_a_beat_tells_whether_any_task_waits_for_a_limit(
  database: Database,
) -> None:
  one = Candidate(database, ONE, idle, ttl=2_400.0)
  await one.registry.beat_once()
  assert not one.bindings.blocked
  await database.fetch(
    query("""
      INSERT INTO sched_task (
        id, namespace_id, job_id, job_version, route_id, status, lane,
        planned_at, scheduled_at, due_at, rank_at
      )
      VALUES (
        gen_random_uuid(), 'default', gen_random_uuid(), 1, 1, 'blocked', 'namespace',
        now(), now(), now(), now()
      )
    """)
  )
  await one.registry.beat_once()
  assert one.bindings.blocked
