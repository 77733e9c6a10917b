"""The OpenAPI document as one page that needs nothing from elsewhere."""

import json
from html import escape
from itertools import groupby
from typing import Any

__all__ = ["render_docs"]

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto;
  padding: 1rem; color: #222; background: #fff }
code, pre { font: 14px/1.5 ui-monospace, monospace }
pre { overflow-x: auto; background: #f5f5f5; padding: .5rem; white-space: pre-wrap }
details { border-top: 1px solid #ddd; padding: .4rem 0 }
summary { cursor: pointer }
.method { display: inline-block; min-width: 4.5rem; font-weight: bold }
table { border-collapse: collapse } td { padding: .1rem 1rem .1rem 0; vertical-align: top }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #181818 } pre { background: #242424 }
  details { border-color: #444 } a { color: #8bf } }
"""


def render_docs(document: dict[str, Any]) -> str:
  """Write the page.

  Args:
    document: the OpenAPI document.
  """
  info = document["info"]
  operations = [
    (content["tags"][0], path, method, content)
    for path, methods in document["paths"].items()
    for method, content in methods.items()
  ]
  operations.sort(key=lambda entry: entry[0])
  groups = groupby(operations, key=lambda entry: entry[0])
  title = escape(f"{info['title']} {info['version']}")
  return "".join(
    [
      "<!doctype html><html lang=en><meta charset=utf-8>",
      "<meta name=viewport content='width=device-width'>",
      f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>",
      f"<p>{escape(info['description'])} The same as data: ",
      "<a href=/openapi.json>/openapi.json</a>.</p>",
      *(_group(tag, list(entries)) for tag, entries in groups),
      "<h2>Schemas</h2>",
      *(
        _schema(name, schema)
        for name, schema in sorted(document["components"]["schemas"].items())
      ),
      "</html>",
    ]
  )


def _group(tag: str, entries: list[tuple[str, str, str, dict[str, Any]]]) -> str:
  """Write the operations of one resource."""
  return f"<h2>{escape(tag)}</h2>" + "".join(
    _operation(path, method, content) for _, path, method, content in entries
  )


def _operation(path: str, method: str, content: dict[str, Any]) -> str:
  """Write one operation."""
  head = (
    f"<span class=method>{escape(method.upper())}</span> <code>{escape(path)}</code>"
    f" — {escape(content['summary'])}"
  )
  parts = [f"<p>{escape(content.get('description', ''))}</p>"]
  if content["parameters"]:
    parts.append(f"<table>{''.join(map(_parameter, content['parameters']))}</table>")
  if "requestBody" in content:
    parts.append(f"<p>Body: {_media(content['requestBody']['content'])}</p>")
  for status, response in content["responses"].items():
    answers = _media(response.get("content", {}))
    parts.append(
      f"<p>{escape(status)}: {escape(response['description'])} {answers}</p>"
    )
  return f"<details><summary>{head}</summary>{''.join(parts)}</details>"


def _parameter(parameter: dict[str, Any]) -> str:
  """Write one parameter as a row."""
  schema = parameter["schema"]
  shown = _link(schema) if "$ref" in schema else escape(json.dumps(schema))
  name, place = escape(parameter["name"]), escape(parameter["in"])
  return f"<tr><td><code>{name}</code><td>{place}<td>{shown}</tr>"


def _media(content: dict[str, Any]) -> str:
  """Write the media types of a body, each with its schema."""
  return ", ".join(
    f"{escape(media)} {_link(value['schema'])}" for media, value in content.items()
  )


def _link(schema: dict[str, Any]) -> str:
  """Write a schema in a word, as a link where it has a name."""
  if "$ref" in schema:
    name = escape(schema["$ref"].rpartition("/")[2])
    return f"<a href='#{name}'>{name}</a>"
  items = schema.get("properties", {}).get("items", {}).get("items")
  return f"page of {_link(items)}" if items else escape(schema.get("type", ""))


def _schema(name: str, schema: dict[str, Any]) -> str:
  """Write one schema."""
  text = escape(json.dumps(schema, indent=2, ensure_ascii=False))
  return (
    f"<details id='{escape(name)}'><summary>{escape(name)}</summary>"
    f"<pre>{text}</pre></details>"
  )
