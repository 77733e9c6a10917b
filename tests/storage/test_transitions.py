"""Every event on every status, on a real database, against the one table."""

from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID, uuid4

import attrs
import pytest
import trio
from support.world import query

from hetuflow.errors import Conflict
from hetuflow.protocol.messages import (
  AckOutcome,
  AgentRegisterRequest,
  HeldClaim,
  TaskInstanceUpdate,
)
from hetuflow.protocol.model import (
  AgentCapabilities,
  AgentId,
  InstanceId,
  JobForCreate,
  NamespaceId,
  ServerId,
  TaskConfig,
  TaskForCreate,
  TaskId,
  TaskMetrics,
  new_id,
)
from hetuflow.protocol.states import (
  INSTANCE_LIVE,
  INSTANCE_TRANSITIONS,
  TASK_FINAL,
  TASK_TRANSITIONS,
  InstanceEvent,
  TaskEvent,
  TaskInstanceStatus,
  TaskStatus,
)
from hetuflow.storage.broadcasts import abandon_parts, spread_broadcasts
from hetuflow.storage.connect import Database
from hetuflow.storage.instances import get_instance
from hetuflow.storage.jobs import create_job
from hetuflow.storage.limits import (
  adopt_running,
  adopt_waiting,
  expire_overdue,
  judge_tasks,
  miss_late,
)
from hetuflow.storage.registration import register_agent
from hetuflow.storage.sql import Query
from hetuflow.storage.tasks import create_tasks, get_task
from hetuflow.storage.transitions import (
  ClaimOffer,
  claim_tasks,
  fail_claims,
  pause_task,
  record_updates,
  request_cancel,
  resume_task,
  revive_task,
)

DEFAULT = NamespaceId("default")
BOTTOM = datetime(1970, 1, 1, tzinfo=UTC)

FORCE_TASK = Query(
  name="force_task",
  text="""UPDATE sched_task SET status = $2::task_status, claim_token = $3::uuid,
    attempts = $4, completed_at = $5,
    lost_attempts = ($2 = 'waiting_retry' AND $3 IS NOT NULL)::integer
    WHERE id = $1""",
  parameters=("id", "status", "claim_token", "attempts", "completed_at"),
)
FORCE_INSTANCE = Query(
  name="force_instance",
  text="""INSERT INTO sched_task_instance (id, namespace_id, task_id, job_id,
    job_version, agent_id, attempt, claim_token, scheduled_at, due_at, status,
    completed_at, lost_at)
    SELECT $2, namespace_id, id, job_id, job_version, $3, 1, $4, scheduled_at, due_at,
      $5::task_instance_status, $6, CASE WHEN $5 = 'lost' THEN now() END
    FROM sched_task WHERE id = $1""",
  parameters=("task_id", "id", "agent_id", "claim_token", "status", "completed_at"),
)
SET_TASK = query("""
  UPDATE sched_task SET lane = $lane,
    attempts = CASE WHEN $late THEN 0 ELSE attempts END,
    start_by = CASE WHEN $late THEN now() - interval '1 second' END,
    end_by = CASE WHEN $late THEN now() - interval '1 second' END
  WHERE id = $id
""")
SET_JOB = query("""
  UPDATE sched_job AS j SET overlap = $overlap FROM sched_task AS t
  WHERE j.id = t.job_id AND t.id = $id
""")
TAKE_PLACE = query("""
  INSERT INTO sched_task (
    id, namespace_id, job_id, job_version, status, route_id, planned_at, scheduled_at,
    due_at, rank_at, lane
  )
  SELECT gen_random_uuid(), namespace_id, job_id, job_version, 'pending', route_id,
    planned_at, scheduled_at, due_at, rank_at, lane
  FROM sched_task WHERE id = $id
""")
LIMIT_NAMESPACE = query("""
  UPDATE sched_namespace SET max_running = $max_running::integer WHERE id = 'default'
""")
ASK_ALL = query("""
  WITH made AS (
    INSERT INTO sched_route (namespace_id, selector)
    VALUES ('default', jsonb_build_object(
      'executor', 'process', 'labels', '{}'::jsonb, 'broadcast', true, 'of', $id::uuid))
    RETURNING id
  )
  UPDATE sched_task SET route_id = made.id FROM made WHERE sched_task.id = $id
""")
LOSE_AGENT = query("""
  WITH made AS (
    INSERT INTO sched_broadcast (task_id, namespace_id)
    VALUES (gen_random_uuid(), 'default')
    RETURNING task_id
  )
  UPDATE sched_task SET parent_id = made.task_id, due_at = now() - interval '1 hour'
  FROM made WHERE id = $id
""")
WAITING = Query(
  name="waiting",
  text="""SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'""",
  parameters=(),
)
LIVE = datetime(9999, 12, 31, 23, 59, 59, 999999)  # noqa: DTZ001 - asyncpg's infinity


