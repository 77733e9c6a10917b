"""The leader's loop that gives up the silent."""

from datetime import UTC, datetime, timedelta

import trio
from support.members import SET_LEASE, join, make_tasks
from support.world import make_job, query

from hetuflow.nursery import Wakeup
from hetuflow.protocol.model import ServerId, TaskId, new_id
from hetuflow.protocol.states import TaskStatus
from hetuflow.server.clock import DatabaseClock
from hetuflow.server.scheduling.leading.office import Office
from hetuflow.server.scheduling.poller import Poller
from hetuflow.server.scheduling.reaper import TERM_GRACE, Reaper
from hetuflow.server.session import Session
from hetuflow.server.sessions import Sessions
from hetuflow.server.trust import Moment
from hetuflow.storage.connect import Database
from hetuflow.storage.leader import acquire_leader
from hetuflow.storage.tasks import get_task

LEASE = 30.0
ELECTED = query("""
  UPDATE distributed_lock SET acquired_at = now() - make_interval(secs => $age)
""")
OLD_CLAIMS = query("""
  UPDATE sched_task_instance SET due_at = now() - interval '1 minute'
""")
OLD_LOSSES = query("""
  UPDATE sched_task_instance SET lost_at = lost_at - interval '3 minutes'
""")
SERVERS = query("""
  INSERT INTO sched_server (id, name, url, version, alive_until)
  SELECT gen_random_uuid(), name, '', '1', now() + make_interval(secs => seconds)
  FROM (VALUES ('alive', 9), ('dead', -1)) AS s (name, seconds)
""")
STOPPED = query("SELECT name FROM sched_server WHERE stopped_at IS NOT NULL")


async def make_reaper(
  database: Database, *, elected: float = 3_600.0, steady: float = 3_600.0
) -> Reaper:
  """Lead for so many seconds, and have been in touch for so many."""
  office, owner = Office(ttl=60.0), ServerId(new_id())
  since = Moment()
  term = await acquire_leader(database, owner, ttl=60.0)
  assert term is not None
  office.enter(term, since, trio.CancelScope())
  await database.fetch(ELECTED, age=elected)
  clock = DatabaseClock(gap=7_200.0)
  for age in (steady, 0.0):
    clock.learn(datetime.now(UTC) - timedelta(seconds=age), 0.0, 0.0)
  return Reaper(database, office, clock, lease=LEASE, lost_grace=120.0)


async def have_claims(
  database: Database, count: int = 1
) -> tuple[Session, list[TaskId]]:
  """Let an agent have tasks that are long due, and fall silent."""
  sessions = Sessions()
  tasks = await make_tasks(database, await make_job(database), count)
  agent = await join(database, sessions, run=count)
  await Poller(database, sessions, interval=1.0, wakeup=Wakeup()).poll_once()
  await database.fetch(OLD_CLAIMS)
  await database.fetch(SET_LEASE, id=agent.agent_id, seconds=-1.0)
  return agent, tasks


async def test_a_pass_gives_up_then_closes_and_then_finds_nothing(
  database: Database,
) -> None:
  reaper = await make_reaper(database)
  _, tasks = await have_claims(database, 3)
  assert await reaper.reap_once() == 3
  assert await reaper.reap_once() == 0
  for task_id in tasks:
    assert (await get_task(database, task_id)).status is TaskStatus.WAITING_RETRY
  await database.fetch(OLD_LOSSES)
  assert await reaper.reap_once() == 3
  assert await reaper.reap_once() == 0


async def test_nobody_is_given_up_soon_after_an_outage_or_an_election(
  database: Database,
) -> None:
  await have_claims(database)
  for elected, steady in ((TERM_GRACE - 1, 3_600.0), (3_600.0, LEASE - 1)):
    await database.fetch(query("DELETE FROM distributed_lock"))
    reaper = await make_reaper(database, elected=elected, steady=steady)
    assert await reaper.reap_once() == 0
  await database.fetch(query("DELETE FROM distributed_lock"))
  reaper = await make_reaper(database, elected=TERM_GRACE + 1, steady=LEASE + 1)
  assert await reaper.reap_once() == 1


async def test_servers_that_are_gone_are_signed_off(database: Database) -> None:
  reaper = await make_reaper(database)
  await database.fetch(SERVERS)
  assert await reaper.reap_once() == 1
  assert await reaper.reap_once() == 0
  assert [row["name"] for row in await database.fetch(STOPPED)] == ["dead"]


async def test_the_loop_comes_to_what_happens_after_it_began(
  database: Database,
) -> None:
  reaper = await make_reaper(database)
  with trio.fail_after(20):
    async with trio.open_nursery() as nursery:
      await nursery.start(reaper.run)
      _, [task_id] = await have_claims(database)
      while (await get_task(database, task_id)).status is TaskStatus.DISPATCHED:
        pass
      nursery.cancel_scope.cancel()
