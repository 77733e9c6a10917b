"""The plans of statements, node by node."""

from collections.abc import Iterator
from typing import Any

import msgspec
from support.world import query

from hetuflow.storage.connect import Connection
from hetuflow.storage.sql import Query


def nodes(plan: Any) -> Iterator[dict[str, Any]]:
  """Walk over a plan."""
  yield plan
  for child in plan.get("Plans", []):
    yield from nodes(child)


async def explain(
  connection: Connection, statement: Query, options: str, values: dict[str, Any]
) -> list[dict[str, Any]]:
  """Return the nodes of the plan that a statement gets for these values."""
  wrapped = Query(
    name="explain",
    text=f"EXPLAIN ({options}, FORMAT JSON) {statement.text}",
    parameters=statement.parameters,
  )
  return list(nodes(read(await connection.fetchval(wrapped, **values))))


async def explain_generic(
  connection: Connection, statement: Query
) -> list[dict[str, Any]]:
  """Return the nodes of the plan that is kept for a prepared statement."""
  nothing = ", ".join(["NULL"] * len(statement.parameters))
  await connection.execute_script(
    f"SET LOCAL plan_cache_mode = force_generic_plan; PREPARE kept AS {statement.text}"
  )
  rows = await connection.fetchval(
    query(f"EXPLAIN (FORMAT JSON) EXECUTE kept({nothing})")
  )
  await connection.execute_script("DEALLOCATE kept")
  return list(nodes(read(rows)))


def read(answer: Any) -> Any:
  """Take the plan out of the answer."""
  return msgspec.json.decode(answer)[0]["Plan"]


def scans(plan: list[dict[str, Any]]) -> set[tuple[str, str]]:
  """List which tables are read by which index, or how else."""
  return {
    (node["Relation Name"], node.get("Index Name", node["Node Type"]))
    for node in plan
    if "Relation Name" in node and "Scan" in node["Node Type"]
  }
