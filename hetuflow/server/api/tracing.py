"""The trace of a request, and its one log line."""

import re
import secrets
from time import monotonic

import structlog
from quart import (
  Request,
  Response,
  Websocket,
  g,
  has_request_context,
  request,
  websocket,
)
from quart_trio import QuartTrio

from hetuflow.redact import redact_text

__all__ = ["asked", "install_tracing"]

# W3C Trace Context, https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_NO_TRACE = "0" * 32
_READS = ("GET", "HEAD", "OPTIONS")

_log = structlog.get_logger()


def install_tracing(app: QuartTrio) -> None:
  """Give every request a ``g.trace_id`` and a line in the log.

  A WebSocket has a line where it is refused; of its session the gateway tells.
  """
  app.before_request(_begin)
  app.after_request(_finish)
  app.before_websocket(_begin)
  app.after_websocket(_finish_websocket)  # type: ignore[type-var]  # None is what it is called with


def asked() -> Request | Websocket:
  """Return what is asked now, be it a request or the upgrade to a WebSocket."""
  return request if has_request_context() else websocket


async def _begin() -> None:
  """Take over the caller's trace, or begin one."""
  g.started = monotonic()
  match = _TRACEPARENT.fullmatch(asked().headers.get("traceparent", ""))
  known = match is not None and match[1] != _NO_TRACE
  g.trace_id = match[1] if match is not None and known else secrets.token_hex(16)


async def _finish(response: Response) -> Response:
  """Log what was asked and answered; reads that went well only when debugging."""
  response.headers["X-Trace-Id"] = g.trace_id
  request = asked()
  quiet = request.method in _READS and response.status_code < 400
  log = _log.debug if quiet else _log.info
  query = request.query_string.decode("ascii", "replace")
  principal = g.get("principal")
  log(
    "http_request",
    method=request.method,
    path=request.path,
    query=redact_text(query),
    status=response.status_code,
    duration_ms=round((monotonic() - g.started) * 1000, 1),
    principal=None if principal is None else principal.name,
    trace_id=g.trace_id,
  )
  return response


async def _finish_websocket(response: Response | None) -> Response | None:
  """Log a refusal; there is no answer to a WebSocket that was served."""
  return None if response is None else await _finish(response)
