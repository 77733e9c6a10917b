"""``/system``: how this server is."""

import platform
from typing import Any

import attrs
from quart import Blueprint, Response

from hetuflow.protocol.model import ServerId
from hetuflow.server.api.exchange import answer
from hetuflow.server.api.operation import operation
from hetuflow.server.api.services import services
from hetuflow.storage.servers import DatabaseState, ping

__all__ = ["blueprint"]

blueprint = Blueprint("system", __name__)

OK = "ok"
UNAVAILABLE = "unavailable"
DRAINING = "draining"


@attrs.frozen(kw_only=True)
class Health:
  """Whether the server can serve; ``status`` is ok, draining or unavailable."""

  status: str
  database: str
  version: str
  server_id: ServerId


@attrs.frozen(kw_only=True)
class Liveness:
  """That the process answers."""

  status: str = OK


@attrs.frozen(kw_only=True)
class Info:
  """What this server is."""

  name: str = "hetuflow"
  version: str
  server_id: ServerId
  python: str
  database: DatabaseState


@blueprint.get("/health")
@operation(Health, open=True)
async def get_health() -> Response:
  """Tell whether the server and its database are well; 503 when not."""
  return await _health()


@blueprint.get("/health/ready")
@operation(Health, open=True)
async def get_readiness() -> Response:
  """Tell whether to send requests here; 503 when not."""
  return await _health()


@blueprint.get("/health/live")
@operation(Liveness, open=True)
async def get_liveness() -> Response:
  """Tell that the process answers, whatever the database does."""
  return answer(Liveness())


async def _health() -> Response:
  """Ask whether the database answers and look whether the server drains."""
  context = services()
  well = await context.pulse.is_well()
  status = OK if well else UNAVAILABLE
  if well and context.draining.is_set():
    status = DRAINING
  health = Health(
    status=status,
    database=OK if well else UNAVAILABLE,
    version=context.version,
    server_id=context.server_id,
  )
  return answer(health, 200 if status == OK else 503)


@blueprint.get("/info")
@operation(Info)
async def get_info() -> Response:
  """Read versions and the database's time."""
  context = services()
  info = Info(
    version=context.version,
    server_id=context.server_id,
    python=platform.python_version(),
    database=await ping(context.database),
  )
  return answer(info)


@blueprint.get("/metrics")
@operation(dict[str, Any])
async def get_metrics() -> Response:
  """Read what the loops of this server have done since it started, loop by loop."""
  return answer(services().figures())


@blueprint.get("/tree")
@operation(dict[str, Any])
async def get_tree() -> Response:
  """Read the supervision tree with the state of each child."""
  return answer(services().tree())
