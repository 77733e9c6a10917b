"""``/api-keys``. Secrets are shown once; names are unique, so nothing is made twice."""

from uuid import UUID

import attrs
from quart import Blueprint, Response

from hetuflow.protocol.model import Instant
from hetuflow.server.api.exchange import (
  created,
  no_content,
  page,
  read_body,
  read_query,
)
from hetuflow.server.api.operation import NoFilter, operation
from hetuflow.server.api.services import services
from hetuflow.storage import access

__all__ = ["blueprint"]

blueprint = Blueprint("api-keys", __name__)


@attrs.frozen(kw_only=True)
class FreshApiKey:
  """A new API key with its secret, which cannot be read again."""

  id: UUID
  name: str
  created_at: Instant
  key: str


@blueprint.get("")
@operation(access.ApiKey, filter=NoFilter)
async def list_keys() -> Response:
  """List API keys, newest first, without their secrets."""
  paging = read_query(NoFilter)
  found = await access.query_api_keys(
    services().database, limit=paging.limit + 1, cursor=paging.after
  )
  return page(found, paging.limit)


@blueprint.post("")
@operation(FreshApiKey, status=201, body=access.ApiKeyForCreate)
async def create_key() -> Response:
  """Make an API key; its secret is in this answer and nowhere else."""
  wish = await read_body(access.ApiKeyForCreate)
  made, secret = await access.create_api_key(services().database, wish.name)
  fresh = FreshApiKey(
    id=made.id, name=made.name, created_at=made.created_at, key=secret
  )
  return created(fresh, f"api-keys/{made.id}")


@blueprint.delete("/<uuid:key_id>")
@operation(status=204)
async def delete_key(key_id: UUID) -> Response:
  """Revoke an API key, and end what it follows; other servers do within 10 s."""
  await access.delete_api_key(services().database, key_id)
  return no_content()
