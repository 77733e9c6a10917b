"""Which agent runs what: namespaces and their tokens, labels, functions."""

from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from support.commands import Command, World
from support.programs import client_of, running_agent, wait_until
from support.work import make_job, run_job, see_through

from hetuflow.client import AsyncClient
from hetuflow.client.calls import jobs, system, tasks

LIMIT_S = 60.0
FUNCTIONS = '''
"""Functions for jobs."""

from hetuflow.agent.functions import function


@function("shout")
def shout(text: str, times: int = 1) -> str:
  print(text.upper() * times)
  if text == "no":
    raise ValueError("I will not shout that")


@function("whisper")
async def whisper(context, text: str = "") -> None:
  print(f"{text.lower()} {context.job_name} {context.attempt}")
'''


async def make_token(world: World, name: str, *namespaces: str) -> str:
  """Make a join token for namespaces and return its secret."""
  async with httpx.AsyncClient() as http:
    answer = await http.post(
      f"{world.server.url}/api/v1/agent-tokens",
      headers={"Authorization": f"Bearer {world.server.key}"},
      json={"name": name, "namespace_ids": list(namespaces)},
    )
  assert answer.status_code == 201, answer.text
  made: dict[str, Any] = answer.json()
  return str(made["token"])


async def agent_id_of(client: AsyncClient, name: str) -> str:
  """Return the id of an agent."""
  [agent] = (await client.send(system.list_agents(name=name))).items
  return str(agent.id)


async def test_a_task_runs_only_on_agents_of_its_namespace(
  world: World, client: AsyncClient, cli: Command
) -> None:
  with trio.fail_after(LIMIT_S):
    (await cli("namespaces", "create", "team-a")).ok()
    listed = (await cli("namespaces", "list", "--json")).ok().json
    assert {"default", "team-a"} <= {each["id"] for each in listed}
    job = await make_job(client, "echo", "a", name="same", namespace_id="team-a")
    await make_job(client, "echo", "default", name="same")
    waiting = await client.send(jobs.run_job(job.id))
    # Whoever took the first would have taken the second, which is younger.
    assert (await cli("run", "same", "--follow")).ok().text == "default\n"
    assert (await client.send(tasks.get_task(waiting.id))).status == "pending"
    token = await make_token(world, "for team-a", "team-a")
    flags = ("--namespace", "team-a", "--token", token)
    async with running_agent(world.server, *flags, name="a-only") as agent:
      run = await see_through(client, waiting.id)
      assert run.output == "a\n"
      assert str(run.last.agent_id) == await agent_id_of(client, "a-only")
      word = await cli("run", "same", "--follow", "--namespace", "team-a")
      assert word.ok().text == "a\n"
      assert token not in agent.log_text() + world.server.log_text()


async def test_a_token_does_not_open_other_namespaces(
  world: World, client: AsyncClient, cli: Command
) -> None:
  with trio.fail_after(LIMIT_S):
    (await cli("namespaces", "create", "team-b")).ok()
    flags = ("--namespace", "default", "--namespace", "team-b")
    async with running_agent(world.server, *flags, name="both", wait=False) as agent:
      assert await agent.wait() == 2
      assert "team-b" in agent.log_text()
      assert "Traceback" not in agent.log_text()
    token = await make_token(world, "for all", "*")
    flags += ("--token", token)
    async with running_agent(world.server, *flags, name="all"):
      job = await make_job(client, "echo", "b", namespace_id="team-b")
      assert (await run_job(client, job)).output == "b\n"


async def test_a_job_with_labels_waits_for_an_agent_that_has_them(
  world: World, client: AsyncClient
) -> None:
  with trio.fail_after(LIMIT_S):
    labels = {"disk": "ssd", "zone": "x"}
    job = await make_job(client, "true", labels=labels)
    waiting = await client.send(jobs.run_job(job.id))
    await run_job(client, await make_job(client, "true"))
    some = ("--label", "disk=ssd")
    async with running_agent(world.server, *some, name="some"):
      await run_job(client, await make_job(client, "true", labels={"disk": "ssd"}))
      assert (await client.send(tasks.get_task(waiting.id))).status == "pending"
      all_of_them = (*some, "--label", "zone=x", "--label", "more=y")
      async with running_agent(world.server, *all_of_them, name="all-labels"):
        run = await see_through(client, waiting.id)
        assert str(run.last.agent_id) == await agent_id_of(client, "all-labels")


