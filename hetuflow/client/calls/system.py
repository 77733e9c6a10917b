"""Namespaces, agents and servers, and how the system fares."""

from typing import Any
from uuid import UUID

from hetuflow.client.call import Call, Page, delete, get, listing, patch, post
from hetuflow.protocol.model import (
  Agent,
  Namespace,
  NamespaceForCreate,
  NamespaceForUpdate,
  Server,
)

__all__ = [
  "create_namespace",
  "delete_namespace",
  "get_agent",
  "get_health",
  "get_info",
  "get_metrics",
  "get_namespace",
  "get_tree",
  "list_agents",
  "list_namespaces",
  "list_servers",
  "update_namespace",
]


def list_namespaces(*, limit: int | None = None) -> Call[Page[Namespace]]:
  """Describe the list of namespaces."""
  return listing(Namespace, "namespaces", query={"limit": limit})


def get_namespace(namespace_id: str) -> Call[Namespace]:
  """Describe the reading of one namespace."""
  return get(Namespace, "namespaces", namespace_id)


def create_namespace(namespace: NamespaceForCreate | dict[str, Any]) -> Call[Namespace]:
  """Describe the making of a namespace."""
  return post(Namespace, "namespaces", body=namespace)


def update_namespace(
  namespace_id: str, change: NamespaceForUpdate | dict[str, Any]
) -> Call[Namespace]:
  """Describe a change of a namespace."""
  return patch(Namespace, "namespaces", namespace_id, body=change)


def delete_namespace(namespace_id: str) -> Call[None]:
  """Describe the end of a namespace without jobs."""
  return delete("namespaces", namespace_id)


def list_agents(
  *,
  namespace_id: str | None = None,
  name: str | None = None,
  status: str | None = None,
  limit: int | None = None,
) -> Call[Page[Agent]]:
  """Describe the list of agents, filtered by what is given."""
  query = {
    "namespace_id": namespace_id,
    "name": name,
    "status": status,
    "limit": limit,
  }
  return listing(Agent, "agents", query=query)


def get_agent(agent_id: UUID) -> Call[Agent]:
  """Describe the reading of one agent."""
  return get(Agent, "agents", agent_id)


def list_servers(*, limit: int | None = None) -> Call[Page[Server]]:
  """Describe the list of servers."""
  return listing(Server, "servers", query={"limit": limit})


def get_health() -> Call[dict[str, Any]]:
  """Describe the question whether the server and its database are well."""
  return get(dict, "system", "health")


def get_info() -> Call[dict[str, Any]]:
  """Describe the reading of what the server is."""
  return get(dict, "system", "info")


def get_metrics() -> Call[dict[str, Any]]:
  """Describe the reading of what the server's loops have done."""
  return get(dict, "system", "metrics")


def get_tree() -> Call[dict[str, Any]]:
  """Describe the reading of the server's supervision tree with its states."""
  return get(dict, "system", "tree")
