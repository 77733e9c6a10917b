"""``/openapi.json`` (OpenAPI 3.1) and ``/docs``, both made of what the handlers say.

msgspec makes the schemas of the very classes that bodies are decoded into; what a handler
takes and gives stands on its ``operation``, and its words are its docstring.
Format: https://spec.openapis.org/oas/v3.1.1
"""

import inspect
import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import attrs
import msgspec
from quart import Blueprint, Quart, Response, current_app
from werkzeug.routing import Rule

from hetuflow.server.api.docs import render_docs
from hetuflow.server.api.exchange import DEFAULT_LIMIT, MAX_LIMIT, answer
from hetuflow.server.api.once import HEADER, MAX_KEY
from hetuflow.server.api.operation import OPERATIONS, Operation
from hetuflow.server.api.problems import PROBLEM_JSON, Problem
from hetuflow.server.api.services import services

__all__ = ["blueprint", "describe"]

blueprint = Blueprint("openapi", __name__)

JSON = "application/json"
REFERENCE = "#/components/schemas/{name}"
_ARGUMENT = re.compile(r"<(?:(\w+):)?(\w+)>")
_SKIPPED_METHODS = {"HEAD", "OPTIONS"}


@blueprint.get("/openapi.json")
async def get_document() -> Response:
  """Answer with the OpenAPI document."""
  return answer(describe(current_app, services().version))


@blueprint.get("/docs")
async def get_pages() -> Response:
  """Answer with the document as a page."""
  text = render_docs(describe(current_app, services().version))
  return Response(text, content_type="text/html; charset=utf-8")


def describe(app: Quart, version: str) -> dict[str, Any]:
  """Make the OpenAPI document of an application.

  Args:
    app: with the blueprints of the API.
    version: of this program.
  """
  rules = sorted(_rules(app), key=lambda found: found[0].rule)
  schemas = _Schemas([described for _, _, described in rules])
  paths: dict[str, dict[str, Any]] = {}
  for rule, handler, described in rules:
    path = _ARGUMENT.sub(r"{\2}", rule.rule)
    for method in sorted((rule.methods or set()) - _SKIPPED_METHODS):
      content = _operation(rule, handler, described, schemas)
      paths.setdefault(path, {})[method.lower()] = content
  return {
    "openapi": "3.1.1",
    "info": {
      "title": "hetuflow",
      "version": version,
      "description": "A distributed job scheduler on PostgreSQL: cron for a fleet.",
    },
    "security": [{"apiKey": []}],
    "paths": paths,
    "components": {
      "schemas": schemas.components,
      "securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer"}},
    },
  }


def _rules(app: Quart) -> Iterator[tuple[Rule, Any, Operation]]:
  """Find the rules whose handlers say what they do."""
  for rule in app.url_map.iter_rules():
    handler = app.view_functions[rule.endpoint]
    if handler in OPERATIONS:
      yield rule, handler, OPERATIONS[handler]


class _Schemas:
  """The JSON schemas of every class that is mentioned."""

  def __init__(self, described: list[Operation]) -> None:
    classes = [Problem]
    for each in described:
      classes += [cls for cls in (each.answer, each.body, each.filter) if cls]
    unique = list({repr(cls): cls for cls in classes}.values())
    schemas, components = msgspec.json.schema_components(unique, ref_template=REFERENCE)
    self.components: dict[str, Any] = components
    for schema in components.values():
      if "description" in schema:
        schema["description"] = inspect.cleandoc(schema["description"])
    self._of = {repr(cls): schema for cls, schema in zip(unique, schemas, strict=True)}

  def of(self, cls: Any) -> dict[str, Any]:
    """Return the schema of a class, or the reference to it."""
    return self._of[repr(cls)]

  def page_of(self, cls: Any) -> dict[str, Any]:
    """Return the schema of a page of a class."""
    cursor = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    return {
      "type": "object",
      "properties": {
        "items": {"type": "array", "items": self.of(cls)},
        "next_cursor": cursor,
      },
      "required": ["items", "next_cursor"],
    }


def _operation(
  rule: Rule, handler: Any, described: Operation, schemas: _Schemas
) -> dict[str, Any]:
  """Describe one method of one path."""
  summary, _, rest = (inspect.getdoc(handler) or "").partition("\n\n")
  content: dict[str, Any] = {
    "operationId": handler.__name__,
    "summary": summary,
    "tags": [rule.endpoint.partition(".")[0]],
    "parameters": list(_parameters(rule, described, schemas)),
    "responses": _responses(described, schemas),
  }
  if rest:
    content["description"] = rest
  if described.body is not None:
    media = {JSON: {"schema": schemas.of(described.body)}}
    content["requestBody"] = {"required": True, "content": media}
  if described.open:
    content["security"] = []
  return content


def _parameters(
  rule: Rule, described: Operation, schemas: _Schemas
) -> Iterator[dict[str, Any]]:
  """Describe what stands in the path, the query and the headers."""
  for converter, name in _ARGUMENT.findall(rule.rule):
    schema = {"type": "string"} | ({"format": "uuid"} if converter == "uuid" else {})
    yield {"name": name, "in": "path", "required": True, "schema": schema}
  query = dict(described.query)
  if described.filter is not None:
    query |= {
      field.name: _property(described.filter, field.name, schemas)
      for field in attrs.fields(described.filter)
    }
    query["limit"] = {
      "type": "integer",
      "minimum": 1,
      "maximum": MAX_LIMIT,
      "default": DEFAULT_LIMIT,
    }
    query["cursor"] = {"type": "string"}
  for name, schema in query.items():
    yield {"name": name, "in": "query", "required": False, "schema": schema}
  if described.once:
    text = {"type": "string", "minLength": 1, "maxLength": MAX_KEY}
    yield {"name": HEADER, "in": "header", "required": False, "schema": text}


def _property(cls: Any, name: str, schemas: _Schemas) -> dict[str, Any]:
  """Return the schema of a filter's field, without the null that no query can hold."""
  schema = schemas.components[cls.__name__]["properties"][name]
  choices = [each for each in schema.get("anyOf", []) if each.get("type") != "null"]
  return dict(choices[0]) if len(choices) == 1 else schema


def _responses(described: Operation, schemas: _Schemas) -> dict[str, Any]:
  """Describe the good answer, and that all others are problems."""
  good: dict[str, Any] = {"description": HTTPStatus(described.status).phrase}
  if described.answer is not None:
    of = schemas.page_of if described.filter is not None else schemas.of
    good["content"] = {
      media: {"schema": of(described.answer) if media == JSON else {"type": "string"}}
      for media in described.media_types
    }
  problem = {"description": "A problem (RFC 9457)"}
  media = {PROBLEM_JSON: {"schema": schemas.of(Problem)}}
  return {str(described.status): good, "default": {**problem, "content": media}}
