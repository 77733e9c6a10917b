"""From what people call things to the things, and back: names, ids, the latest run."""

from collections.abc import Iterable
from uuid import UUID

from hetuflow.cli.session import Session
from hetuflow.client import ApiError
from hetuflow.client.calls import calendars, jobs, schedules, system, tasks
from hetuflow.errors import HetuflowError
from hetuflow.protocol.model import Agent, Calendar, Job, Schedule, TaskInstance
from hetuflow.protocol.states import TaskInstanceStatus

__all__ = [
  "NotThere",
  "find_agent",
  "find_calendar",
  "find_instance",
  "find_job",
  "find_schedule",
  "job_names",
  "named_job",
]

NOT_FOUND = 404
NOT_BEGUN = (TaskInstanceStatus.DISPATCHED, TaskInstanceStatus.RELEASED)
FEW = 20
"""So many jobs are asked for one by one; of more, whole lists are read."""
RECENT = 20
"""Instances looked at for one that has begun."""


class NotThere(HetuflowError):
  """Nothing goes by the name or id that was given."""


def _id(text: str) -> UUID | None:
  """Read an id; None where the text is a name."""
  try:
    return UUID(text)
  except ValueError:
    return None


def named_job(session: Session, name: str) -> Job | None:
  """Return the job of a name in the namespace, or None."""
  call = jobs.list_jobs(namespace_id=session.here, name=name)
  found = (job for job in session.client.pages(call) if job.name == name)
  return next((job for job in found if job.status != "deleted"), None)


def find_job(session: Session, text: str) -> Job:
  """Return a job by name or id.

  Raises:
    NotThere: there is none in the namespace.
  """
  if job := named_job(session, text):
    return job
  if (job_id := _id(text)) is not None:
    return session.send(jobs.get_job(job_id))
  raise NotThere(f"no job is called {text!r} in namespace {session.here}")


def job_names(session: Session, ids: Iterable[UUID]) -> dict[UUID, str]:
  """Return the names of jobs by their ids; of many, deleted ones are left out."""
  wanted = set(ids)
  if len(wanted) <= FEW:
    return {each: session.send(jobs.get_job(each)).name for each in wanted}
  names: dict[UUID, str] = {}
  for job in session.client.pages(jobs.list_jobs(namespace_id=session.here)):
    if job.id in wanted:
      names[job.id] = job.name
    if len(names) == len(wanted):
      break
  return names


def find_schedule(session: Session, text: str) -> Schedule:
  """Return a schedule by id, or by name where only one has it.

  Raises:
    NotThere: none or several have the name.
  """
  if (schedule_id := _id(text)) is not None:
    return session.send(schedules.get_schedule(schedule_id))
  call = schedules.list_schedules(namespace_id=session.here)
  found = [each for each in session.client.pages(call) if each.name == text]
  if len(found) != 1:
    count = f"{len(found)} schedules are" if found else "no schedule is"
    raise NotThere(f"{count} called {text!r} in namespace {session.here}")
  return found[0]


def find_calendar(session: Session, text: str) -> Calendar:
  """Return a calendar by name or id.

  Raises:
    NotThere: there is none in the namespace.
  """
  found = session.send(
    calendars.list_calendars(namespace_id=session.here, name=text)
  ).items
  if found:
    return found[0]
  if (calendar_id := _id(text)) is not None:
    return session.send(calendars.get_calendar(calendar_id))
  raise NotThere(f"no calendar is called {text!r} in namespace {session.here}")


def find_agent(session: Session, text: str) -> Agent:
  """Return an agent by name or id.

  Raises:
    NotThere: there is none, or several have the name.
  """
  if (agent_id := _id(text)) is not None:
    return session.send(system.get_agent(agent_id))
  call = system.list_agents(namespace_id=session.namespace, name=text)
  found = [each for each in session.client.pages(call) if each.name == text]
  if len(found) != 1:
    count = f"{len(found)} agents are" if found else "no agent is"
    raise NotThere(f"{count} called {text!r}")
  return found[0]


def find_instance(session: Session, text: str) -> TaskInstance:
  """Return a task instance by id, or the latest one of a task or job.

  Raises:
    NotThere: nothing has run yet, or nothing is called so.
  """
  wanted = _id(text)
  if wanted is not None:
    try:
      return session.send(tasks.get_instance(wanted))
    except ApiError as error:
      if error.status != NOT_FOUND:
        raise
    if found := _latest(session, task_id=wanted):
      return found
  try:
    job = find_job(session, text)
  except ApiError as error:
    if error.status != NOT_FOUND:
      raise
    raise NotThere(f"no task instance, task or job has the id {text}") from error
  if found := _latest(session, job_id=job.id):
    return found
  raise NotThere(f"job {job.name} has not run yet")


def _latest(
  session: Session, *, task_id: UUID | None = None, job_id: UUID | None = None
) -> TaskInstance | None:
  """Return the newest instance of a task or job that has begun or failed to, else any.

  Lists come newest first; the first of them may still wait on its agent for its time.
  """
  call = tasks.list_instances(task_id=task_id, job_id=job_id, limit=RECENT)
  recent = session.send(call).items
  begun = (each for each in recent if each.status not in NOT_BEGUN)
  return next(begun, recent[0] if recent else None)
