"""Attempts in a real database."""

import pytest
from support.members import DEFAULT, claim_one, join, make_tasks
from support.world import make_job

from hetuflow.errors import Conflict, NotFound
from hetuflow.protocol.messages import TaskInstanceUpdate
from hetuflow.protocol.model import (
  InstanceId,
  TaskConfig,
  TaskInstanceFilter,
  TaskInstanceForCreate,
  TaskInstanceForUpdate,
  new_id,
)
from hetuflow.protocol.states import TaskInstanceStatus, TaskStatus
from hetuflow.server.sessions import Sessions
from hetuflow.storage.connect import Database
from hetuflow.storage.instances import (
  create_instance,
  delete_instance,
  get_instance,
  query_instances,
  request_kill,
  update_instance,
)
from hetuflow.storage.tasks import get_task
from hetuflow.storage.transitions import record_updates


async def test_a_named_task_may_be_claimed_for_a_named_agent(
  database: Database,
) -> None:
  [task_id] = await make_tasks(database, await make_job(database))
  agent = await join(database, Sessions())
  wish = TaskInstanceForCreate(task_id=task_id, agent_id=agent.agent_id)
  instance = await create_instance(database, wish)
  assert (instance.status, instance.attempt) == (TaskInstanceStatus.DISPATCHED, 1)
  assert (await get_task(database, task_id)).status is TaskStatus.DISPATCHED
  with pytest.raises(Conflict, match="dispatched"):
    await create_instance(database, wish)
  with pytest.raises(NotFound):
    await create_instance(
      database,
      TaskInstanceForCreate(task_id=new_id(), agent_id=agent.agent_id),  # type: ignore[arg-type]  # of nothing
    )


async def test_attempts_are_listed_killed_noted_and_forgotten(
  database: Database,
) -> None:
  job = await make_job(database, config=TaskConfig(cmd="/bin/true", max_retries=0))
  await make_tasks(database, job, 2)
  rows = [await claim_one(database, job) for _ in range(2)]
  ids = [InstanceId(row["instance_id"]) for row in rows]
  wanted = TaskInstanceFilter(job_id=job.id, status=TaskInstanceStatus.DISPATCHED)
  first = await query_instances(database, wanted, limit=1)
  rest = await query_instances(database, wanted, limit=9, cursor=first[0].id)
  assert [each.id for each in [*first, *rest]] == sorted(ids, reverse=True)
  by_agent = TaskInstanceFilter(agent_id=rows[0]["agent_id"])
  assert [each.id for each in await query_instances(database, by_agent, limit=9)] == [
    ids[0]
  ]
  await request_kill(database, ids[0])
  task = await get_task(database, rows[0]["task_id"])
  assert task.cancel_requested_at is not None
  with pytest.raises(Conflict, match="dispatched"):
    await delete_instance(database, ids[0])
  noted = await update_instance(
    database, ids[0], TaskInstanceForUpdate(reason="looked at")
  )
  assert noted.reason == "looked at"
  same = await update_instance(database, ids[0], TaskInstanceForUpdate())
  assert same.reason == "looked at"
  update = TaskInstanceUpdate(
    instance_id=ids[0],
    namespace_id=DEFAULT,
    claim_token=rows[0]["claim_token"],
    status=TaskInstanceStatus.CANCELLED,
  )
  assert await record_updates(database, DEFAULT, [update]) == {}
  with pytest.raises(Conflict, match="already ended"):
    await request_kill(database, ids[0])
  await delete_instance(database, ids[0])
  for call in (get_instance, request_kill, delete_instance):
    with pytest.raises(NotFound):
      await call(database, ids[0])