async def test_functions_of_an_imported_module_run_where_they_are_known(
  world: World, client: AsyncClient, tmp_path: Path
) -> None:
  (tmp_path / "my_functions.py").write_text(FUNCTIONS)
  reach = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
  with trio.fail_after(LIMIT_S):
    shout = await make_job(client, "shout", executor="python")
    waiting = await client.send(
      jobs.run_job(shout.id, {"parameters": {"text": "hey ", "times": 2}})
    )
    await run_job(client, await make_job(client, "true"))
    assert (await client.send(tasks.get_task(waiting.id))).status == "pending"
    flags = ("--import", "my_functions")
    async with running_agent(world.server, *flags, name="knows", env=reach):
      run = await see_through(client, waiting.id)
      assert run.task.status == "succeeded"
      failed = await run_job(client, shout, text="no")
      assert failed.task.status == "failed"
      assert failed.last.error_message is not None
      assert "I will not shout that" in failed.last.error_message
      whisper = await make_job(client, "whisper", executor="python")
      assert (await run_job(client, whisper, text="PSST")).task.status == "succeeded"
      wrong = await run_job(client, shout)
      assert wrong.task.status == "failed"
      assert wrong.last.error_message is not None
      assert "text" in wrong.last.error_message


async def test_an_agent_that_leaves_is_seen_to_go(
  world: World, client: AsyncClient, cli: Command
) -> None:
  async def status() -> str:
    """Read the status of the agent."""
    [agent] = (await client.send(system.list_agents(name="passing"))).items
    return str(agent.status)

  with trio.fail_after(LIMIT_S):
    async with running_agent(world.server, name="passing") as agent:
      assert await status() == "online"
      assert await agent.terminate() == 0
      assert await status() == "offline"
    listed = (await cli("agents", "list", "--status", "offline", "--json")).ok().json
  assert "passing" in [each["name"] for each in listed]


async def test_a_draining_agent_finishes_what_runs(
  world: World, client: AsyncClient, tmp_path: Path
) -> None:
  gate = tmp_path / "gate"
  script = f"echo on; until [ -e {gate} ]; do sleep 0.05; done; echo done"
  with trio.fail_after(LIMIT_S):
    flags = ("--label", "drain=me")
    async with running_agent(world.server, *flags, name="draining") as agent:
      job = await make_job(client, script, executor="shell", labels={"drain": "me"})
      task = await client.send(jobs.run_job(job.id))

      async def runs() -> bool:
        """Tell whether the task runs."""
        return (await client.send(tasks.get_task(task.id))).status == "running"

      await wait_until(runs)
      agent.process.terminate()
      await agent.wait_for(lambda: agent.events("drain_started"))
      later = await client.send(jobs.run_job(job.id))
      gate.touch()
      assert await agent.wait() == 0
      run = await see_through(client, task.id)
      assert (run.task.status, run.output) == ("succeeded", "on\ndone\n")
      assert (await client.send(tasks.get_task(later.id))).status == "pending"
      call = tasks.list_instances(task_id=later.id)
      # What was on its way when the agent said so came back, and once is enough.
      assert len((await client.send(call)).items) <= 1


@pytest.mark.parametrize("token", ["hft_wrong", "x"])
async def test_an_agent_with_a_wrong_token_exits_2(world: World, token: str) -> None:
  flags = ("--token", token)
  with trio.fail_after(LIMIT_S):
    async with running_agent(world.server, *flags, name="wrong", wait=False) as agent:
      assert await agent.wait() == 2
      assert "Traceback" not in agent.log_text()
      assert "token" in agent.log_text().splitlines()[-1]


async def test_two_agents_cannot_share_a_name_in_one_folder(world: World) -> None:
  with trio.fail_after(LIMIT_S):
    async with running_agent(world.server, name="first", wait=False) as second:
      assert await second.wait() in (1, 2)
      assert "Traceback" not in second.log_text()
    async with client_of(world.server) as client:
      [agent] = (await client.send(system.list_agents(name="first"))).items
  assert agent.status == "online"