@attrs.frozen(kw_only=True)
class Scene:
  """A task, its attempt if it has one, and an agent that may claim."""

  database: Database
  task_id: TaskId
  instance_id: InstanceId
  claim_token: UUID
  agent_id: AgentId
  session_id: UUID
  route_id: int

  async def claim(self) -> int:
    """Claim what there is; return how much that was."""
    rows = await claim_tasks(
      self.database,
      ClaimOffer(
        namespace_id=DEFAULT,
        agents=[self.agent_id],
        sessions=[self.session_id],
        routes=[self.route_id],
        floors=[BOTTOM],
        run_agents=[self.agent_id] * 50,
        hold_agents=[],
      ),
    )
    return len(rows)

  async def report(
    self, status: TaskInstanceStatus, *, token: UUID | None = None, **more: object
  ) -> AckOutcome | None:
    """Report something of the attempt; return what was not simply accepted."""
    update = TaskInstanceUpdate(
      instance_id=self.instance_id,
      namespace_id=DEFAULT,
      claim_token=token or self.claim_token,
      status=status,
      metrics=TaskMetrics(),
      **more,  # type: ignore[arg-type]
    )
    outcomes = await record_updates(self.database, DEFAULT, [update])
    return outcomes.get(self.instance_id)

  async def set(
    self, *, lane: str | None = None, overlap: str = "allow", late: bool = False
  ) -> None:
    """Give the task a lane, its job a policy, or let it be late and never started."""
    await self.database.fetch(SET_TASK, id=self.task_id, lane=lane, late=late)
    await self.database.fetch(SET_JOB, id=self.task_id, overlap=overlap)

  async def task_status(self) -> TaskStatus:
    """Read the task's status."""
    return (await get_task(self.database, self.task_id)).status


async def make_scene(
  database: Database,
  *,
  status: TaskStatus = TaskStatus.DISPATCHED,
  instance_status: TaskInstanceStatus = TaskInstanceStatus.DISPATCHED,
  max_retries: int = 0,
  **config: object,
) -> Scene:
  """Bring a task and an attempt into the statuses asked for.

  A lost attempt is one that is still waited for.
  """
  settings = TaskConfig(cmd="/bin/true", max_retries=max_retries, **config)  # type: ignore[arg-type]
  job = await create_job(
    database, JobForCreate(name=f"job-{new_id()}", config=settings)
  )
  [task_id] = await create_tasks(database, [TaskForCreate(job_id=job.id)])
  agent_id, session_id = AgentId(new_id()), new_id()
  await register_agent(
    database,
    AgentRegisterRequest(
      protocol_version=1,
      agent_id=agent_id,
      epoch=1,
      name="a",
      namespace_ids=[DEFAULT],
      capabilities=AgentCapabilities(executors=["process"]),
    ),
    session_id=session_id,
    server_id=ServerId(new_id()),
    lease=30.0,
  )
  token = uuid4()
  claimed = status in (TaskStatus.DISPATCHED, TaskStatus.RUNNING)
  lost = instance_status is TaskInstanceStatus.LOST
  now = datetime.now(UTC)
  await database.fetch(
    FORCE_TASK,
    id=task_id,
    status=status,
    claim_token=token if claimed or lost else None,
    attempts=1,
    completed_at=now if status in TASK_FINAL else LIVE,
  )
  instance_id = InstanceId(new_id())
  await database.fetch(
    FORCE_INSTANCE,
    task_id=task_id,
    id=instance_id,
    agent_id=agent_id,
    claim_token=token,
    status=instance_status,
    completed_at=LIVE if lost or instance_status in INSTANCE_LIVE else now,
  )
  row = await database.fetchval(
    Query(
      name="route",
      text="SELECT route_id FROM sched_task WHERE id = $1",
      parameters=("id",),
    ),
    id=task_id,
  )
  return Scene(
    database=database,
    task_id=task_id,
    instance_id=instance_id,
    claim_token=token,
    agent_id=agent_id,
    session_id=session_id,
    route_id=row,
  )


