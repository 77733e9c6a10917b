"""From dispatch to result: tasks run once, at their time, or are given back."""

import sys

import attrs
import trio
from agent_stage import make_config, make_job, make_task, running_agent

from hetuflow.protocol.messages import AgentCommandKind, MessageKind
from hetuflow.protocol.states import TaskInstanceStatus as S


def acks(gateway, message_id):
  """Count the acks of one message."""
  return sum(
    each.payload.message_id == message_id for each in gateway.peer.of(MessageKind.ACK)
  )


async def test_a_process_runs_and_its_output_and_result_are_reported(gateway, tmp_path):
  task, job = make_task(), make_job("/bin/echo", args=["hello"])
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)) as agent:
      await gateway.granted()
      message_id = await gateway.dispatch(task, job=job)
      result = await gateway.result(task.instance_id)
      assert result.status is S.SUCCEEDED
      assert result.exit_code == 0
      assert result.output == "hello\n"
      assert result.claim_token == task.claim_token
      assert result.started_at >= task.due_at
      assert result.completed_at >= result.started_at
      assert result.metrics.output_bytes == 6
      assert gateway.output(task.instance_id) == b"hello\n"
      assert acks(gateway, message_id) == 1
      await gateway.until(lambda: not len(agent.parts.instances))


async def test_two_thousand_inline_tasks_run_in_batches(gateway, tmp_path):
  tasks = [make_task() for _ in range(2000)]
  with trio.fail_after(60):
    async with running_agent(make_config(tmp_path, gateway, max_concurrent=4000)):
      await gateway.granted()
      for start in range(0, 2000, 500):
        await gateway.dispatch(*tasks[start : start + 500], job=make_job())
      await gateway.until(lambda: len(gateway.updates()) >= 2000)
  updates = gateway.updates()
  assert {each.instance_id for each in updates} == {each.instance_id for each in tasks}
  assert all(each.status is S.SUCCEEDED for each in updates)
  messages = gateway.peers[0].of(MessageKind.TASK_INSTANCE_UPDATE)
  assert len(messages) <= 20


async def test_planned_tasks_fire_at_their_time_and_never_early(gateway, tmp_path):
  tasks = [make_task(due_in=0.3 + 0.01 * number) for number in range(50)]
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      await gateway.granted()
      await gateway.dispatch(*tasks, job=make_job())
      results = [await gateway.result(task.instance_id) for task in tasks]
  late = [
    (r.started_at - t.due_at).total_seconds()
    for r, t in zip(results, tasks, strict=True)
  ]
  assert min(late) >= 0
  assert sorted(late)[25] < 0.5  # what is polled once a second comes later


async def test_a_repeated_dispatch_is_acknowledged_and_not_run_again(gateway, tmp_path):
  task, job = make_task(), make_job("/bin/echo", args=["once"])
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)) as agent:
      await gateway.granted()
      message_id = await gateway.dispatch(task, job=job)
      await gateway.dispatch(task, job=job, message_id=message_id)
      await gateway.result(task.instance_id)
      await gateway.until(lambda: not len(agent.parts.instances))
      await gateway.dispatch(task, job=job, message_id=message_id)
      await gateway.until(lambda: acks(gateway, message_id) == 3)
      await gateway.dispatch(other := make_task(), job=job)
      await gateway.result(other.instance_id)
  assert [each.status for each in gateway.updates(task.instance_id)].count(
    S.SUCCEEDED
  ) == 1


async def test_a_planned_task_that_is_cancelled_never_starts(gateway, tmp_path):
  task, job = make_task(due_in=60), make_job("/bin/echo", args=["never"])
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)) as agent:
      await gateway.granted()
      message_id = await gateway.dispatch(task, job=job)
      await gateway.until(lambda: acks(gateway, message_id))
      await gateway.command(AgentCommandKind.CANCEL, task.instance_id)
      result = await gateway.result(task.instance_id)
      assert result.status is S.CANCELLED
      assert result.started_at is None
      await gateway.dispatch(later := make_task(), job=job)
      await gateway.result(later.instance_id)
      assert len(gateway.updates(task.instance_id)) == 1
      assert len(agent.parts.wheel) == 0


