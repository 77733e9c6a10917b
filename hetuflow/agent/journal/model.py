"""What the journal holds, as plain data."""

from enum import StrEnum

from attrs import frozen

from hetuflow.errors import HetuflowError

__all__ = ["Claim", "ClaimState", "Entry", "JournalFull", "Recovered"]


class JournalFull(HetuflowError):
  """The journal has no room, or its disk has none; what it holds is safe. Try later."""


class ClaimState(StrEnum):
  """How far the agent has come with a claim."""

  HELD = "held"
  STARTING = "starting"
  RUNNING = "running"
  FINISHED = "finished"


@frozen(kw_only=True)
class Claim:
  """One claim that the agent holds.

  Args:
    instance_id: the task instance.
    namespace: its namespace.
    claim_token: the token that owns the attempt.
    due_at: epoch seconds at which it is to start.
    payload: the task, as bytes of the wire.
    job: name and configuration of its job, likewise; the journal has each once.
    state: how far it has come.
    pid: its main process, once it runs.
    pid_start: the kernel's start time of that process.
    earlier_boot: whether the machine was started anew since the claim was recorded.
  """

  instance_id: str
  namespace: str
  claim_token: str
  due_at: float
  payload: bytes
  job: bytes
  state: ClaimState = ClaimState.HELD
  pid: int | None = None
  pid_start: int | None = None
  earlier_boot: bool = False

  @property
  def may_have_started(self) -> bool:
    """Whether its process may ever have run; False is certain."""
    return self.state is not ClaimState.HELD or self.earlier_boot


@frozen(kw_only=True)
class Entry:
  """One report that the server has not acknowledged.

  Args:
    instance_id: the task instance it is about.
    kind: the kind of the message.
    payload: the message as bytes of the wire.
    seq: its number, growing; 0 before it is in the journal.
  """

  instance_id: str
  kind: str
  payload: bytes
  seq: int = 0


@frozen(kw_only=True)
class Recovered:
  """What an earlier start of the agent has left: claims by due time, reports by number."""

  claims: tuple[Claim, ...]
  outbox: tuple[Entry, ...]