async def block(scene: Scene) -> None:
  """Let a task wait for a place: one that comes back with a limit, or gets one."""
  match await scene.task_status():
    case TaskStatus.PAUSED:
      await scene.set(lane="job:x")
      await resume_task(scene.database, scene.task_id)
    case status if status in TASK_FINAL:
      await scene.database.fetch(LIMIT_NAMESPACE, max_running=1)
      await revive_task(scene.database, scene.task_id)
      await scene.database.fetch(LIMIT_NAMESPACE, max_running=None)
    case _:
      await scene.database.fetch(LIMIT_NAMESPACE, max_running=1)
      await adopt_waiting(scene.database, DEFAULT)
      await adopt_running(scene.database, DEFAULT)
      await scene.database.fetch(LIMIT_NAMESPACE, max_running=None)


async def skip(scene: Scene) -> None:
  """Let the place of a task that does not wait be taken by another one."""
  await scene.set(lane=f"job:{scene.task_id}", overlap="skip")
  await scene.database.fetch(TAKE_PLACE, id=scene.task_id)
  await judge_tasks(scene.database, DEFAULT)


async def happen(scene: Scene, event: TaskEvent) -> None:
  """Let an event happen through the function that stands for it."""
  match event:
    case TaskEvent.BLOCK:
      await block(scene)
    case TaskEvent.UNBLOCK:
      await scene.set(lane="job:x")
      await judge_tasks(scene.database, DEFAULT)
    case TaskEvent.SKIP:
      await skip(scene)
    case TaskEvent.EXPIRE:
      await scene.set(late=True)
      await expire_overdue(scene.database, DEFAULT)
      await scene.report(TaskInstanceStatus.CANCELLED)
    case TaskEvent.CLAIM:
      await scene.claim()
    case TaskEvent.FIND:
      await scene.report(TaskInstanceStatus.DISPATCHED)
    case TaskEvent.START:
      await scene.report(TaskInstanceStatus.RUNNING)
    case TaskEvent.SUCCEED:
      await scene.report(TaskInstanceStatus.SUCCEEDED)
    case TaskEvent.FAIL | TaskEvent.RETRY:
      await scene.report(TaskInstanceStatus.FAILED, exit_code=1)
    case TaskEvent.RELEASE:
      await scene.report(TaskInstanceStatus.RELEASED)
    case TaskEvent.MISS:
      await scene.set(late=True)
      await miss_late(scene.database, DEFAULT)
      await scene.report(TaskInstanceStatus.CANCELLED, reason="start_deadline")
    case TaskEvent.CANCEL:
      await request_cancel(scene.database, scene.task_id)
      await scene.report(TaskInstanceStatus.CANCELLED)
    case TaskEvent.PAUSE:
      await scene.set(lane="job:x")
      await pause_task(scene.database, scene.task_id)
    case TaskEvent.RESUME:
      await scene.set()
      await resume_task(scene.database, scene.task_id)
    case TaskEvent.REVIVE:
      await revive_task(scene.database, scene.task_id)
    case TaskEvent.SPREAD:
      await scene.database.fetch(ASK_ALL, id=scene.task_id)
      await spread_broadcasts(scene.database, [DEFAULT])
    case TaskEvent.ABANDON:
      await scene.database.fetch(LOSE_AGENT, id=scene.task_id)
      await abandon_parts(scene.database, [DEFAULT], grace=60.0)


REPORTABLE = {
  TaskEvent.FIND,
  TaskEvent.START,
  TaskEvent.SUCCEED,
  TaskEvent.FAIL,
  TaskEvent.RETRY,
  TaskEvent.RELEASE,
  TaskEvent.MISS,
}


