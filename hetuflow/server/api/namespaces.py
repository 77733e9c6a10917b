"""``/namespaces``."""

from quart import Blueprint, Response

from hetuflow.errors import NotFound
from hetuflow.protocol.model import (
  Namespace,
  NamespaceFilter,
  NamespaceForCreate,
  NamespaceForUpdate,
)
from hetuflow.server.api.exchange import (
  answer,
  created,
  is_slug,
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
    services().database, paging.filter, limit=paging.limit + 1, cursor=paging.after_name
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
  database = services().database
  return answer(await namespaces.get_namespace(database, _slug(namespace_id)))


@blueprint.patch("/<namespace_id>")
@operation(Namespace, body=NamespaceForUpdate)
async def update_namespace(namespace_id: str) -> Response:
  """Change a namespace; what is left out stays."""
  update = await read_body(NamespaceForUpdate)
  database = services().database
  return answer(
    await namespaces.update_namespace(database, _slug(namespace_id), update)
  )


@blueprint.delete("/<namespace_id>")
@operation(status=204)
async def delete_namespace(namespace_id: str) -> Response:
  """Remove a namespace without jobs and unfinished tasks."""
  await namespaces.delete_namespace(services().database, _slug(namespace_id))
  return no_content()


def _slug(namespace_id: str) -> str:
  """Refuse what no namespace is called, before the database is asked."""
  if not is_slug(namespace_id):
    raise NotFound(f"there is no namespace {namespace_id!r}")
  return namespace_id
