"""What can go wrong when the HTTP API is called.

::

  HetuflowError
  ├─ ApiError             the server answered with a problem (RFC 9457)
  └─ ServerUnreachable    no answer came
"""

from collections.abc import Sequence
from http import HTTPStatus

import attrs
import msgspec

from hetuflow.errors import HetuflowError

__all__ = ["ApiError", "ServerUnreachable", "read_problem"]

MAX_DETAIL = 300
"""Characters shown of an answer that is no problem document."""


@attrs.frozen(kw_only=True)
class _Problem:
  """The members of a problem document that are of use here (RFC 9457, section 3.1)."""

  title: str = ""
  detail: str = ""
  errors: list[dict[str, str]] = attrs.field(factory=list)
  trace_id: str | None = None


class ApiError(HetuflowError):
  """The server answered with a problem.

  Args:
    status: the HTTP status, such as 409.
    title: the kind of problem in a few words.
    detail: what is wrong this time.
    errors: ``(path, message)`` for each wrong field of the body.
    trace_id: finds the call in the server's log.
  """

  def __init__(
    self,
    status: int,
    title: str,
    detail: str = "",
    *,
    errors: Sequence[tuple[str, str]] = (),
    trace_id: str | None = None,
  ) -> None:
    self.status = status
    self.title = title
    self.detail = detail
    self.errors = tuple(errors)
    self.trace_id = trace_id
    fields = "; ".join(f"{message} @ {path}" for path, message in self.errors)
    # Where the detail is the list of wrong fields, it is not said twice.
    said = ": ".join(filter(None, (title, "" if detail == fields else detail, fields)))
    super().__init__(f"{said} (HTTP {status})")


class ServerUnreachable(HetuflowError):
  """No answer came: nobody listens there, or the connection broke."""

  def __init__(self, url: str, reason: str) -> None:
    self.url = url
    self.reason = reason
    super().__init__(
      f"no answer from {url} ({reason}); is the server running? `hetuflow up` starts one"
    )


def read_problem(status: int, body: bytes) -> ApiError:
  """Make an error of an answer with a status of 400 or more.

  A proxy on the way may answer with anything; then the start of its text is told.
  """
  try:
    problem = msgspec.json.decode(body, type=_Problem)
    errors = [
      (each.get("path", "$"), each.get("message", "")) for each in problem.errors
    ]
  except (msgspec.DecodeError, UnicodeDecodeError):
    text = body.decode("utf-8", "replace").strip()[:MAX_DETAIL]
    return ApiError(status, _phrase(status), text)
  return ApiError(
    status,
    problem.title or _phrase(status),
    problem.detail,
    errors=errors,
    trace_id=problem.trace_id,
  )


def _phrase(status: int) -> str:
  """Return the usual words for a status."""
  try:
    return HTTPStatus(status).phrase
  except ValueError:
    return "Unknown status"
