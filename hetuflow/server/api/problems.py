"""Every error as a problem document (RFC 9457, https://www.rfc-editor.org/rfc/rfc9457)."""

from http import HTTPStatus

import attrs
import structlog
from quart import Response, g
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from hetuflow.errors import (
  Conflict,
  NotFound,
  ProtocolError,
  ScheduleError,
  Unavailable,
)
from hetuflow.protocol import wire
from hetuflow.server.api.services import services
from hetuflow.server.api.tracing import asked

__all__ = [
  "PROBLEM_JSON",
  "RETRY_AFTER",
  "Problem",
  "ProblemError",
  "TooBusy",
  "Unauthorized",
  "answer_problem",
  "install_problems",
]

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER = {"Retry-After": "1"}
"""Who is refused for lack of room may come again after so many seconds."""
NOT_JSON = "not JSON"

_log = structlog.get_logger()


@attrs.frozen(kw_only=True)
class ProblemError:
  """One thing that is wrong, and where: ``$.field`` of the body or a query parameter."""

  path: str
  message: str


@attrs.frozen(kw_only=True)
class Problem:
  """What went wrong; ``trace_id`` finds the request in the server's log."""

  type: str = "about:blank"
  title: str
  status: int
  detail: str
  errors: list[ProblemError]
  trace_id: str


class Unauthorized(Exception):
  """The caller has not shown a key that is good here."""


class TooBusy(Exception):
  """There is no room for this now; later there may be."""


def install_problems(app: QuartTrio) -> None:
  """Answer every error of the application with a problem."""
  app.register_error_handler(Exception, _answer_error)


def _answer_error(error: Exception) -> Response:
  """Make the answer for an error; only what the caller can act on is told."""
  match error:
    case ProtocolError():
      return _answer_issues(error)
    case ScheduleError():
      return _answer_issues(ProtocolError([(f"$.{error.field}", str(error))]))
    case NotFound():
      return answer_problem(404, str(error))
    case Conflict():
      return answer_problem(409, str(error))
    case Unauthorized():
      challenge = {"WWW-Authenticate": 'Bearer realm="hetuflow"'}
      return answer_problem(401, str(error), headers=challenge)
    case TooBusy():
      return answer_problem(503, str(error), headers=RETRY_AFTER)
    case Unavailable():
      _log.warning("request_unavailable", trace_id=g.trace_id, reason=str(error))
      return answer_problem(
        503,
        "the database cannot be reached now; try again",
        headers=RETRY_AFTER,
      )
    case RequestEntityTooLarge():
      limit = services().max_body_size
      return answer_problem(413, f"the body may have at most {limit} bytes")
    case HTTPException():
      return _answer_http(error)
    case _:
      _log.error("request_failed", trace_id=g.trace_id, exc_info=error)
      return answer_problem(500, "unexpected; the server's log tells more by trace_id")


def _answer_issues(error: ProtocolError) -> Response:
  """Make the answer for a wrong body: malformed, or well-formed and invalid."""
  errors = [ProblemError(path=path, message=text) for path, text in error.issues]
  malformed = error.issues[0][0] == "$" and error.issues[0][1].startswith(NOT_JSON)
  return answer_problem(400 if malformed else 422, str(error), errors=errors)


def _answer_http(error: HTTPException) -> Response:
  """Make the answer for what the framework refused, its headers (Allow) kept."""
  status = error.code or 500
  headers = {
    name: value
    for name, value in error.get_headers()
    if name.lower() not in ("content-type", "content-length")
  }
  request = asked()
  detail = {
    404: f"there is nothing at {request.path}",
    405: f"{request.method} is not for {request.path}",
  }.get(status, error.description or "")
  return answer_problem(status, detail, headers=headers)


def answer_problem(
  status: int,
  detail: str,
  *,
  errors: list[ProblemError] | None = None,
  headers: dict[str, str] | None = None,
) -> Response:
  """Make a problem document of this request."""
  problem = Problem(
    title=HTTPStatus(status).phrase,
    status=status,
    detail=detail,
    errors=errors or [],
    trace_id=g.trace_id,
  )
  body = wire.encode(problem)
  return Response(body, status, headers or {}, content_type=PROBLEM_JSON)
