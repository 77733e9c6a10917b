"""Claims as the journal keeps them: all that is needed to run an attempt after a restart.

Who runs it: plain functions of the Trio thread. What another version of the agent wrote,
or what was damaged, need not be readable: the columns of a claim are then enough to have
its process ended and to report it, though not to run it.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import UUID

import attrs
import msgspec

from hetuflow.agent.instances import Instance
from hetuflow.agent.journal import Claim, ClaimState
from hetuflow.errors import ProtocolError
from hetuflow.protocol import wire
from hetuflow.protocol.messages import DispatchedTask, NamedConfig
from hetuflow.protocol.model import InstanceId, NamespaceId, TaskConfig, TaskId

__all__ = ["describe_claim", "make_claims", "read_claim", "unknown_job"]

_DEFAULTS = TaskConfig(cmd="-")


def make_claims(instances: Iterable[Instance]) -> list[Claim]:
  """Write down all that is needed to run attempts after a restart."""
  jobs: dict[str, bytes] = {}
  claims = []
  for instance in instances:
    task = instance.task
    job = jobs.get(task.config)
    if job is None:
      job = jobs[task.config] = wire.encode(_compact(instance.job))
    claims.append(
      Claim(
        instance_id=instance.key,
        namespace=task.namespace_id,
        claim_token=str(task.claim_token),
        due_at=instance.due_at,
        state=ClaimState.STARTING if instance.intended else ClaimState.HELD,
        payload=wire.encode(task),
        job=job,
      )
    )
  return claims


def _compact(job: NamedConfig) -> dict[str, object]:
  """Leave out of a configuration what is as by default: most of it, most of the time."""
  config = job.config
  said = {
    name: value
    for name, value in attrs.asdict(config, recurse=False).items()
    if name == "cmd" or value != getattr(_DEFAULTS, name)
  }
  return {"job_name": job.job_name, "config": said}


def unknown_job(name: str) -> NamedConfig:
  """Stand in for a job that is not known, of an attempt that will not run."""
  return NamedConfig(job_name=name, config=_DEFAULTS)


def read_claim(claim: Claim) -> tuple[DispatchedTask, NamedConfig]:
  """Read what ``make_claims`` wrote.

  Raises:
    ProtocolError: an agent of another version wrote it, in words we do not know.
  """
  try:
    task = wire.load(DispatchedTask, msgspec.json.decode(claim.payload))
    return task, wire.load(NamedConfig, msgspec.json.decode(claim.job))
  except (msgspec.DecodeError, UnicodeError) as error:
    raise ProtocolError([("$", f"no claim: {error!r}")]) from error


def describe_claim(claim: Claim) -> tuple[DispatchedTask, NamedConfig]:
  """Make of a claim that cannot be read what is needed to report it, but not to run it."""
  due_at = datetime.fromtimestamp(claim.due_at, UTC)
  task = DispatchedTask(
    instance_id=InstanceId(UUID(claim.instance_id)),
    task_id=TaskId(UUID(int=0)),
    namespace_id=NamespaceId(claim.namespace),
    claim_token=UUID(claim.claim_token),
    attempt=0,
    config="",
    scheduled_at=due_at,
    due_at=due_at,
    lease=0.0,
  )
  return task, unknown_job(task.config)
