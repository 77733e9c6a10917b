"""One attempt, told to people and to programs."""

from hetuflow.server.explaining.words import agent_of
from hetuflow.storage.explain import Attempt

__all__ = ["attempt_details", "how_it_ended"]


def how_it_ended(attempt: Attempt) -> str:
  """Say how an attempt ended, in words."""
  on = agent_of(attempt.agent_name, attempt.agent_id)
  words = f"{attempt.status} on {on}"
  if attempt.exit_code:
    words += f" with exit code {attempt.exit_code}"
  why = attempt.error_message or attempt.reason
  return f"{words} ({why})" if why else words


def attempt_details(attempt: Attempt) -> dict[str, object]:
  """Return what a program may want to know of an attempt."""
  return {
    "instance_id": attempt.id,
    "attempt": attempt.attempt,
    "status": attempt.status,
    "agent_id": attempt.agent_id,
    "agent": attempt.agent_name,
    "exit_code": attempt.exit_code,
    "reason": attempt.error_message or attempt.reason,
    "started_at": attempt.started_at,
    "completed_at": attempt.completed_at,
  }
