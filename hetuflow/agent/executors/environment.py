"""The command line and the whole environment of a task's process.

Nothing of the agent's own environment reaches a process: it gets a fixed base for its
user, what the job says, and what tells it which task it is. ``{{ parameters.x }}`` is
replaced in arguments and in the job's values, never in ``cmd``.
"""

import os
import pwd
import re
from datetime import UTC, datetime
from functools import cache

from hetuflow.agent.instances import Instance
from hetuflow.agent.process import LaunchSpec
from hetuflow.errors import LaunchError
from hetuflow.protocol import templates
from hetuflow.protocol.model import JsonObject

__all__ = ["fill", "make_environment", "make_spec", "traceparent"]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LANG = "C.UTF-8"
SHELL = "/bin/sh"

_NOT_IN_NAMES = re.compile(r"[^A-Z0-9_]")


def make_spec(instance: Instance, argv: tuple[str, ...]) -> LaunchSpec:
  """Make all that starts the process of an attempt.

  Args:
    instance: the attempt.
    argv: program and arguments as the job says, before they are filled in; the program
      and whatever else must stay as it is are the caller's to add.

  Raises:
    LaunchError: there is no such user, or a template names a parameter that is missing.
  """
  config = instance.job.config
  account = _account(config.user)
  environment = make_environment(instance, account)
  return LaunchSpec(
    argv=argv,
    environment=environment,
    cwd=config.cwd or account.pw_dir,
    fallback_cwd=None if config.cwd else "/",
    user=config.user,
    stdin=None if config.stdin is None else config.stdin.encode(),
    capture=config.capture_output,
  )


def make_environment(instance: Instance, account: pwd.struct_passwd) -> dict[str, str]:
  """Make the whole environment of an attempt's process.

  Args:
    instance: the attempt.
    account: the user it runs as.

  Raises:
    LaunchError: a template names a parameter that is missing.
  """
  task = instance.task
  return {
    "PATH": PATH,
    "HOME": account.pw_dir or "/",
    "USER": account.pw_name,
    "LOGNAME": account.pw_name,
    "SHELL": account.pw_shell or SHELL,
    "LANG": LANG,
    **{
      name: fill(value, task.parameters)
      for name, value in instance.job.config.environment.items()
    },
    **{
      f"HETUFLOW_PARAM_{_NOT_IN_NAMES.sub('_', name.upper())}": templates.as_text(value)
      for name, value in task.parameters.items()
    },
    "HETUFLOW_TASK_ID": str(task.task_id),
    "HETUFLOW_INSTANCE_ID": instance.key,
    "HETUFLOW_ATTEMPT": str(task.attempt),
    "HETUFLOW_SCHEDULED_AT": _as_rfc3339(task.scheduled_at),
    "HETUFLOW_JOB_NAME": instance.job.job_name,
    "TRACEPARENT": traceparent(instance),
  }


def fill(template: str, parameters: JsonObject) -> str:
  """Fill a template in; see ``protocol.templates``.

  Raises:
    LaunchError: a parameter is missing; says which.
  """
  try:
    return templates.fill(template, parameters)
  except templates.MissingParameter as error:
    raise LaunchError(str(error)) from None


def traceparent(instance: Instance) -> str:
  """Make the trace context of an attempt: trace = task, parent = attempt.

  Source: W3C Trace Context, section 3.2.
  """
  return f"00-{instance.task.task_id.hex}-{instance.id.hex[16:]}-01"


def _as_rfc3339(moment: datetime) -> str:
  """Write a moment in UTC as RFC 3339 does."""
  return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


@cache
def _own_account() -> pwd.struct_passwd:
  """Look up ourselves; a container may run us as a number without a name."""
  number = os.geteuid()
  try:
    return pwd.getpwuid(number)
  except KeyError:
    return pwd.struct_passwd((str(number), "x", number, os.getegid(), "", "/", SHELL))


def _account(user: str | None) -> pwd.struct_passwd:
  """Look up the user a process runs as: the one named, else our own."""
  if user is None:
    return _own_account()
  try:
    return pwd.getpwnam(user)
  except KeyError:
    raise LaunchError(f"user {user!r} does not exist on this machine") from None
