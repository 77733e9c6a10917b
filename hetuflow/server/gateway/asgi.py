"""What stands between Hypercorn and the application.

Run by: Hypercorn, in a task per request. Owns nothing.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import trio

__all__ = ["finish_answers"]

Application = Callable[..., Awaitable[None]]
CLOSE_TIMEOUT = 10.0
"""Seconds the end of an answer and of its connection may take."""


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
