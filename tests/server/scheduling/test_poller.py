"""Claims for waiting agents, on a real database."""

from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from support.members import count_tasks, dispatched, join, make_tasks, messages
from support.postgres import Postgres
from support.world import make_job, make_namespace, query, read_clock

from hetuflow.errors import Unavailable
from hetuflow.nursery import Wakeup
from hetuflow.protocol.messages import DispatchTaskRequest, HeartbeatRequest
from hetuflow.protocol.model import (
  AgentCapabilities,
  AgentId,
  NamespaceForUpdate,
  NamespaceId,
  TaskConfig,
  new_id,
)
from hetuflow.protocol.states import AgentStatus
from hetuflow.server.scheduling import configs as configs_module
from hetuflow.server.scheduling import poller as poller_module
from hetuflow.server.scheduling import routing as routing_module
from hetuflow.server.scheduling.claims import deal
from hetuflow.server.scheduling.poller import Poller
from hetuflow.server.scheduling.routing import satisfies
from hetuflow.server.session import Session
from hetuflow.server.sessions import Sessions
from hetuflow.storage.agents import Heartbeat, renew_sessions
from hetuflow.storage.connect import Database, StorageSettings, open_storage
from hetuflow.storage.namespaces import update_namespace
from hetuflow.storage.routes import Route

# ── pure ────────────────────────────────────────────────────────────────────────────


def make_session(**more: Any) -> Session:
  """Make a session that is nowhere registered."""
  fields: dict[str, Any] = {
    "agent_id": AgentId(new_id()),
    "name": "agent",
    "epoch": 1,
    "namespace_ids": [NamespaceId("default")],
    "labels": {},
    "capabilities": AgentCapabilities(executors=["process"]),
    "heard_at": 0.0,
  }
  return Session(**(fields | more))


