"""Python functions as tasks: how they are registered, called, limited and reported."""

import asyncio
import sys
import threading

import pytest
import trio
from agent_stage import make_config, make_job, make_task, running_agent

import hetuflow.agent
from hetuflow.agent import functions
from hetuflow.agent.program import open_agent
from hetuflow.errors import SettingsError
from hetuflow.protocol.messages import AgentCommandKind
from hetuflow.protocol.states import TaskInstanceStatus as S


@pytest.fixture
def function(monkeypatch):
  """Register functions for one test."""
  monkeypatch.setattr(functions, "_functions", dict(functions._functions))
  return hetuflow.agent.function


async def run(gateway, tmp_path, name, *, parameters=None, **config):
  """Run one task of a function in an agent and return its report."""
  task = make_task(parameters=parameters or {})
  job = make_job(name, executor="python", **config)
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      await gateway.granted()
      await gateway.dispatch(task, job=job)
      return await gateway.result(task.instance_id)


@pytest.mark.parametrize("inline", [False, True])
async def test_a_function_gets_the_parameters_it_names(
  gateway, tmp_path, function, inline
):
  @function("add", inline=inline)
  def add(a, b=2):
    return {"sum": a + b, "main": threading.current_thread() is threading.main_thread()}

  result = await run(gateway, tmp_path, "add", parameters={"a": 1, "unused": 5})
  assert result.status is S.SUCCEEDED
  assert result.output == f'{{"sum":3,"main":{"true" if inline else "false"}}}'


async def test_a_function_that_takes_any_name_gets_all_parameters(
  gateway, tmp_path, function
):
  @function("all")
  async def take_all(**parameters):
    return sorted(parameters)

  result = await run(gateway, tmp_path, "all", parameters={"b": 1, "a": 2})
  assert result.output == '["a","b"]'


async def test_a_function_is_told_what_it_runs_for_if_it_asks(
  gateway, tmp_path, function
):
  @function("who")
  async def who(context):
    return (
      f"{context.job_name} {context.attempt} {context.instance_id} {context.parameters}"
    )

  result = await run(gateway, tmp_path, "who", parameters={"x": 1})
  assert result.output == f"a job 1 {result.instance_id} {{'x': 1}}"
  assert gateway.output(result.instance_id) == result.output.encode()


@pytest.mark.parametrize("inline", [False, True])
async def test_an_exception_fails_the_task_with_its_traceback(
  gateway, tmp_path, function, inline
):
  @function("bad", inline=inline)
  def bad():
    raise ValueError("x\0y" + "z" * 3000)

  result = await run(gateway, tmp_path, "bad")
  assert result.status is S.FAILED
  assert result.reason.startswith("ValueError: x\N{REPLACEMENT CHARACTER}y")
  assert len(result.error_message) == 2000
  assert result.error_message.endswith("z\n")


class Unspeakable(Exception):
  """An exception that cannot be put into words."""

  def __str__(self):
    raise RuntimeError


@pytest.mark.parametrize("how", ["inline", "thread", "async"])
@pytest.mark.parametrize(
  ("error", "reason"),
  [
    (SystemExit(3), "SystemExit: 3"),
    (asyncio.CancelledError("leaked"), "CancelledError: leaked"),
    (Unspeakable(), "Unspeakable: <without words>"),
  ],
)
async def test_whatever_a_function_raises_fails_its_task_alone(
  gateway, tmp_path, function, how, error, reason
):
  def bad():
    raise error

  async def async_bad():
    raise error

  function("bad", inline=how == "inline")(async_bad if how == "async" else bad)
  bad_task, good_task = make_task(), make_task()
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      await gateway.granted()
      await gateway.dispatch(bad_task, job=make_job("bad", executor="python"))
      result = await gateway.result(bad_task.instance_id)
      await gateway.dispatch(good_task, job=make_job())
      assert (await gateway.result(good_task.instance_id)).status is S.SUCCEEDED
  assert (result.status, result.reason) == (S.FAILED, reason)


