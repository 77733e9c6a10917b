"""Who may come in: how many requests are under way, and whether more are taken.

Run by: Hypercorn, in a task per request. Owns the count of the requests under way. A
request whose caller goes away leaves as one that is answered does.
"""

from http import HTTPStatus
from typing import Any

import trio

from hetuflow.server.api.auth import is_health
from hetuflow.server.api.problems import RETRY_AFTER
from hetuflow.server.gateway.asgi import Application, refuse

__all__ = ["Turnstile"]


class Turnstile:
  """Lets a bounded number of requests in at a time, until it is closed.

  Questions after the server's health always pass: who asks them decides by the answer
  whether to send requests here.

  Args:
    limit: requests under way at the same time.
  """

  def __init__(self, limit: int) -> None:
    self._limit = limit
    self._empty = trio.Event()
    self.under_way = 0
    self.closed = False

  def close(self) -> None:
    """Let nobody in any more."""
    self.closed = True

  async def wait_empty(self) -> None:
    """Wait until every request that was let in has its answer."""
    while self.under_way:
      await self._empty.wait()

  def guard(self, app: Application) -> Application:
    """Count the requests of an application and refuse those that may not come in.

    Args:
      app: an ASGI application.
    """

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
      """Serve a request or connection, or refuse it."""
      if scope["type"] != "http" or is_health(scope["path"]):
        await app(scope, receive, send)
      elif (reason := self._reason()) is not None:
        status = HTTPStatus.SERVICE_UNAVAILABLE
        await refuse(scope, send, status, reason, headers=RETRY_AFTER)
      else:
        await self._serve(app, scope, receive, send)

    return guarded

  def _reason(self) -> str | None:
    """Say why nobody may come in now."""
    if self.closed:
      return "the server is going away"
    if self.under_way >= self._limit:
      return "too many requests are under way; try again"
    return None

  async def _serve(self, app: Application, scope: Any, receive: Any, send: Any) -> None:
    """Serve a request and count it meanwhile."""
    if not self.under_way:
      self._empty = trio.Event()
    self.under_way += 1
    try:
      await app(scope, receive, send)
    finally:
      self.under_way -= 1
      if not self.under_way:
        self._empty.set()
