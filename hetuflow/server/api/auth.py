"""Who calls: every path of the API but health needs an API key."""

from quart import g, request
from quart_trio import QuartTrio

from hetuflow.server.api.problems import Unauthorized
from hetuflow.server.api.services import services
from hetuflow.storage.access import authenticate_key

__all__ = ["install_auth"]

PROTECTED = "/api/v1/"
OPEN = "/api/v1/system/health"
SCHEME = "bearer"


def install_auth(app: QuartTrio) -> None:
  """Let nobody past without a key."""
  app.before_request(_authenticate)


async def _authenticate() -> None:
  """Find the caller of this request, as ``g.principal``."""
  path = request.path
  is_open = path == OPEN or path.startswith(f"{OPEN}/")
  # A browser asks (OPTIONS) before it sends the key.
  if is_open or request.method == "OPTIONS" or not path.startswith(PROTECTED):
    return
  scheme, _, key = request.headers.get("Authorization", "").partition(" ")
  if scheme.lower() != SCHEME or not key:
    raise Unauthorized("an API key is needed: Authorization: Bearer <key>")
  principal = await authenticate_key(services().database, key.strip())
  if principal is None:
    raise Unauthorized("this API key is not known here")
  g.principal = principal