async def test_a_running_task_is_asked_to_end_when_cancelled(gateway, tmp_path):
  script = "trap 'echo cleaned; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
  task, job = make_task(), make_job(script, executor="shell")
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      await gateway.granted()
      await gateway.dispatch(task, job=job)
      await gateway.until(lambda: gateway.output(task.instance_id) == b"ready\n")
      await gateway.command(AgentCommandKind.CANCEL, task.instance_id)
      result = await gateway.result(task.instance_id)
  assert (result.status, result.reason, result.exit_code) == (S.CANCELLED, "test", 9)
  assert result.output.endswith("cleaned\n")


async def test_a_killed_task_gets_no_time_to_clean_up(gateway, tmp_path):
  script = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
  task, job = make_task(), make_job(script, executor="shell", kill_grace=60.0)
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      await gateway.granted()
      await gateway.dispatch(task, job=job)
      await gateway.until(lambda: gateway.output(task.instance_id) == b"ready\n")
      await gateway.command(AgentCommandKind.CANCEL, task.instance_id)
      await gateway.command(AgentCommandKind.KILL, task.instance_id)
      result = await gateway.result(task.instance_id)
  assert (result.status, result.exit_code) == (S.CANCELLED, 128 + 9)


async def test_a_task_cancelled_twice_is_asked_to_end_once(gateway, tmp_path):
  script = (
    "import signal\n"
    "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\n"
    "print('ready', flush=True)\n"
    "count = 0\n"
    "while signal.sigtimedwait({signal.SIGTERM}, 1 if count else 60):\n"
    "  count += 1\n"
    "  print(count, flush=True)"
  )
  task, job = make_task(), make_job(sys.executable, args=["-S", "-c", script])
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      await gateway.granted()
      await gateway.dispatch(task, job=job)
      await gateway.until(lambda: gateway.output(task.instance_id) == b"ready\n")
      await gateway.command(AgentCommandKind.CANCEL, task.instance_id)
      await gateway.until(lambda: b"1" in gateway.output(task.instance_id))
      await gateway.command(AgentCommandKind.CANCEL, task.instance_id)
      result = await gateway.result(task.instance_id)
  assert (result.status, result.output) == (S.CANCELLED, "ready\n1\n")


async def test_what_has_ended_is_not_cancelled_while_its_leftovers_are_ended(
  gateway, tmp_path
):
  # A process can be signalled until it is reaped.
  script = (
    "(trap '' TERM; while kill -0 $$; do sleep 0.05; done; echo alone; "
    "exec sleep 1000) 2>/dev/null & exit 7"
  )
  task, job = make_task(), make_job(script, executor="shell", kill_grace=60.0)
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      await gateway.granted()
      await gateway.dispatch(task, job=job)
      await gateway.until(lambda: gateway.output(task.instance_id) == b"alone\n")
      await gateway.command(AgentCommandKind.KILL, task.instance_id)
      result = await gateway.result(task.instance_id)
  assert (result.status, result.reason) == (S.FAILED, "exit code 7")


async def test_commands_for_unknown_instances_are_ignored(gateway, tmp_path):
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      await gateway.granted()
      await gateway.command(AgentCommandKind.KILL, make_task().instance_id)
      await gateway.dispatch(task := make_task(), job=make_job())
      assert (await gateway.result(task.instance_id)).status is S.SUCCEEDED


async def test_a_task_beyond_its_time_limit_is_ended(gateway, tmp_path):
  task, job = make_task(), make_job("/bin/sleep", args=["60"], timeout=0.2)
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      await gateway.granted()
      await gateway.dispatch(task, job=job)
      result = await gateway.result(task.instance_id)
  assert (result.status, result.reason) == (S.TIMEOUT, "timeout after 0.2 s")
  assert (result.completed_at - result.started_at).total_seconds() >= 0.2


async def test_failures_say_how_the_process_ended(gateway, tmp_path):
  cases = {
    "exit 3": (3, "exit code 3"),
    "kill -SEGV $$": (128 + 11, "signal SIGSEGV"),
  }
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      await gateway.granted()
      for script, expected in cases.items():
        task = make_task()
        await gateway.dispatch(task, job=make_job(script, executor="shell"))
        result = await gateway.result(task.instance_id)
        assert result.status is S.FAILED
        assert (result.exit_code, result.reason) == expected