@pytest.mark.parametrize(
  "status", [TaskInstanceStatus.RELEASED, TaskInstanceStatus.FAILED]
)
async def test_a_task_that_was_to_be_cancelled_says_so_however_its_attempt_ended(
  database: Database, status: TaskInstanceStatus
) -> None:
  scene = await make_scene(database, status=TaskStatus.DISPATCHED)
  await request_cancel(database, scene.task_id)
  await scene.report(status, reason="the agent does not have it")
  task = await get_task(database, scene.task_id)
  assert (task.status, task.reason) == (TaskStatus.CANCELLED, "cancelled by request")


@pytest.mark.parametrize("status", TaskStatus)
async def test_a_task_changes_as_the_table_says_and_never_otherwise(
  database: Database, status: TaskStatus
) -> None:
  for event in TaskEvent:
    await check_task_event(database, status, event)


async def check_task_event(
  database: Database, status: TaskStatus, event: TaskEvent
) -> None:
  """Let one event happen in one status, on a task of its own."""
  scene = await make_scene(
    database,
    status=status,
    instance_status=instance_status_for(status, event),
    max_retries=1 if event is TaskEvent.RETRY else 0,
  )
  if event in (TaskEvent.CLAIM, TaskEvent.BLOCK):
    # Nothing stands in the way of the change but the task's own status.
    await scene.database.fetch(
      Query(
        name="forget",
        text="DELETE FROM sched_task_instance WHERE task_id = $1",
        parameters=("id",),
      ),
      id=scene.task_id,
    )
  if status is TaskStatus.RUNNING and event is TaskEvent.RELEASE:
    await scene.report(TaskInstanceStatus.RUNNING)
  expected = TASK_TRANSITIONS.get((status, event))
  refused_by_call = event in (
    TaskEvent.PAUSE,
    TaskEvent.RESUME,
    TaskEvent.REVIVE,
  ) or (event, status) == (TaskEvent.BLOCK, TaskStatus.MERGED)
  if event is TaskEvent.CANCEL:
    refused_by_call = status is not TaskStatus.CANCELLED
  if expected is None and refused_by_call:
    with pytest.raises(Conflict):
      await happen(scene, event)
  else:
    await happen(scene, event)
  assert await scene.task_status() == (expected or status), event
  # No other event is to find it.
  await database.fetch(query("DELETE FROM sched_task"))


def instance_status_for(status: TaskStatus, event: TaskEvent) -> TaskInstanceStatus:
  """Choose the attempt that a task in this status has when the event happens."""
  if status in TASK_FINAL and event not in REPORTABLE:
    return TaskInstanceStatus.SUCCEEDED
  if status is TaskStatus.WAITING_RETRY:
    return TaskInstanceStatus.LOST
  if status is TaskStatus.RUNNING and event is not TaskEvent.RELEASE:
    return TaskInstanceStatus.RUNNING
  return TaskInstanceStatus.DISPATCHED


EVENT_STATUS = {
  InstanceEvent.FIND: TaskInstanceStatus.DISPATCHED,
  InstanceEvent.START: TaskInstanceStatus.RUNNING,
  InstanceEvent.SUCCEED: TaskInstanceStatus.SUCCEEDED,
  InstanceEvent.FAIL: TaskInstanceStatus.FAILED,
  InstanceEvent.TIME_OUT: TaskInstanceStatus.TIMEOUT,
  InstanceEvent.CANCEL: TaskInstanceStatus.CANCELLED,
  InstanceEvent.LOSE: TaskInstanceStatus.LOST,
  InstanceEvent.RELEASE: TaskInstanceStatus.RELEASED,
}


@pytest.mark.parametrize("status", TaskInstanceStatus)
async def test_an_instance_changes_as_the_table_says_and_never_otherwise(
  database: Database, status: TaskInstanceStatus
) -> None:
  for event in InstanceEvent:
    await check_instance_event(database, status, event)


async def check_instance_event(
  database: Database, status: TaskInstanceStatus, event: InstanceEvent
) -> None:
  """Let one event happen in one status, on an instance of its own."""
  lost = status is TaskInstanceStatus.LOST
  live = TaskStatus(status) if status in INSTANCE_LIVE else TaskStatus.FAILED
  scene = await make_scene(
    database,
    status=TaskStatus.WAITING_RETRY if lost else live,
    instance_status=status,
  )
  outcome = await scene.report(EVENT_STATUS[event])
  expected = INSTANCE_TRANSITIONS.get((status, event))
  instance = await get_instance(database, scene.instance_id)
  assert instance.status == (expected or status)
  if expected is None and not (lost and event is InstanceEvent.LOSE):
    repeated = EVENT_STATUS[event] in (status, TaskInstanceStatus.RUNNING)
    assert outcome == (AckOutcome.DUPLICATE if repeated else AckOutcome.STALE)
  else:
    assert outcome is None


