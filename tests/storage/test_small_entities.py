"""Namespaces, routes and servers in a real database."""

import pytest
import trio
from support.world import make_job, make_namespace, query

from hetuflow.errors import Conflict, NotFound, StorageError
from hetuflow.protocol.model import (
  NamespaceFilter,
  NamespaceForCreate,
  NamespaceForUpdate,
  ServerFilter,
  ServerForCreate,
  ServerForUpdate,
  ServerId,
  TaskConfig,
  TaskForCreate,
  new_id,
)
from hetuflow.protocol.states import ExecutorKind
from hetuflow.storage.connect import Database
from hetuflow.storage.jobs import delete_job
from hetuflow.storage.namespaces import (
  create_namespace,
  delete_namespace,
  get_namespace,
  query_namespaces,
  update_namespace,
)
from hetuflow.storage.routes import Route, intern_route, list_routes, selector_of
from hetuflow.storage.rows import from_row
from hetuflow.storage.servers import (
  beat_server,
  create_server,
  delete_server,
  get_server,
  ping,
  query_servers,
  stop_server,
  update_server,
)
from hetuflow.storage.tasks import create_tasks

AGE = query("""
  UPDATE sched_server SET alive_until = now() - interval '1 minute' WHERE id = $id
""")


async def test_a_namespace_is_read_as_it_was_made(database: Database) -> None:
  made = await create_namespace(database, NamespaceForCreate(id="a", weight=3))
  assert await get_namespace(database, "a") == made
  assert (made.weight, made.lead, made.lease) == (3, 5.0, 30.0)
  with pytest.raises(Conflict, match="a namespace 'a' already exists"):
    await create_namespace(database, NamespaceForCreate(id="a"))
  changed = await update_namespace(database, "a", NamespaceForUpdate(lead=900.0))
  assert (changed.weight, changed.lead) == (3, 900.0)
  with pytest.raises(NotFound, match="no namespace 'b'"):
    await update_namespace(database, "b", NamespaceForUpdate(lead=900.0))


async def test_namespaces_come_in_pages_by_name(database: Database) -> None:
  for name in ("c", "a", "b"):
    await make_namespace(database, name)
  first = await query_namespaces(database, NamespaceFilter(), limit=3)
  assert [namespace.id for namespace in first] == ["a", "b", "c"]
  rest = await query_namespaces(database, NamespaceFilter(), limit=3, cursor="c")
  assert [namespace.id for namespace in rest] == ["default"]
  [only] = await query_namespaces(database, NamespaceFilter(id="b"), limit=3)
  assert only.id == "b"


async def test_a_namespace_stays_while_something_lives_in_it(
  database: Database,
) -> None:
  await make_namespace(database, "a")
  job = await make_job(database, namespace_id="a")
  with pytest.raises(Conflict, match="still has 1 jobs"):
    await delete_namespace(database, "a")
  await create_tasks(database, [TaskForCreate(job_id=job.id)])
  await delete_job(database, job.id)
  with pytest.raises(Conflict, match="still has 1 tasks"):
    await delete_namespace(database, "a")
  await make_namespace(database, "b")
  gone = await make_job(database, namespace_id="b")
  await delete_job(database, gone.id)
  await delete_namespace(database, "b")
  with pytest.raises(NotFound):
    await delete_namespace(database, "b")


def test_a_selector_is_what_agents_are_asked_for() -> None:
  labels = {"disk": "ssd"}
  process = TaskConfig(cmd="/bin/true", args=["a"], labels=labels, priority=3)
  assert selector_of(process) == {"executor": "process", "labels": labels}
  python = TaskConfig(cmd="hetuflow.noop", executor=ExecutorKind.PYTHON)
  assert selector_of(python) == {
    "executor": "python",
    "function": "hetuflow.noop",
    "labels": {},
  }


async def test_a_selector_has_one_number_however_many_ask(database: Database) -> None:
  numbers = []
  selector = selector_of(TaskConfig(cmd="x", labels={"a": "1", "b": "2"}))

  async def ask() -> None:
    numbers.append(await intern_route(database, "default", selector))

  async with trio.open_nursery() as nursery:
    for _ in range(5):
      nursery.start_soon(ask)
  turned = {**selector, "labels": {"b": "2", "a": "1"}}
  numbers.append(await intern_route(database, "default", turned))
  assert len(set(numbers)) == 1
  other = await intern_route(database, "default", {"executor": "shell", "labels": {}})
  assert other not in numbers
  with pytest.raises(Conflict):
    await intern_route(database, "nowhere", selector)


async def test_routes_are_listed_by_namespace(database: Database) -> None:
  await make_namespace(database, "a")
  one = await intern_route(database, "default", {"executor": "shell"})
  two = await intern_route(database, "a", {"executor": "shell"})
  assert [route.id for route in await list_routes(database, ["*"])] == [one, two]
  [route] = await list_routes(database, ["a"])
  assert (route.id, route.namespace_id, route.selector) == (
    two,
    "a",
    {"executor": "shell"},
  )


async def test_a_row_nobody_wrote_is_not_the_caller_s_mistake(
  database: Database,
) -> None:
  row = await database.fetchrow(query("SELECT 1::bigint AS id"))
  assert row is not None
  with pytest.raises(StorageError, match="a Route that cannot be read"):
    from_row(Route, row)


async def test_servers_are_alive_while_they_say_so(database: Database) -> None:
  ids = [ServerId(new_id()) for _ in range(2)]
  for server_id in ids:
    server = ServerForCreate(id=server_id, name="s", url="http://x", version="1")
    await create_server(database, server, ttl=4.0)
  with pytest.raises(Conflict, match="already exists"):
    await create_server(database, server, ttl=4.0)
  one, two = ids
  await database.fetch(AGE, id=one)

  async def alive(wanted: bool | None) -> list[ServerId]:
    found = await query_servers(database, ServerFilter(alive=wanted), limit=10)
    return [server.id for server in found]

  assert (await alive(True), await alive(False)) == ([two], [one])
  assert await beat_server(database, one, ttl=4.0) is not None
  assert await alive(None) == [two, one]
  assert (await get_server(database, one)).alive
  with pytest.raises(Conflict, match="is alive; stop it first"):
    await delete_server(database, one)
  await stop_server(database, one)
  assert await alive(False) == [one]
  await delete_server(database, one)
  assert await beat_server(database, one, ttl=4.0) is None
  with pytest.raises(NotFound):
    await delete_server(database, one)
  renamed = await update_server(database, two, ServerForUpdate(name="new"))
  assert renamed.name == "new"


async def test_the_database_tells_its_time_and_version(database: Database) -> None:
  state = await ping(database)
  assert state.version.split(".")[0].isdigit()
  assert state.now.utcoffset() is not None
