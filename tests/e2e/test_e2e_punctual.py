"""Every planned time once and on time, and many tasks each exactly once."""

from datetime import timedelta
from itertools import pairwise
from statistics import median

import trio
from support.programs import wait_until
from support.work import all_of, make_job

from hetuflow.client import AsyncClient
from hetuflow.client.calls import schedules, tasks
from hetuflow.protocol.model import Task, TaskInstance

LIMIT_S = 120.0
SECONDS = 12
MANY = 5_000
EVERY_SECOND = [{"kind": "cron", "cron_expression": "* * * * * *"}]
LATE_MS = 1_000.0
"""Far more than is promised: other tests may keep this machine busy."""


async def test_a_job_of_every_second_runs_once_in_each_second(
  client: AsyncClient,
) -> None:
  with trio.fail_after(LIMIT_S):
    job = await make_job(client, "/bin/true", schedules=EVERY_SECOND)

    async def ended() -> list[Task]:
      """Return the tasks that have ended, once there are enough."""
      found = await all_of(client, tasks.list_tasks(job_id=job.id, status="succeeded"))
      return found if len(found) > SECONDS else []

    await wait_until(ended, SECONDS + 20, every=0.25)
    [schedule] = await all_of(client, schedules.list_schedules(job_id=job.id))
    await client.send(schedules.disable_schedule(schedule.id))

    async def quiet() -> bool:
      """Tell whether nothing of the job is under way."""
      left = await all_of(client, tasks.list_tasks(job_id=job.id))
      return all(task.completed_at is not None for task in left)

    await wait_until(quiet, 20, every=0.25)
    done = await all_of(client, tasks.list_tasks(job_id=job.id))
    attempts = await all_of(client, tasks.list_instances(job_id=job.id))
  ran = [task for task in done if task.status == "succeeded"]
  assert {task.status for task in done} <= {"succeeded", "cancelled"}
  times = sorted(task.planned_at for task in ran)
  assert times[0].microsecond == 0
  steps = {later - earlier for earlier, later in pairwise(times)}
  assert steps == {timedelta(seconds=1)}, "a second is missing or doubled"
  begun = [each for each in attempts if each.started_at is not None]
  assert sorted(each.task_id for each in begun) == sorted(task.id for task in ran)
  check_start_errors(begun)


def check_start_errors(attempts: list[TaskInstance]) -> None:
  """Demand that none is early, and that the figure is what the times say."""
  errors = []
  for each in attempts:
    assert each.started_at is not None
    assert each.started_at >= each.scheduled_at, "started too early"
    assert each.start_error_ms is not None
    measured = (each.started_at - each.scheduled_at).total_seconds() * 1000
    assert abs(each.start_error_ms - measured) < 1
    errors.append(each.start_error_ms)
  assert max(errors) < LATE_MS, errors
  assert median(errors) < LATE_MS / 4, errors


async def test_five_thousand_tasks_run_exactly_once_each(client: AsyncClient) -> None:
  with trio.fail_after(LIMIT_S):
    job = await make_job(client, "hetuflow.noop", executor="python")
    wishes = [{"job_id": str(job.id)} for _ in range(MANY)]
    made = await client.send(tasks.create_tasks(wishes))
    assert len(set(made.ids)) == MANY

    async def all_ended() -> bool:
      """Tell whether none of the tasks is under way."""
      for status in ("pending", "dispatched", "running", "waiting_retry"):
        call = tasks.list_tasks(job_id=job.id, status=status, limit=1)
        if (await client.send(call)).items:
          return False
      return True

    await wait_until(all_ended, 60, every=0.25)
    done = await all_of(client, tasks.list_tasks(job_id=job.id, limit=1_000))
    attempts = await all_of(client, tasks.list_instances(job_id=job.id, limit=1_000))
  assert {task.id for task in done} == set(made.ids)
  assert {task.status for task in done} == {"succeeded"}
  assert len(attempts) == MANY
  assert {each.task_id for each in attempts} == set(made.ids)
  assert {(each.status, each.attempt) for each in attempts} == {("succeeded", 1)}


async def test_tasks_for_later_run_in_the_order_of_their_times(
  client: AsyncClient,
) -> None:
  with trio.fail_after(LIMIT_S):
    job = await make_job(client, "hetuflow.noop", executor="python")
    first = await client.send(tasks.create_task({"job_id": str(job.id)}))
    times = [first.scheduled_at + timedelta(milliseconds=300 * n) for n in (9, 3, 6)]
    wishes = [{"job_id": str(job.id), "scheduled_at": time} for time in times]
    await client.send(tasks.create_tasks(wishes))

    async def all_ran() -> list[TaskInstance]:
      """Return the attempts once all have succeeded."""
      call = tasks.list_instances(job_id=job.id, status="succeeded")
      found = await all_of(client, call)
      return found if len(found) == 1 + len(times) else []

    attempts: list[TaskInstance] = await wait_until(all_ran, 30, every=0.1)
  by_start = sorted(attempts, key=lambda each: each.started_at or each.scheduled_at)
  assert [each.scheduled_at for each in by_start[1:]] == sorted(times)
  check_start_errors(attempts)