async def test_a_missing_argument_fails_the_task(gateway, tmp_path, function):
  @function("needs")
  def needs(a):
    return a

  result = await run(gateway, tmp_path, "needs")
  assert result.status is S.FAILED
  assert "'a'" in result.reason


async def test_what_json_cannot_say_fails_the_task(gateway, tmp_path, function):
  @function("odd")
  def odd():
    return object()

  result = await run(gateway, tmp_path, "odd")
  assert result.status is S.FAILED
  assert result.started_at is not None


async def test_an_async_function_is_cancelled_at_its_time_limit(
  gateway, tmp_path, function
):
  @function("slow")
  async def slow():
    await trio.sleep_forever()

  result = await run(gateway, tmp_path, "slow", timeout=0.1)
  assert (result.status, result.reason) == (S.TIMEOUT, "timeout after 0.1 s")


async def test_a_thread_past_its_time_limit_keeps_its_slot_until_it_returns(
  gateway, tmp_path, function
):
  release = threading.Event()

  @function("stuck")
  def stuck():
    release.wait(20)

  task = make_task()
  job = make_job("stuck", executor="python", timeout=0.1)
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)) as agent:
      await gateway.granted()
      await gateway.dispatch(task, job=job)
      assert (await gateway.result(task.instance_id)).status is S.TIMEOUT
      await gateway.until(lambda: not len(agent.parts.instances))
      assert agent.parts.instances.running == 1
      release.set()
      await agent.parts.crowd.wait_empty()
      assert agent.parts.instances.running == 0
  assert len(gateway.updates(task.instance_id)) <= 2


async def test_a_function_in_a_thread_is_reported_cancelled_when_asked(
  gateway, tmp_path, function
):
  release = threading.Event()

  @function("stuck")
  def stuck():
    release.wait(20)

  task = make_task()
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      await gateway.granted()
      await gateway.dispatch(task, job=make_job("stuck", executor="python"))
      await gateway.started(task.instance_id)
      await gateway.command(AgentCommandKind.CANCEL, task.instance_id)
      assert (await gateway.result(task.instance_id)).status is S.CANCELLED
      release.set()


def test_a_name_is_registered_once(function):
  function("mine")(lambda: None)
  with pytest.raises(ValueError, match="'mine' already"):
    function("mine")(lambda: None)


def test_a_function_that_no_name_reaches_is_refused(function):
  def divide(a, b, /):
    return a / b

  with pytest.raises(ValueError, match="'divide' takes 'a' by position only"):
    function("divide")(divide)


async def test_what_goes_by_position_and_may_be_left_out_is(
  gateway, tmp_path, function
):
  @function("scale")
  def scale(factor=2, /, *rest, by):
    return factor * by

  parameters = {"factor": 9, "rest": 9, "by": 3}
  result = await run(gateway, tmp_path, "scale", parameters=parameters)
  assert (result.status, result.output) == (S.SUCCEEDED, "6")


def test_an_async_function_cannot_run_inline(function):
  async def wait():
    """Wait for nothing."""

  with pytest.raises(ValueError, match="cannot run inline"):
    function("wait", inline=True)(wait)


async def test_imported_modules_register_functions(
  gateway, tmp_path, function, monkeypatch
):
  module = (
    "import hetuflow.agent\n@hetuflow.agent.function('hi')\ndef hi(): return 'hi'\n"
  )
  (tmp_path / "my_functions.py").write_text(module)
  monkeypatch.syspath_prepend(tmp_path)
  async with open_agent(make_config(tmp_path, gateway, imports=("my_functions",))):
    sys.modules.pop("my_functions")
  assert (await run(gateway, tmp_path, "hi")).output == "hi"


async def test_a_module_that_cannot_be_imported_is_a_wrong_setting(gateway, tmp_path):
  config = make_config(tmp_path, gateway, imports=("no_such_module",))
  with pytest.raises(SettingsError, match=r"agent\.imports: .*'no_such_module'"):
    async with open_agent(config):
      pytest.fail("it opened")
