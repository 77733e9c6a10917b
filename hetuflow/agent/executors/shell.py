"""Shell commands: a process whose program is the shell."""

from hetuflow.agent.executors.environment import fill
from hetuflow.agent.instances import Instance

__all__ = ["shell_argv"]

SHELL = "/bin/sh"


def shell_argv(instance: Instance) -> tuple[str, ...]:
  """Return the command line of ``sh -c``: ``$0`` is the job, ``$1`` the first argument.

  The command itself is never templated: what users put into parameters is data.

  Raises:
    LaunchError: a template in an argument names a parameter that is missing.
  """
  config, parameters = instance.job.config, instance.task.parameters
  args = (fill(each, parameters) for each in config.args)
  return (SHELL, "-c", config.cmd, instance.job.job_name, *args)
