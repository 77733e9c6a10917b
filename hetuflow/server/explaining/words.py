"""How reasons are put into words, and made."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from hetuflow.protocol import wire
from hetuflow.protocol.model.explain import Reason, ReasonCode

__all__ = ["agent_of", "duration", "join", "moment", "reason", "sentence"]

_UNITS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))


def reason(code: ReasonCode, message: str, **details: Any) -> Reason:
  """Make a reason; details may be models, times and ids."""
  return Reason(code=code, message=message, details=wire.dump(details))


def duration(seconds: float) -> str:
  """Write a length of time in its two greatest units: ``2 h 5 min``."""
  rest = abs(seconds)
  for number, (size, unit) in enumerate(_UNITS):
    if rest < size:
      continue
    smaller, name = (*_UNITS, (1.0, "s"))[number + 1]
    count, rest = divmod(rest, size)
    part = int(rest // smaller)
    return f"{count:.0f} {unit}" + (f" {part} {name}" if part else "")
  return f"{rest:.3g} s" if rest < 10 else f"{rest:.0f} s"


def moment(at: datetime, now: datetime) -> str:
  """Write when something is or was, seen from now: ``in 5 s`` or ``5 s ago``."""
  seconds = (at - now).total_seconds()
  return f"in {duration(seconds)}" if seconds >= 0 else f"{duration(seconds)} ago"


def agent_of(name: str | None, agent_id: object) -> str:
  """Name an agent, by its id where it is forgotten."""
  return f"agent {name or agent_id}"


def join(words: Sequence[str]) -> str:
  """List words as a sentence does."""
  if len(words) < 2:
    return "".join(words)
  return f"{', '.join(words[:-1])} and {words[-1]}"


def sentence(message: str) -> str:
  """Make a message a sentence of its own."""
  return f"{message[:1].upper()}{message[1:]}."
