"""``/agent-tokens``. Secrets are shown once; names are unique, so nothing is made twice."""

from uuid import UUID

import attrs
from quart import Blueprint, Response

from hetuflow.protocol.model import Instant, NamespaceId
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

blueprint = Blueprint("agent-tokens", __name__)


@attrs.frozen(kw_only=True)
class FreshAgentToken:
  """A new agent token with its secret, which cannot be read again."""

  id: UUID
  name: str
  namespace_ids: list[NamespaceId]
  created_at: Instant
  token: str


@blueprint.get("")
@operation(access.AgentToken, filter=NoFilter)
async def list_tokens() -> Response:
  """List agent tokens, newest first, without their secrets."""
  paging = read_query(NoFilter)
  found = await access.query_agent_tokens(
    services().database, limit=paging.limit + 1, cursor=paging.after
  )
  return page(found, paging.limit)


@blueprint.post("")
@operation(FreshAgentToken, status=201, body=access.AgentTokenForCreate)
async def create_token() -> Response:
  """Make a token for agents; its secret is in this answer and nowhere else."""
  wish = await read_body(access.AgentTokenForCreate)
  made, secret = await access.create_agent_token(
    services().database, wish.name, wish.namespace_ids
  )
  fresh = FreshAgentToken(
    id=made.id,
    name=made.name,
    namespace_ids=made.namespace_ids,
    created_at=made.created_at,
    token=secret,
  )
  return created(fresh, f"agent-tokens/{made.id}")


@blueprint.delete("/<uuid:token_id>")
@operation(status=204)
async def delete_token(token_id: UUID) -> Response:
  """Revoke an agent token; open sessions end with their next heartbeat."""
  await access.delete_agent_token(services().database, token_id)
  return no_content()
