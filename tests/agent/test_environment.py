"""What a process is given: exactly this, with templates filled in."""

import json
import os
import pwd
import threading

import pytest
import trio
from agent_stage import make_config, make_job, make_task, running_agent

from hetuflow.agent.executors.environment import PATH, fill, make_environment, make_spec
from hetuflow.agent.executors.process import process_argv
from hetuflow.agent.executors.shell import shell_argv
from hetuflow.agent.instances import Instance, Stage
from hetuflow.errors import LaunchError

ME = pwd.getpwuid(os.geteuid())


def make_instance(job, **task):
  """An attempt that nothing runs."""
  return Instance(task=make_task(**task), job=job, stage=Stage.READY)


async def test_the_environment_of_a_process_is_exact(gateway, tmp_path, monkeypatch):
  monkeypatch.setenv("SECRET_OF_THE_AGENT", "x")
  job = make_job(
    "/usr/bin/env", environment={"DAY": "{{ parameters.day }}", "EMPTY": ""}
  )
  task = make_task(parameters={"day": "monday", "retry-count": 3, "list": [1, "a"]})
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      await gateway.granted()
      await gateway.dispatch(task, job=job)
      result = await gateway.result(task.instance_id)
  seen = dict(line.split("=", 1) for line in result.output.splitlines())
  scheduled_at = seen.pop("HETUFLOW_SCHEDULED_AT")
  assert scheduled_at == task.scheduled_at.isoformat().replace("+00:00", "Z")
  assert seen == {
    "PATH": PATH,
    "HOME": ME.pw_dir,
    "USER": ME.pw_name,
    "LOGNAME": ME.pw_name,
    "SHELL": ME.pw_shell,
    "LANG": "C.UTF-8",
    "DAY": "monday",
    "EMPTY": "",
    "HETUFLOW_TASK_ID": str(task.task_id),
    "HETUFLOW_INSTANCE_ID": str(task.instance_id),
    "HETUFLOW_ATTEMPT": "1",
    "HETUFLOW_JOB_NAME": "a job",
    "HETUFLOW_PARAM_DAY": "monday",
    "HETUFLOW_PARAM_RETRY_COUNT": "3",
    "HETUFLOW_PARAM_LIST": '[1,"a"]',
    "TRACEPARENT": f"00-{task.task_id.hex}-{task.instance_id.hex[16:]}-01",
  }


@pytest.mark.parametrize(
  ("template", "expected"),
  [
    ("{{ parameters.day }}", "monday"),
    ("{{parameters.day}}s and {{ parameters.n }}", "mondays and 3"),
    ("{{ parameters.deep.er }}", "true"),
    ("{{ parameters.a.b }}", "dotted"),
    ("{{ other.day }} {{.Name}} {{}}", "{{ other.day }} {{.Name}} {{}}"),
    ("{{ parameters.template }}", "{{ parameters.day }}"),
  ],
)
def test_templates_are_filled_with_parameters_and_nothing_else(template, expected):
  parameters = {
    "day": "monday",
    "n": 3,
    "deep": {"er": True},
    "a.b": "dotted",
    "template": "{{ parameters.day }}",
  }
  assert fill(template, parameters) == expected


@pytest.mark.parametrize("name", ["night", "day.time", "deep.no"])
def test_a_missing_parameter_is_named(name):
  with pytest.raises(LaunchError, match=f"parameter '{name}'"):
    fill(f"{{{{ parameters.{name} }}}}", {"day": "monday", "deep": {"er": 1}})


def test_arguments_are_templated_but_the_command_never_is():
  raw = "{{ parameters.day }}"
  parameters = {"day": "$(reboot)"}
  process = make_instance(make_job(raw, args=[raw, "b"]), parameters=parameters)
  assert process_argv(process) == (raw, "$(reboot)", "b")
  shell = make_instance(
    make_job(raw, executor="shell", args=[raw]), parameters=parameters
  )
  assert shell_argv(shell) == ("/bin/sh", "-c", raw, "a job", "$(reboot)")


def test_a_process_starts_in_the_home_of_its_user(tmp_path):
  assert make_spec(make_instance(make_job("x")), ("x",)).settled().cwd == ME.pw_dir
  elsewhere = make_instance(make_job("x", cwd=str(tmp_path)))
  assert make_spec(elsewhere, ("x",)).settled().cwd == str(tmp_path)
  nowhere = make_instance(make_job("x", cwd="/no/such"))
  assert make_spec(nowhere, ("x",)).settled().cwd == "/no/such"
  homeless = make_spec(make_instance(make_job("x", user="nobody")), ("x",)).settled()
  assert homeless.cwd == "/"
  assert homeless.user == homeless.environment["USER"] == "nobody"
  assert homeless.environment["HOME"] == pwd.getpwnam("nobody").pw_dir


async def test_the_home_of_a_user_is_not_looked_at_in_the_loop(
  gateway, tmp_path, monkeypatch
):
  seen = []

  def is_folder(path):
    """Note in which thread a folder is looked at."""
    seen.append((path, threading.current_thread() is threading.main_thread()))
    return True

  monkeypatch.setattr(os.path, "isdir", is_folder)
  task = make_task()
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      await gateway.granted()
      await gateway.dispatch(task, job=make_job("/bin/pwd"))
      result = await gateway.result(task.instance_id)
  assert result.output == f"{ME.pw_dir}\n"
  assert (ME.pw_dir, False) in seen
  assert (ME.pw_dir, True) not in seen


def test_a_job_may_change_the_base_but_not_what_names_the_task():
  environment = {
    "PATH": "/opt/bin",
    "HETUFLOW_TASK_ID": "forged",
    "LANG": "de_DE.UTF-8",
  }
  made = make_environment(make_instance(make_job("x", environment=environment)), ME)
  assert made["PATH"] == "/opt/bin"
  assert made["LANG"] == "de_DE.UTF-8"
  assert made["HETUFLOW_TASK_ID"] != "forged"


async def test_shell_arguments_standard_input_and_directory_arrive(gateway, tmp_path):
  script = 'printf "%s|" "$0" "$1" "$2"; pwd; cat'
  job = make_job(
    script,
    executor="shell",
    args=["{{ parameters.x }}", "b c"],
    stdin="told\n",
    cwd="/",
  )
  task = make_task(parameters={"x": {"y": 1}})
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path / "data", gateway)):
      await gateway.granted()
      await gateway.dispatch(task, job=job)
      result = await gateway.result(task.instance_id)
  assert (
    result.output
    == f"a job|{json.dumps({'y': 1}, separators=(',', ':'))}|b c|/\ntold\n"
  )


async def test_a_process_can_run_as_another_user(gateway, tmp_path):
  if os.geteuid() != 0:
    pytest.skip("needs root to change the user")
  task, job = make_task(), make_job("/usr/bin/id", args=["-un"], user="nobody")
  with trio.fail_after(30):
    async with running_agent(make_config(tmp_path, gateway)):
      await gateway.granted()
      await gateway.dispatch(task, job=job)
      result = await gateway.result(task.instance_id)
  assert (result.output, result.exit_code) == ("nobody\n", 0)
