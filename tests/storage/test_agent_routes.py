"""Routes to single agents: made once, kept while they are needed, forgotten after."""

import pytest
import trio
from support.members import join
from support.world import make_job, query

from hetuflow.protocol.model import AgentId, TaskConfig, new_id
from hetuflow.protocol.states import ExecutorKind
from hetuflow.server.sessions import Sessions
from hetuflow.storage.connect import Database
from hetuflow.storage.routes import (
  forget_agent_routes,
  list_routes,
  matching_agents,
  selector_of,
  share_agent_routes,
)

AGE = query("""
  UPDATE sched_route SET created_at = now() - interval '2 days'
  WHERE selector -> 'agent' IS NOT NULL
""")
LEAVE = query("""
  UPDATE sched_agent SET lease_until = now() - interval '2 days' WHERE id = $id
""")
GIVE = query("""
  INSERT INTO sched_task (
    id, namespace_id, job_id, job_version, route_id, planned_at, scheduled_at, due_at,
    rank_at
  )
  SELECT gen_random_uuid(), namespace_id, id, 1, $route_id, now(), now(), now(), now()
  FROM sched_job WHERE id = $job_id
""")


async def make_route(database: Database, agent_id: AgentId) -> int:
  """Make the route to an agent."""
  async with database.transaction() as connection:
    routes = await share_agent_routes(connection, [("default", agent_id)])
  return routes["default", agent_id]


async def agents_with_routes(database: Database) -> set[str]:
  """List the agents that there are routes to."""
  routes = await list_routes(database, ["default"])
  return {str(r.selector["agent"]) for r in routes if "agent" in r.selector}


async def test_those_who_ask_at_once_get_the_same_route(database: Database) -> None:
  agents = [AgentId(new_id()) for _ in range(20)]
  answers: list[dict[tuple[str, object], int]] = []

  async def ask() -> None:
    """Ask for all of them."""
    async with database.transaction() as connection:
      wanted = [("default", agent_id) for agent_id in agents]
      answers.append(dict(await share_agent_routes(connection, wanted)))

  async with trio.open_nursery() as nursery:
    for _ in range(5):
      nursery.start_soon(ask)
  assert all(answer == answers[0] for answer in answers)
  assert len(answers[0]) == 20


async def test_only_routes_that_nobody_needs_are_forgotten(database: Database) -> None:
  sessions = Sessions()
  here, away, waited_for = [
    (await join(database, sessions, name=name)).agent_id for name in "abc"
  ]
  job = await make_job(database)
  routes = [await make_route(database, each) for each in (here, away, waited_for)]
  await database.fetch(GIVE, route_id=routes[2], job_id=job.id)
  for gone in (away, waited_for):
    await database.fetch(LEAVE, id=gone)
  # Made just now: somebody may be about to use it.
  assert await forget_agent_routes(database, limit=10) == 0
  await database.fetch(AGE)
  assert await forget_agent_routes(database, limit=10) == 1
  assert await agents_with_routes(database) == {str(here), str(waited_for)}


async def test_a_route_is_not_forgotten_while_tasks_are_made_for_it(
  database: Database,
) -> None:
  agent_id = AgentId(new_id())
  route = await make_route(database, agent_id)
  await database.fetch(AGE)
  async with database.transaction() as connection:
    await share_agent_routes(connection, [("default", agent_id)])
    assert await forget_agent_routes(database, limit=10) == 0
  assert await forget_agent_routes(database, limit=10) == 1
  assert await make_route(database, agent_id) != route


@pytest.mark.parametrize(
  ("config", "found"),
  [
    (TaskConfig(cmd="/bin/true"), "ab"),
    (TaskConfig(cmd="/bin/true", labels={"disk": "ssd"}), "a"),
    (TaskConfig(cmd="/bin/true", labels={"disk": "hdd"}), ""),
    (TaskConfig(cmd="/bin/true", broadcast=True), "ab"),
    (TaskConfig(cmd="f", executor=ExecutorKind.PYTHON), ""),
  ],
)
async def test_agents_match_in_the_database_as_they_do_here(
  database: Database, config: TaskConfig, found: str
) -> None:
  sessions = Sessions()
  names = {
    (await join(database, sessions, name=name, labels=labels)).agent_id: name
    for name, labels in (("a", {"disk": "ssd"}), ("b", {"rack": "7"}))
  }
  key = new_id()
  async with database.transaction() as connection:
    wish = (key, "default", selector_of(config))
    agents = (await matching_agents(connection, [wish])).get(key, [])
  assert "".join(sorted(names[AgentId(each)] for each in agents)) == found