async def test_a_report_with_another_claim_token_changes_nothing(
  database: Database,
) -> None:
  scene = await make_scene(database)
  outcome = await scene.report(TaskInstanceStatus.SUCCEEDED, token=uuid4())
  assert outcome is AckOutcome.STALE
  assert await scene.task_status() is TaskStatus.DISPATCHED


async def test_of_two_finishes_of_one_attempt_the_first_one_stands(
  database: Database,
) -> None:
  scene = await make_scene(database)
  assert await scene.report(TaskInstanceStatus.SUCCEEDED) is None
  assert await scene.report(TaskInstanceStatus.SUCCEEDED) is AckOutcome.DUPLICATE
  assert await scene.report(TaskInstanceStatus.FAILED) is AckOutcome.STALE
  assert await scene.task_status() is TaskStatus.SUCCEEDED


async def test_retries_wait_longer_each_time_up_to_the_maximum(
  database: Database,
) -> None:
  scene = await make_scene(
    database,
    max_retries=9,
    retry_interval=10.0,
    retry_backoff=3.0,
    retry_max_interval=80.0,
  )
  waits = []
  for attempt in range(1, 5):
    await scene.report(TaskInstanceStatus.FAILED, exit_code=1)
    task = await get_task(database, scene.task_id)
    assert task.status is TaskStatus.WAITING_RETRY
    waits.append(round((task.due_at - task.updated_at).total_seconds()))
    token = uuid4()
    await database.fetch(
      FORCE_TASK,
      id=scene.task_id,
      status=TaskStatus.DISPATCHED,
      claim_token=token,
      attempts=attempt + 1,
      completed_at=LIVE,
    )
    scene = attrs.evolve(scene, claim_token=token, instance_id=InstanceId(new_id()))
    await database.fetch(
      FORCE_INSTANCE,
      task_id=scene.task_id,
      id=scene.instance_id,
      agent_id=scene.agent_id,
      claim_token=token,
      status=TaskInstanceStatus.DISPATCHED,
      completed_at=LIVE,
    )
  assert waits == [10, 30, 80, 80]


@pytest.mark.parametrize(
  ("code", "expected"),
  [(75, TaskStatus.WAITING_RETRY), (1, TaskStatus.FAILED)],
)
async def test_only_the_named_exit_codes_are_retried(
  database: Database, code: int, expected: TaskStatus
) -> None:
  scene = await make_scene(database, max_retries=3, retry_on_exit_codes=[75])
  await scene.report(TaskInstanceStatus.FAILED, exit_code=code)
  assert await scene.task_status() is expected


@pytest.mark.parametrize(
  ("on_lost", "expected"),
  [("retry", TaskStatus.WAITING_RETRY), ("fail", TaskStatus.FAILED)],
)
async def test_a_lost_attempt_is_repeated_unless_the_job_forbids_it(
  database: Database, on_lost: str, expected: TaskStatus
) -> None:
  scene = await make_scene(database, on_lost=on_lost)
  await scene.report(TaskInstanceStatus.LOST)
  assert await scene.task_status() is expected


async def test_a_released_claim_does_not_count_as_an_attempt(
  database: Database,
) -> None:
  scene = await make_scene(database)
  await scene.report(TaskInstanceStatus.RELEASED)
  task = await get_task(database, scene.task_id)
  assert (task.status, task.attempts) == (TaskStatus.PENDING, 0)
  assert await scene.claim() == 1


async def test_an_agent_whose_session_was_replaced_claims_nothing(
  database: Database,
) -> None:
  scene = await make_scene(database)
  await scene.report(TaskInstanceStatus.RELEASED)
  old = attrs.evolve(scene, session_id=new_id())
  assert await old.claim() == 0
  assert await scene.claim() == 1


