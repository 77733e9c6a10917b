"""The network between agent and server stalls and breaks; nothing is lost or doubled."""

import pytest
import trio
from fault_checks import all_running, check_agreement, make_tasks, succeeded
from fault_stage import Stage
from support.programs import client_of, wait_until
from support.proxy import Proxy, Way
from support.work import make_job

QUICK = {"HETUFLOW_SERVER_HEARTBEAT": "0.5", "HETUFLOW_SERVER_SESSION_LEASE": "3"}
"""A dead line is noticed after two heartbeats without an answer."""


@pytest.mark.parametrize("ways", [[Way.UP], [Way.DOWN], list(Way)])
async def test_a_line_that_lets_nothing_through_is_given_up_and_its_rest_is_harmless(
  stage: Stage, nursery: trio.Nursery, ways: list[Way]
) -> None:
  with trio.fail_after(90):
    server = await stage.server(env=QUICK)
    proxy = Proxy(server.port)
    await nursery.start(proxy.run)
    agent = await stage.agent(server, "--server", proxy.gateway)
    async with client_of(server) as client:
      job = await make_job(client, "sleep 1", executor="shell")
      ids = await make_tasks(client, job, 10)
      await all_running(client, job, len(ids))
      proxy.stall(ways)
      await wait_until(lambda: agent.events("heartbeat_unanswered"))
      # All that was held up comes now, out of a connection that is no more.
      proxy.heal()
      await succeeded(client, job, len(ids))
      await check_agreement(client, job, ids)
    await wait_until(lambda: len(agent.events("session_opened")) > 1)


async def test_connections_that_break_at_any_moment_lose_and_double_nothing(
  stage: Stage, nursery: trio.Nursery
) -> None:
  with trio.fail_after(90):
    server = await stage.server(env=QUICK)
    proxy = Proxy(server.port)
    await nursery.start(proxy.run)
    agent = await stage.agent(server, "--server", proxy.gateway)
    async with client_of(server) as client:
      job = await make_job(client, "/bin/true")
      ids = await make_tasks(client, job, 1_000)
      for number in range(1, 9):
        await succeeded(client, job, number * 100)
        proxy.reset()
      await succeeded(client, job, len(ids))
      await check_agreement(client, job, ids)
    assert agent.is_running
    assert not server.events("connection_crashed")
