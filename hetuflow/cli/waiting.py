"""Why a task has not begun: what can be seen of it and of the agents."""

from datetime import UTC, datetime

from hetuflow.cli import show
from hetuflow.cli.session import Session
from hetuflow.client.calls import jobs, system
from hetuflow.protocol.model import Agent, Task
from hetuflow.protocol.states import AgentStatus, TaskStatus

__all__ = ["why_waiting"]

READY = (AgentStatus.ONLINE, AgentStatus.BUSY)


def why_waiting(session: Session, task: Task) -> str:
  """Say in a few words what a task that has not begun waits for."""
  if task.status is not TaskStatus.PENDING:
    return f"the task is {task.status}" + (f": {task.reason}" if task.reason else "")
  if task.due_at > datetime.now(UTC):
    return f"it is due at {show.when(task.due_at)}"
  job = session.send(jobs.get_job(task.job_id))
  if job.config is None:
    return f"the configuration of the job {job.name} cannot be used"
  config = job.config
  call = system.list_agents(namespace_id=task.namespace_id)
  ready = [each for each in session.client.pages(call) if each.status in READY]
  if not ready:
    return f"no agent of namespace {task.namespace_id} is online"
  fitting = [each for each in ready if _fits(each, config.labels)]
  if not fitting:
    labels = ", ".join(f"{name}={value}" for name, value in config.labels.items())
    return f"no agent that is online has {labels}"
  if all(config.executor not in each.capabilities.executors for each in fitting):
    return f"no agent that is online has the executor {config.executor}"
  if all(each.status is AgentStatus.BUSY for each in fitting):
    return "every agent that may run it is busy"
  return "no agent that may run it has taken it so far"


def _fits(agent: Agent, labels: dict[str, str]) -> bool:
  """Tell whether an agent has all the labels."""
  return all(agent.labels.get(name) == value for name, value in labels.items())