@given(
  budgets=st.lists(st.integers(0, 40), min_size=1, max_size=8),
  limit=st.integers(1, 100),
)
@example(budgets=[3, 3, 9, 19, 35], limit=14)
def test_places_are_dealt_fairly(budgets: list[int], limit: int) -> None:
  sessions = [make_session() for _ in budgets]
  offers = list(zip(sessions, budgets, strict=True))
  dealt = deal(offers, limit)
  total = sum(budgets)
  assert len(dealt) == min(limit, total)
  # Every beginning of it is fair too, for there may be fewer tasks than places.
  for part in (dealt, dealt[: len(dealt) // 2]):
    got = Counter(session.agent_id for session in part)
    for session, places in offers:
      share = places / max(total, 1)
      assert got[session.agent_id] <= places
      # Half a place, and what the halves of the others can come to.
      most = 0.5 + share * len(budgets) / 2 + 1e-9
      assert abs(got[session.agent_id] - len(part) * share) <= most


@given(
  budgets=st.lists(st.integers(0, 2_000), min_size=2, max_size=8),
  limit=st.integers(1, 100),
)
def test_places_are_dealt_as_if_all_of_them_were_looked_at(
  budgets: list[int], limit: int
) -> None:
  sessions = [make_session() for _ in budgets]
  spread = sorted(
    ((place + 0.5) / places, number)
    for number, places in enumerate(budgets)
    for place in range(places)
  )
  expected = [sessions[number] for _, number in spread[:limit]]
  assert deal(list(zip(sessions, budgets, strict=True)), limit) == expected


@pytest.mark.parametrize(
  ("selector", "expected"),
  [
    ({"executor": "process", "labels": {}}, True),
    ({"executor": "process", "labels": {"disk": "ssd"}}, True),
    ({"executor": "process", "labels": {"disk": "hdd"}}, False),
    ({"executor": "process", "labels": {"gpu": "a"}}, False),
    ({"executor": "docker", "labels": {}}, False),
    ({"executor": "python", "labels": {}, "function": "f"}, True),
    ({"executor": "python", "labels": {}, "function": "g"}, False),
    ({"executor": "process", "labels": {}, "broadcast": True}, False),
    ({"agent": "0190a8b4-7c00-7000-8000-000000000005"}, False),
  ],
)
def test_an_agent_satisfies_a_route_in_every_point(
  selector: dict[str, Any], expected: bool
) -> None:
  session = make_session(
    labels={"disk": "ssd", "rack": "7"},
    capabilities=AgentCapabilities(executors=["process", "python"], functions=["f"]),
  )
  route = Route(id=1, namespace_id=NamespaceId("default"), selector=selector)
  assert satisfies(session, route) is expected


# ── claims ──────────────────────────────────────────────────────────────────────────


def make_poller(database: Database, sessions: Sessions, **more: Any) -> Poller:
  """Make a poller that is called pass by pass."""
  return Poller(database, sessions, **({"interval": 600.0, "wakeup": Wakeup()} | more))


async def poll_all(poller: Poller) -> None:
  """Claim until a pass is not full."""
  while await poller.poll_once():
    pass


async def test_each_agent_gets_the_tasks_it_can_run(database: Database) -> None:
  sessions = Sessions()
  plain = await make_job(database, "plain")
  ssd = await make_job(
    database, "ssd", config=TaskConfig(cmd="/bin/true", labels={"disk": "ssd"})
  )
  gpu = await make_job(
    database, "gpu", config=TaskConfig(cmd="/bin/true", labels={"gpu": "yes"})
  )
  await make_tasks(database, gpu, 30)
  await make_tasks(database, ssd, 10)
  await make_tasks(database, plain, 10)
  fast = await join(database, sessions, labels={"disk": "ssd"}, run=15)
  slow = await join(database, sessions, run=15)
  await poll_all(make_poller(database, sessions))
  taken = dispatched(fast), dispatched(slow)
  assert sum(map(len, taken)) == 20
  ids = {task.config.split(":")[0] for task in taken[1]}
  assert ids <= {str(plain.id)}
  assert {task.config.split(":")[0] for task in taken[0]} >= {str(ssd.id)}
  # Those that nobody can run stand in nobody's way, and wait.
  assert await count_tasks(database, "pending") == 30


async def test_budgets_are_never_exceeded(database: Database) -> None:
  sessions = Sessions()
  job = await make_job(database)
  await make_tasks(database, job, 20)
  soon = await read_clock(database) + timedelta(seconds=3)
  await make_tasks(database, job, 20, scheduled_at=soon)
  agent = await join(database, sessions, run=3, hold=5)
  poller = make_poller(database, sessions)
  await poll_all(poller)
  tasks = dispatched(agent)
  assert Counter(task.held for task in tasks) == {False: 3, True: 5}
  assert (agent.run, agent.hold) == (0, 0)
  await poll_all(poller)
  assert dispatched(agent) == []
  agent.grant(2, 0)
  await poll_all(poller)
  assert [task.held for task in dispatched(agent)] == [False, False]


async def test_a_task_due_soon_is_handed_out_to_be_held(database: Database) -> None:
  sessions = Sessions()
  job = await make_job(database)
  now = await read_clock(database)
  [soon] = await make_tasks(database, job, scheduled_at=now + timedelta(seconds=3))
  await make_tasks(database, job, scheduled_at=now + timedelta(seconds=60))
  runner = await join(database, sessions, name="runner", run=5)
  poller = make_poller(database, sessions)
  await poll_all(poller)
  assert dispatched(runner) == []
  holder = await join(database, sessions, name="holder", hold=5)
  await poll_all(poller)
  [task] = dispatched(holder)
  assert (task.task_id, task.held) == (soon, True)
  assert task.due_at == now + timedelta(seconds=3)


async def test_a_lead_of_a_quarter_of_an_hour_is_handed_out_ahead(
  database: Database,
) -> None:
  sessions = Sessions()
  job = await make_job(database)
  await update_namespace(database, job.namespace_id, NamespaceForUpdate(lead=900.0))
  now = await read_clock(database)
  await make_tasks(database, job, scheduled_at=now + timedelta(minutes=14))
  holder = await join(database, sessions, hold=5)
  await poll_all(make_poller(database, sessions))
  assert len(dispatched(holder)) == 1


async def test_a_higher_priority_goes_first(database: Database) -> None:
  sessions = Sessions()
  job = await make_job(database)
  made = {
    priority: (await make_tasks(database, job, priority=priority))[0]
    for priority in (0, 5, -3, 10)
  }
  agent = await join(database, sessions)
  poller = make_poller(database, sessions)
  order = []
  for _ in made:
    agent.grant(1, 0)
    await poller.poll_once()
    order += [task.task_id for task in dispatched(agent)]
  assert order == [made[priority] for priority in (10, 5, 0, -3)]


async def test_a_task_below_the_floor_is_claimed_after_a_hint_or_a_full_look(
  database: Database,
) -> None:
  sessions = Sessions()
  job = await make_job(database)
  agent = await join(database, sessions, run=100)
  poller = make_poller(database, sessions)
  await make_tasks(database, job, 3)
  await poll_all(poller)
  assert len(dispatched(agent)) == 3
  await make_tasks(database, job, priority=10)
  await poll_all(poller)
  assert dispatched(agent) == []
  poller.hint("tasks:default")
  await poll_all(poller)
  assert len(dispatched(agent)) == 1
  await make_tasks(database, job, priority=10)
  looker = make_poller(database, sessions, interval=0.0)
  await poll_all(looker)
  assert len(dispatched(agent)) == 1


async def test_a_hint_that_comes_during_a_claim_is_not_forgotten(
  database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
  sessions = Sessions()
  job = await make_job(database)
  agent = await join(database, sessions, run=100)
  poller = make_poller(database, sessions)
  await make_tasks(database, job, 3)
  claim = poller_module.claim_tasks

  async def claim_and_insert(executor: Any, offer: Any) -> Any:
    rows = await claim(executor, offer)
    if rows:
      await make_tasks(database, job, priority=10)
      poller.hint("tasks:default")
      monkeypatch.setattr(poller_module, "claim_tasks", claim)
    return rows

  monkeypatch.setattr(poller_module, "claim_tasks", claim_and_insert)
  await poll_all(poller)
  assert len(dispatched(agent)) == 3
  await poll_all(poller)
  assert len(dispatched(agent)) == 1


async def test_places_of_an_agent_that_is_gone_take_no_tasks_from_the_others(
  database: Database,
) -> None:
  sessions = Sessions()
  job = await make_job(database)
  gone = await join(database, sessions, name="gone", run=10, hold=10)
  there = await join(database, sessions, name="there", run=1, hold=1)
  await database.fetch(
    query("UPDATE sched_agent SET lease_until = now() WHERE id = $id"),
    id=gone.agent_id,
  )
  await make_tasks(database, job, 1)
  soon = await read_clock(database) + timedelta(seconds=3)
  await make_tasks(database, job, 1, scheduled_at=soon)
  await poll_all(make_poller(database, sessions))
  assert dispatched(gone) == []
  assert len(dispatched(there)) == 2


async def test_nothing_is_claimed_for_an_agent_that_leaves_during_another_claim(
  database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
  sessions = Sessions()
  for name in ("one", "two"):
    await make_namespace(database, name)
    await make_tasks(database, await make_job(database, namespace_id=name), 1)
  agents = [
    await join(database, sessions, namespaces=(name,), run=1) for name in ("one", "two")
  ]
  claim = poller_module.claim_tasks

  async def leave_and_claim(executor: Any, offer: Any) -> Any:
    # The row in the database still says that it is connected.
    for agent in agents:
      if agent.agent_id not in offer.agents:
        sessions.remove(agent)
    return await claim(executor, offer)

  monkeypatch.setattr(poller_module, "claim_tasks", leave_and_claim)
  await poll_all(make_poller(database, sessions))
  assert [len(dispatched(agent)) for agent in agents] in ([0, 1], [1, 0])
  claimed = await database.fetchval(query("SELECT count(*) FROM sched_task_instance"))
  assert claimed == 1


@pytest.mark.parametrize("how", ["drains", "is told to go", "is gone"])
async def test_what_was_claimed_for_an_agent_that_leaves_goes_back_at_once(
  database: Database, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
  sessions = Sessions()
  await make_tasks(database, await make_job(database), 3)
  agent = await join(database, sessions, run=2)
  claim = poller_module.claim_tasks

  async def claim_and_leave(executor: Any, offer: Any) -> Any:
    rows = await claim(executor, offer)
    match how:
      case "drains":
        agent.withdraw()
      case "is told to go":
        agent.close(4002, "kicked")
      case _:
        sessions.remove(agent)
    return rows

  monkeypatch.setattr(poller_module, "claim_tasks", claim_and_leave)
  await poll_all(make_poller(database, sessions))
  assert dispatched(agent) == []
  assert await count_tasks(database, "pending") == 3
  attempts = await database.fetch(
    query("""
      SELECT i.status::text AS status, t.attempts
      FROM sched_task_instance AS i JOIN sched_task AS t ON t.id = i.task_id
    """)
  )
  assert {(row["status"], row["attempts"]) for row in attempts} == {("released", 0)}


async def test_namespaces_are_claimed_for_apart(database: Database) -> None:
  sessions = Sessions()
  await make_namespace(database, "other")
  await make_tasks(database, await make_job(database), 5)
  await make_tasks(database, await make_job(database, "b", namespace_id="other"), 5)
  one = await join(database, sessions, namespaces=("other",), run=20)
  both = await join(database, sessions, namespaces=("default", "other"), run=20)
  await poll_all(make_poller(database, sessions))
  assert {task.namespace_id for task in dispatched(one)} == {"other"}
  assert Counter(task.namespace_id for task in dispatched(both))["default"] == 5


async def test_namespaces_that_wait_share_agents_by_weight(database: Database) -> None:
  sessions = Sessions()
  await make_namespace(database, "other")
  await update_namespace(database, "other", NamespaceForUpdate(weight=3))
  await make_tasks(database, await make_job(database), 200)
  await make_tasks(database, await make_job(database, "b", namespace_id="other"), 200)
  agent = await join(database, sessions, namespaces=("default", "other"), run=10)
  poller = make_poller(database, sessions)
  got: Counter[str] = Counter()
  for _ in range(12):
    await poll_all(poller)
    taken = dispatched(agent)
    assert len(taken) == 10
    got.update(task.namespace_id for task in taken)
    agent.grant(10, 0)
  # Of the first round nobody knew that both wait.
  assert abs(got["other"] - 90) <= 5


async def test_a_new_route_is_seen_after_its_hint(database: Database) -> None:
  sessions = Sessions()
  agent = await join(database, sessions, labels={"disk": "ssd"}, run=5)
  poller = make_poller(database, sessions)
  await make_tasks(database, await make_job(database, "a"))
  await poll_all(poller)
  fresh = TaskConfig(cmd="/bin/true", labels={"disk": "ssd"})
  await make_tasks(database, await make_job(database, "b", config=fresh))
  poller.hint("routes")
  await poll_all(poller)
  assert len(dispatched(agent)) == 2


async def test_a_hint_of_a_route_that_comes_while_routes_are_read_is_not_forgotten(
  database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
  sessions = Sessions()
  agent = await join(database, sessions, labels={"disk": "ssd"}, run=5)
  poller = make_poller(database, sessions)
  list_routes = routing_module.list_routes

  async def list_and_add(*args: Any) -> Any:
    routes = await list_routes(*args)
    monkeypatch.setattr(routing_module, "list_routes", list_routes)
    fresh = TaskConfig(cmd="/bin/true", labels={"disk": "ssd"})
    await make_tasks(database, await make_job(database, config=fresh))
    poller.hint("routes")
    return routes

  monkeypatch.setattr(routing_module, "list_routes", list_and_add)
  await poll_all(poller)
  assert dispatched(agent) == []
  await poll_all(poller)
  assert len(dispatched(agent)) == 1


async def test_routes_that_could_not_be_read_are_read_the_next_time(
  database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
  sessions = Sessions()
  agent = await join(database, sessions, run=5)
  await make_tasks(database, await make_job(database))
  poller = make_poller(database, sessions)

  async def fail(*_: Any) -> Any:
    raise Unavailable("list_routes: gone")

  with monkeypatch.context() as patch:
    patch.setattr(routing_module, "list_routes", fail)
    with pytest.raises(Unavailable):
      await poller.poll_once()
  await poll_all(poller)
  assert len(dispatched(agent)) == 1


TWICE = query("""
  SELECT count(*) FROM (
    SELECT task_id FROM sched_task_instance GROUP BY task_id HAVING count(*) > 1
  ) AS twice
""")
DEADLOCKS = query("""
  SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()
""")


async def test_servers_that_claim_side_by_side_claim_no_task_twice(
  database: Database, dsn: str
) -> None:
  job = await make_job(database)
  await make_tasks(database, job, 2_000)
  taken: dict[UUID, list[Any]] = {}

  async def serve(one: Database, number: int) -> None:
    sessions = Sessions()
    agents = [
      await join(one, sessions, name=f"{number}-{place}", run=37) for place in range(6)
    ]
    poller = make_poller(one, sessions)
    async with trio.open_nursery() as nursery:
      nursery.start_soon(beat, one, agents)
      while await count_tasks(one, "pending"):
        await poller.poll_once()
        for agent in agents:
          tasks = dispatched(agent)
          taken.setdefault(agent.agent_id, []).extend(tasks)
          assert len(tasks) <= 37
          agent.grant(len(tasks), 0)
      nursery.cancel_scope.cancel()

  async def beat(one: Database, agents: list[Session]) -> None:
    while True:
      beats = [
        Heartbeat(
          agent_id=agent.agent_id,
          session_id=agent.id,
          status=AgentStatus.ONLINE,
          request=HeartbeatRequest(sent_at=1.0),
        )
        for agent in agents
      ]
      assert len(await renew_sessions(one, beats, lease=30.0)) == len(agents)

  async def serve_elsewhere() -> None:
    async with open_storage(StorageSettings(dsn=dsn, statement_timeout=10)) as other:
      await serve(other, 2)

  with trio.fail_after(60):
    async with trio.open_nursery() as nursery:
      nursery.start_soon(serve, database, 1)
      nursery.start_soon(serve_elsewhere)
  tasks = [task.task_id for share in taken.values() for task in share]
  assert len(tasks) == len(set(tasks)) == 2_000
  assert len({task.claim_token for share in taken.values() for task in share}) == 2_000
  assert all(taken.values())
  assert await database.fetchval(TWICE) == 0
  assert await database.fetchval(DEADLOCKS) == 0


async def test_a_batch_larger_than_a_frame_goes_in_parts(
  database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr("hetuflow.server.session.MAX_FRAME", 20_000)
  sessions = Sessions()
  job = await make_job(database)
  await make_tasks(database, job, 40, parameters={"text": "x" * 1_000})
  agent = await join(database, sessions, run=100)
  await poll_all(make_poller(database, sessions))
  assert all(len(frame) <= 20_000 for frame in agent.frames)
  parts = [part for part in messages(agent) if isinstance(part, DispatchTaskRequest)]
  assert len(parts) > 2
  assert len(agent.unacknowledged) == len(parts)
  ids = [task.task_id for part in parts for task in part.tasks]
  assert len(set(ids)) == len(ids) == 40
  assert all(
    {task.config for task in part.tasks} == part.configs.keys() for part in parts
  )


SPOIL = query("""
  UPDATE sched_job_version SET config = config || $spoilt::jsonb WHERE job_id = $job_id
""")
OUTCOMES = query("""
  SELECT t.status, t.reason, t.attempts, i.status AS instance
  FROM sched_task AS t JOIN sched_task_instance AS i ON i.task_id = t.id
  WHERE t.job_id = $job_id
""")


@pytest.mark.parametrize(
  ("spoilt", "why"),
  [
    ({"kill_grace": -1}, "its configuration cannot be used: "),
    ({"executor": "telegraph", "retry_interval": "soon"}, "its configuration cannot"),
  ],
)
async def test_a_task_whose_configuration_is_refused_fails_and_the_rest_go_on(
  database: Database, spoilt: dict[str, Any], why: str
) -> None:
  sessions = Sessions()
  bad = await make_job(database, config=TaskConfig(cmd="x", max_retries=3))
  good = await make_job(database, "good")
  await make_tasks(database, bad, 3)
  await make_tasks(database, good, 3)
  await database.fetch(SPOIL, spoilt=spoilt, job_id=bad.id)
  agent = await join(database, sessions, run=10)
  with trio.fail_after(20):
    await poll_all(make_poller(database, sessions))
  assert agent.closing is None
  assert len(dispatched(agent)) == 3
  assert agent.run == 7
  rows = await database.fetch(OUTCOMES, job_id=bad.id)
  assert [(r["status"], r["attempts"], r["instance"]) for r in rows] == 3 * [
    ("failed", 1, "failed")
  ]
  assert all(row["reason"].startswith(why) for row in rows)


# ── interruptions ───────────────────────────────────────────────────────────────────

UNTOLD = query("""
  SELECT count(*) FROM sched_task_instance WHERE completed_at = 'infinity'
""")


async def test_sessions_end_when_nobody_knows_whether_a_claim_committed(
  database: Database, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
  sessions = Sessions()
  job = await make_job(database)
  await make_tasks(database, job, 3)
  agent = await join(database, sessions, run=10)
  poller = make_poller(database, sessions)
  claim = poller_module.claim_tasks

  async def claim_and_die(executor: Any, offer: Any) -> Any:
    await claim(executor, offer)
    pid = await executor.fetchval(query("SELECT pg_backend_pid()"))
    postgres.sql(f"SELECT pg_terminate_backend({pid})")
    return await claim(executor, offer)

  monkeypatch.setattr(poller_module, "claim_tasks", claim_and_die)
  with trio.fail_after(20), pytest.raises(Unavailable):
    await poller.poll_once()
  assert agent.closing == (1011, "a claim was interrupted")
  assert await database.fetchval(UNTOLD) == 3
  # The agent comes back, names no claim, and the tasks go to the queue.
  monkeypatch.setattr(poller_module, "claim_tasks", claim)
  again = await join(database, sessions, run=10, agent_id=agent.agent_id)
  await poll_all(poller)
  assert len(dispatched(again)) == 3


async def test_a_cancelled_claim_leaves_no_session_with_claims_it_never_hears_of(
  database: Database,
) -> None:
  sessions = Sessions()
  job = await make_job(database)
  agent = await join(database, sessions)
  total = 300
  await make_tasks(database, job, total)
  poller = make_poller(database, sessions)
  heard: set[UUID] = set()
  with trio.fail_after(60):
    for number in range(60):
      agent.grant(max(0, 3 - agent.run), 0)
      with trio.move_on_after(number / 10_000):
        await poller.poll_once()
      if agent.closing is None:
        heard |= {task.task_id for task in dispatched(agent)}
        assert await database.fetchval(UNTOLD) == len(heard)
      else:
        # What it heard of is reported as not held either, and goes back as well.
        agent = await join(database, sessions, agent_id=agent.agent_id)
        assert await database.fetchval(UNTOLD) == 0
        heard.clear()


async def test_a_statement_that_the_database_refused_ends_no_session(
  database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
  sessions = Sessions()
  await make_tasks(database, await make_job(database), 1)
  agent = await join(database, sessions, run=10)
  poller = make_poller(database, sessions)

  async def time_out(executor: Any, offer: Any) -> Any:
    await executor.fetch(query("SET statement_timeout = 50"))
    try:
      return await executor.fetch(query("SELECT pg_sleep(5)"))
    finally:
      await executor.fetch(query("SET statement_timeout = 10000"))

  with monkeypatch.context() as patch:
    patch.setattr(poller_module, "claim_tasks", time_out)
    with pytest.raises(Unavailable):
      await poller.poll_once()
  assert agent.closing is None
  await poll_all(poller)
  assert len(dispatched(agent)) == 1


async def test_configurations_that_cannot_be_read_yet_are_waited_for(
  database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
  sessions = Sessions()
  await make_tasks(database, await make_job(database), 2)
  agent = await join(database, sessions, run=10)
  load = configs_module.load_configs
  failures = iter([Unavailable("away"), Unavailable("away")])

  async def load_at_last(executor: Any, versions: Any) -> Any:
    for failure in failures:
      raise failure
    return await load(executor, versions)

  monkeypatch.setattr(configs_module, "load_configs", load_at_last)
  with trio.fail_after(20):
    await poll_all(make_poller(database, sessions))
  assert agent.closing is None
  assert len(dispatched(agent)) == 2


async def test_the_loop_is_woken_and_also_looks_by_itself(database: Database) -> None:
  sessions = Sessions()
  job = await make_job(database)
  agent = await join(database, sessions, run=10)
  wakeup = Wakeup()
  woken = make_poller(database, sessions, wakeup=wakeup)
  with trio.fail_after(20):
    async with trio.open_nursery() as nursery:
      await nursery.start(woken.run)
      await make_tasks(database, job)
      woken.hint("tasks:default")
      await agent.wakeup.wait()
      nursery.cancel_scope.cancel()
    assert len(dispatched(agent)) == 1
    async with trio.open_nursery() as nursery:
      await nursery.start(make_poller(database, sessions, interval=0.05).run)
      await make_tasks(database, job)
      await agent.wakeup.wait()
      nursery.cancel_scope.cancel()
    assert len(dispatched(agent)) == 1