async def test_what_cannot_be_started_fails_with_the_reason_in_words(gateway, tmp_path):
  jobs = {
    "not found in PATH": make_job("no-such-program"),
    "'day', which is missing": make_job("/bin/echo", args=["{{ parameters.day }}"]),
    "no function 'nobody.knows'": make_job("nobody.knows", executor="python"),
    "no executor 'docker'": make_job("image", executor="docker"),
    "user 'no-such-user' does not exist": make_job("/bin/true", user="no-such-user"),
  }
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      await gateway.granted()
      for words, job in jobs.items():
        task = make_task()
        await gateway.dispatch(task, job=job)
        result = await gateway.result(task.instance_id)
        assert (result.status, result.exit_code) == (S.FAILED, None)
        assert result.reason.startswith("launch: ")
        assert words in result.reason
        assert result.error_message in result.reason


async def test_a_task_later_than_its_start_deadline_is_not_started(gateway, tmp_path):
  task, job = make_task(due_in=-5), make_job("/bin/true", start_deadline=2.0)
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      await gateway.granted()
      await gateway.dispatch(task, job=job)
      result = await gateway.result(task.instance_id)
  assert (result.status, result.reason) == (S.CANCELLED, "start_deadline")
  assert result.started_at is None


async def test_without_a_lease_only_planned_tasks_start_and_only_for_a_while(
  gateway, tmp_path
):
  # The margin of the lease is one second, so this one never holds.
  gateway.session = attrs.evolve(gateway.session, session_lease=0.5)
  jobs = make_job(), make_job("/bin/true")
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      await gateway.granted()
      for job in jobs:
        now = make_task()
        kept = make_task(due_in=0.1, lease=5.0)
        over = make_task(due_in=0.001, lease=-1.0)
        await gateway.dispatch(now, kept, over, job=job)
        for task in (now, over):
          result = await gateway.result(task.instance_id)
          assert (result.status, result.reason) == (S.RELEASED, "lease expired")
          assert result.started_at is None
        assert (await gateway.result(kept.instance_id)).status is S.SUCCEEDED


async def test_no_more_run_at_once_than_there_are_slots(gateway, tmp_path):
  marks = tmp_path / "marks"
  marks.mkdir()
  script = 'touch "$1/$HETUFLOW_INSTANCE_ID"; ls "$1" | wc -l; sleep 0.1; rm "$1/$HETUFLOW_INSTANCE_ID"'
  job = make_job(script, executor="shell", args=[str(marks)])
  tasks = [make_task() for _ in range(8)]
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway, max_concurrent=2)):
      await gateway.granted()
      await gateway.dispatch(*tasks, job=job)
      counts = [int((await gateway.result(task.instance_id)).output) for task in tasks]
  assert max(counts) == 2


async def test_grants_add_up_to_what_was_used_plus_the_free_slots(gateway, tmp_path):
  tasks = [make_task() for _ in range(20)]
  config = make_config(tmp_path, gateway, max_concurrent=5, hold=7)

  def granted():
    """Sum up the grants."""
    grants = [e.payload for e in gateway.peer.of(MessageKind.ACQUIRE_TASK_REQUEST)]
    return sum(each.run for each in grants), sum(each.hold for each in grants)

  with trio.fail_after(30):
    async with running_agent(config):
      await gateway.granted()
      for start in range(0, 20, 5):
        await gateway.until(lambda: granted()[0] >= start + 5)  # noqa: B023 - awaited here
        await gateway.dispatch(*tasks[start : start + 5], job=make_job())
      await gateway.until(lambda: granted() == (25, 7))


async def test_a_paused_agent_takes_its_grants_back_until_it_is_resumed(
  gateway, tmp_path
):
  def granted():
    """Tell what the agent has granted, and when it took it back."""
    grants = [e.payload for e in gateway.peer.of(MessageKind.ACQUIRE_TASK_REQUEST)]
    return [(each.run, each.hold, each.draining) for each in grants]

  config = make_config(tmp_path, gateway, max_concurrent=4, hold=7)
  full, back = (4, 7, False), (0, 0, True)
  with trio.fail_after(30):
    async with running_agent(config) as agent:
      await gateway.granted()
      await gateway.command(AgentCommandKind.DRAIN)
      await gateway.until(lambda: granted() == [full, back])
      # What was on its way is run all the same.
      await gateway.dispatch(task := make_task(), job=make_job())
      await gateway.result(task.instance_id)
      await gateway.until(lambda: not len(agent.parts.instances))
      assert granted() == [full, back]
      await gateway.command(AgentCommandKind.RESUME)
      await gateway.until(lambda: granted() == [full, back, full])
