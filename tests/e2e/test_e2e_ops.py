"""A running server looked at by operators: doctor, explanations, agents on hold."""

import trio
from support.commands import Command
from support.programs import wait_until
from support.work import make_job, run_job

from hetuflow.client import AsyncClient
from hetuflow.client.calls import gateway, jobs, system, tasks
from hetuflow.protocol.model import Agent, Explanation
from hetuflow.protocol.states import AgentStatus

LIMIT_S = 90.0


async def agent_of(client: AsyncClient) -> Agent:
  """Read the one agent."""
  [agent] = (await client.send(system.list_agents())).items
  return agent


async def test_the_doctor_finds_the_database_of_a_running_server(
  cli: Command, client: AsyncClient
) -> None:
  with trio.fail_after(LIMIT_S):
    await run_job(client, await make_job(client))
    (await cli("migrate", "--check")).ok()
    report = (await cli("doctor", "--json")).json
    assert [each for each in report["checks"] if each["ok"] is False] == []
    assert report["ok"]
    assert (await cli("repair")).ok().text == "nothing to mend\n"
    # The server goes on with the database that was joined and left.
    await run_job(client, await make_job(client))


async def test_a_task_that_ran_and_one_that_cannot_are_explained(
  cli: Command, client: AsyncClient
) -> None:
  with trio.fail_after(LIMIT_S):
    run = await run_job(client, await make_job(client))
    told = (await cli("explain", run.task.id)).ok().text
    assert told.startswith("It succeeded.\n")
    assert "took it, as one that has what it asks for" in told
    job = await make_job(client, labels={"disk": "ssd"})
    task = await client.send(jobs.run_job(job.id, {}))
    why = (await cli("explain", task.id, "--json")).ok().json
    assert [each["code"] for each in why["reasons"]] == ["no_agent"]
    assert "lacks the labels disk=ssd" in why["verdict"]


async def test_a_drained_agent_gets_nothing_until_it_is_resumed(
  cli: Command, client: AsyncClient
) -> None:
  with trio.fail_after(LIMIT_S):
    agent = await agent_of(client)
    (await cli("agents", "drain", agent.name)).ok()
    assert (await agent_of(client)).status is AgentStatus.DRAINING

    async def nothing_is_granted() -> bool:
      """Tell whether the agent has taken back what it had granted."""
      [connection] = (await client.send(gateway.list_connections())).items
      return connection.draining and not (connection.run or connection.hold)

    await wait_until(nothing_is_granted, LIMIT_S)
    job = await make_job(client)
    task = await client.send(jobs.run_job(job.id, {}))
    why: Explanation = await client.send(tasks.explain_task(task.id))
    assert why.reasons[0].code == "no_agent"
    assert "is draining" in why.verdict
    (await cli("agents", "resume", agent.name)).ok()

    async def has_run() -> bool:
      """Tell whether the task has ended."""
      return (await client.send(tasks.get_task(task.id))).completed_at is not None

    await wait_until(has_run, LIMIT_S)
    assert (await agent_of(client)).status is AgentStatus.ONLINE


async def test_a_disconnected_agent_comes_back(
  cli: Command, client: AsyncClient
) -> None:
  with trio.fail_after(LIMIT_S):
    [before] = (await client.send(gateway.list_connections())).items
    (await cli("agents", "disconnect", before.name)).ok()

    async def is_back() -> bool:
      """Tell whether the agent has a session again, another one."""
      found = (await client.send(gateway.list_connections())).items
      return any(each.session_id != before.session_id for each in found)

    await wait_until(is_back, LIMIT_S)
    await run_job(client, await make_job(client))