async def test_registering_gives_back_what_the_agent_does_not_hold(
  database: Database,
) -> None:
  scene = await make_scene(database)
  stranger = InstanceId(new_id())
  request = AgentRegisterRequest(
    protocol_version=1,
    agent_id=scene.agent_id,
    epoch=2,
    name="a",
    namespace_ids=[DEFAULT],
    held=[HeldClaim(instance_id=stranger, namespace_id=DEFAULT, claim_token=uuid4())],
  )
  registration = await register_agent(
    database, request, session_id=new_id(), server_id=ServerId(new_id()), lease=30.0
  )
  assert registration.released == 1
  assert registration.superseded == [stranger]
  instance = await get_instance(database, scene.instance_id)
  assert instance.status is TaskInstanceStatus.RELEASED
  assert await scene.task_status() is TaskStatus.PENDING


async def test_of_claims_that_fail_together_stale_ones_are_left_alone(
  database: Database,
) -> None:
  hopeless = [await make_scene(database, max_retries=3) for _ in range(2)]
  stale = await make_scene(database)
  begun = await make_scene(
    database,
    status=TaskStatus.RUNNING,
    instance_status=TaskInstanceStatus.RUNNING,
  )
  claims = [
    (scene.instance_id, scene.claim_token, f"reason {number} {'x' * 1000}")
    for number, scene in enumerate([*hopeless, begun])
  ]
  for _ in range(2):
    await fail_claims(
      database, DEFAULT, [*claims, (stale.instance_id, uuid4(), "not mine")]
    )
  for number, scene in enumerate(hopeless):
    task = await get_task(database, scene.task_id)
    instance = await get_instance(database, scene.instance_id)
    assert (task.status, instance.status) == (
      TaskStatus.FAILED,
      TaskInstanceStatus.FAILED,
    )
    assert task.reason == instance.reason == claims[number][2][:500]
  assert await stale.task_status() is TaskStatus.DISPATCHED
  assert await begun.task_status() is TaskStatus.RUNNING


async def test_registering_meets_a_report_of_the_session_before(
  database: Database,
) -> None:
  scene = await make_scene(database)
  request = AgentRegisterRequest(
    protocol_version=1,
    agent_id=scene.agent_id,
    epoch=2,
    name="a",
    namespace_ids=[DEFAULT],
  )
  register = partial(
    register_agent,
    database,
    request,
    session_id=new_id(),
    server_id=ServerId(new_id()),
    lease=30.0,
  )
  end = TaskInstanceUpdate(
    instance_id=scene.instance_id,
    namespace_id=DEFAULT,
    claim_token=scene.claim_token,
    status=TaskInstanceStatus.SUCCEEDED,
  )
  with trio.fail_after(20):
    async with trio.open_nursery() as nursery, database.transaction() as before:
      await record_updates(before, DEFAULT, [end])
      nursery.start_soon(register)
      while await database.fetchval(WAITING) == 0:
        await trio.lowlevel.checkpoint()
  assert await scene.task_status() is TaskStatus.SUCCEEDED


async def test_registering_keeps_what_the_agent_holds(database: Database) -> None:
  scene = await make_scene(database)
  request = AgentRegisterRequest(
    protocol_version=1,
    agent_id=scene.agent_id,
    epoch=1,
    name="a",
    namespace_ids=[DEFAULT],
    held=[
      HeldClaim(
        instance_id=scene.instance_id,
        namespace_id=DEFAULT,
        claim_token=scene.claim_token,
      )
    ],
  )
  registration = await register_agent(
    database, request, session_id=new_id(), server_id=ServerId(new_id()), lease=30.0
  )
  assert (registration.released, registration.superseded) == (0, [])
  assert await scene.task_status() is TaskStatus.DISPATCHED


async def test_an_end_reported_from_a_wrong_clock_stays_within_what_can_be(
  database: Database,
) -> None:
  scene = await make_scene(database)
  await scene.report(
    TaskInstanceStatus.SUCCEEDED,
    started_at=datetime.now(UTC),
    completed_at=datetime.now(UTC) + timedelta(days=4_000),
  )
  task = await get_task(database, scene.task_id)
  assert task.completed_at is not None
  assert task.completed_at <= datetime.now(UTC) + timedelta(seconds=5)
