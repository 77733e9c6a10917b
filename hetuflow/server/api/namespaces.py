"""``/namespaces``."""

from quart import Blueprint, Response

from hetuflow.protocol.model import (
  Namespace,
  NamespaceFilter,
  NamespaceForCreate,
  NamespaceForUpdate,
)
from hetuflow.server.api.exchange import (
  answer,
  created,
  no_content,
  page,
  read_body,
  read_query,
)
from hetuflow.server.api.once import create_once
from hetuflow.server.api.operation import operation
from hetuflow.server.api.services import services
from hetuflow.storage import namespaces

__all__ = ["blueprint"]

blueprint = Blueprint("namespaces", __name__)


@blueprint.get("")
@operation(Namespace, filter=NamespaceFilter)
async def list_namespaces() -> Response:
  """List namespaces by name."""
  paging = read_query(NamespaceFilter)
  found = await namespaces.query_namespaces(
    services().database, paging.filter, limit=paging.limit + 1, cursor=paging.cursor
  )
  return page(found, paging.limit)


@blueprint.post("")
@operation(Namespace, status=201, body=NamespaceForCreate, once=True)
async def create_namespace() -> Response:
  """Make a namespace."""
  wish = await read_body(NamespaceForCreate)
  made = await create_once(lambda executor: namespaces.create_namespace(executor, wish))
  return created(made, f"namespaces/{made['id']}")


@blueprint.get("/<namespace_id>")
@operation(Namespace)
async def get_namespace(namespace_id: str) -> Response:
  """Read a namespace."""
  return answer(await namespaces.get_namespace(services().database, namespace_id))


@blueprint.patch("/<namespace_id>")
@operation(Namespace, body=NamespaceForUpdate)
async def update_namespace(namespace_id: str) -> Response:
  """Change a namespace; what is left out stays."""
  update = await read_body(NamespaceForUpdate)
  database = services().database
  return answer(await namespaces.update_namespace(database, namespace_id, update))


@blueprint.delete("/<namespace_id>")
@operation(status=204)
async def delete_namespace(namespace_id: str) -> Response:
  """Remove a namespace without jobs and unfinished tasks."""
  await namespaces.delete_namespace(services().database, namespace_id)
  return no_content()
