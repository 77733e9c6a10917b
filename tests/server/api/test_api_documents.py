"""The OpenAPI document and its page, and what browsers ask."""

import re
from typing import Any

import pytest
from support.api import Api

from hetuflow.server.api.operation import OPERATIONS

ORIGIN = "https://console.example"


async def test_every_route_is_described(api: Api) -> None:
  document = (await api.get("/openapi.json", headers={"Authorization": ""})).body
  assert document["openapi"].startswith("3.1")
  described = {
    (path, method) for path, methods in document["paths"].items() for method in methods
  }
  served = {
    (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
    for rule in api.app.url_map.iter_rules()
    for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    if rule.rule.startswith("/api/v1/")
  }
  assert described == served
  names = [
    content["operationId"]
    for methods in document["paths"].values()
    for content in methods.values()
  ]
  assert len(set(names)) == len(names)
  for handler in OPERATIONS:
    assert handler.__doc__


def references(node: Any) -> set[str]:
  """Collect every reference below a node."""
  if isinstance(node, dict):
    below = set().union(*(references(value) for value in node.values()))
    return below | ({node["$ref"]} if isinstance(node.get("$ref"), str) else set())
  if isinstance(node, list):
    return set().union(*(references(value) for value in node))
  return set()


async def test_the_document_is_whole(api: Api) -> None:
  document = (await api.get("/openapi.json")).body
  schemas = document["components"]["schemas"]
  names = {name.rpartition("/")[2] for name in references(document)}
  assert names <= set(schemas)
  create = document["paths"]["/api/v1/jobs"]["post"]
  assert create["requestBody"]["content"]["application/json"]["schema"] == {
    "$ref": "#/components/schemas/JobForCreate"
  }
  assert "Idempotency-Key" in [p["name"] for p in create["parameters"]]
  listing = document["paths"]["/api/v1/jobs"]["get"]
  assert {p["name"] for p in listing["parameters"]} == {
    "namespace_id",
    "name",
    "status",
    "limit",
    "cursor",
  }
  assert document["paths"]["/api/v1/system/health"]["get"]["security"] == []


async def test_the_page_needs_nothing_from_elsewhere(api: Api) -> None:
  reply = await api.get("/docs", headers={"Authorization": ""})
  assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
  assert b"/api/v1/jobs/{job_id}/run" in reply.raw
  assert not re.search(rb"(src|href)=['\"]?(https?:)?//", reply.raw)


async def test_head_and_options_are_answered(api: Api) -> None:
  assert (await api.call("HEAD", "jobs")).status == 200
  options = await api.call("OPTIONS", "jobs", headers={"Authorization": ""})
  assert options.status == 200
  assert "POST" in options.headers["Allow"]
  assert "Access-Control-Allow-Origin" not in options.headers


@pytest.fixture
def settings() -> dict[str, Any]:
  return {"cors_origins": (ORIGIN,)}


async def test_pages_of_known_origins_may_call(api: Api) -> None:
  preflight = await api.call(
    "OPTIONS", "jobs", headers={"Origin": ORIGIN, "Authorization": ""}
  )
  assert preflight.headers["Access-Control-Allow-Origin"] == ORIGIN
  assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
  assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
  answered = await api.get("nothing", headers={"Origin": ORIGIN})
  assert (answered.status, answered.headers["Access-Control-Allow-Origin"]) == (
    404,
    ORIGIN,
  )
  foreign = await api.get("jobs", headers={"Origin": "https://elsewhere.example"})
  assert "Access-Control-Allow-Origin" not in foreign.headers
  assert foreign.headers["Vary"] == "Origin"
