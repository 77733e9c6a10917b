"""Cross-origin requests (https://fetch.spec.whatwg.org/#http-cors-protocol)."""

from quart import Response, request
from quart_trio import QuartTrio

from hetuflow.server.api.services import services

__all__ = ["install_cors"]

ANY = "*"
HEADERS = "Authorization, Content-Type, Idempotency-Key, traceparent"
EXPOSED = "Location, Retry-After, X-Trace-Id"
MAX_AGE_SECONDS = "600"


def install_cors(app: QuartTrio) -> None:
  """Let the pages of the configured origins read answers."""
  app.after_request(_allow)


async def _allow(response: Response) -> Response:
  """Say that the page may read this answer, and what it may send."""
  allowed = services().cors_origins
  if not allowed:
    return response
  response.headers.add("Vary", "Origin")
  origin = request.headers.get("Origin")
  if origin is None or not (origin in allowed or ANY in allowed):
    return response
  response.headers["Access-Control-Allow-Origin"] = origin
  response.headers["Access-Control-Expose-Headers"] = EXPOSED
  if request.method == "OPTIONS":
    methods = response.headers.get("Allow", "")
    response.headers["Access-Control-Allow-Methods"] = methods
    response.headers["Access-Control-Allow-Headers"] = HEADERS
    response.headers["Access-Control-Max-Age"] = MAX_AGE_SECONDS
  return response
