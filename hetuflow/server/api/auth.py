"""Who calls: every path of the API but health needs an API key."""

from quart import g, request
from quart_trio import QuartTrio

from hetuflow.server.api.problems import Unauthorized
from hetuflow.server.api.services import services
from hetuflow.storage.access import authenticate_key

__all__ = ["install_auth", "is_health"]

PROTECTED = "/api/v1/"
OPEN = "/api/v1/system/health"
SCHEME = "bearer"


def install_auth(app: QuartTrio) -> None:
  """Let nobody past without a key."""
  app.before_request(_authenticate)


def is_health(path: str) -> bool:
  """Tell whether a path asks after the server's health, which anybody may."""
  return path == OPEN or path.startswith(f"{OPEN}/")


async def _authenticate() -> None:
  """Find the caller of this request, as ``g.principal``, by the key in ``g.key``."""
  path = request.path
  # A browser asks (OPTIONS) before it sends the key.
  if is_health(path) or request.method == "OPTIONS" or not path.startswith(PROTECTED):
    return
  scheme, _, key = request.headers.get("Authorization", "").partition(" ")
  if scheme.lower() != SCHEME or not key:
    raise Unauthorized("an API key is needed: Authorization: Bearer <key>")
  g.key = key.strip()
  g.principal = await authenticate_key(services().database, g.key)
  if g.principal is None:
    raise Unauthorized("this API key is not known here")
