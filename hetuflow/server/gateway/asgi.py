"""What stands between Hypercorn and the application.

Run by: Hypercorn, in a task per request. Owns nothing.
"""

import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

import structlog
import trio

from hetuflow.protocol import wire
from hetuflow.server.api.problems import PROBLEM_JSON, Problem

__all__ = [
  "Application",
  "finish_answers",
  "make_problem",
  "refuse",
  "refuse_malformed",
]

Application = Callable[..., Awaitable[None]]
CLOSE_TIMEOUT = 10.0
"""Seconds the end of an answer and of its connection may take."""
# Host of RFC 9110, section 7.2, with the bounds of DNS for its labels.
_HOST = re.compile(rb"(\[[0-9a-fA-F:.]*\]|[\w-]{1,63}(\.[\w-]{1,63})*\.?|)(:[0-9]*)?")

_log = structlog.get_logger()


def finish_answers(app: Application) -> Application:
  """Let the end of an answer close its connection though a body is still coming.

  Quart cancels the request when it hears of the disconnect that Hypercorn puts in line
  while it sends the last of an answer. If the caller was still sending (a body that is
  too large, or a request without a key), that stopped Hypercorn halfway: the connection
  was neither read nor closed ever again.

  Args:
    app: an ASGI application.
  """

  async def finishing(scope: Any, receive: Any, send: Any) -> None:
    """Serve a request or connection."""

    async def send_whole(message: Any) -> None:
      """Send a message; the last one of an answer is not interrupted."""
      if message["type"] != "http.response.body" or message.get("more_body", False):
        await send(message)
        return
      with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
        await send(message)

    await app(scope, receive, send_whole)

  return finishing


def refuse_malformed(app: Application) -> Application:
  """Answer 400 to what the application would stumble over before it can answer itself.

  Args:
    app: an ASGI application.
  """

  async def refusing(scope: Any, receive: Any, send: Any) -> None:
    """Serve a request or connection, or refuse it."""
    mistake = None if scope["type"] == "lifespan" else _mistake(scope)
    if mistake is None:
      await app(scope, receive, send)
    else:
      await refuse(scope, send, HTTPStatus.BAD_REQUEST, mistake)

  return refusing


def _mistake(scope: Any) -> str | None:
  """Find what is wrong with a request as a whole."""
  headers = dict(scope["headers"])
  if not scope["path"]:
    return "expected a path"
  if not _HOST.fullmatch(headers.get(b"host", b"")):
    return "expected a host name in the header Host"
  # A proxy that believes the other one would see other requests than we do.
  if b"content-length" in headers and b"transfer-encoding" in headers:
    return "expected either Content-Length or Transfer-Encoding"
  return None


async def refuse(
  scope: Any,
  send: Any,
  status: HTTPStatus,
  reason: str,
  *,
  headers: Mapping[str, str] | None = None,
) -> None:
  """Say why a request is not served, and let its connection end.

  Args:
    scope: of the request.
    send: sends the answer.
    status: of the answer.
    reason: what the caller can do something about.
    headers: more of the answer.
  """
  fields, body = make_problem(status, reason)
  fields += [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
  of = "websocket.http" if scope["type"] == "websocket" else "http"
  start = {"type": f"{of}.response.start", "status": int(status), "headers": fields}
  await send(start)
  await send({"type": f"{of}.response.body", "body": body})


def make_problem(
  status: HTTPStatus, reason: str
) -> tuple[list[tuple[bytes, bytes]], bytes]:
  """Make the answer to a request that does not reach the application, and its log line.

  Args:
    status: of the answer.
    reason: what the caller can do something about.

  Returns:
    Its headers and its body.
  """
  trace_id = secrets.token_hex(16)
  _log.info("request_refused", status=int(status), reason=reason, trace_id=trace_id)
  problem = Problem(
    title=status.phrase, status=status, detail=reason, errors=[], trace_id=trace_id
  )
  body = wire.encode(problem)
  headers = [
    (b"content-type", PROBLEM_JSON.encode()),
    (b"content-length", b"%d" % len(body)),
    (b"connection", b"close"),
  ]
  return headers, body
