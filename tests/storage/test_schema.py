"""schema.sql, the migrations and the queries are about one and the same schema."""

import re
from importlib import resources
from pathlib import Path

import pytest
from support.postgres import Postgres, migrate_database

from hetuflow.storage.connect import Database
from hetuflow.storage.sql import Queries, Query, load_queries

ROOT = Path(__file__).parents[2]
STORAGE = resources.files("hetuflow.storage")
STEMS = sorted(
  entry.name.removesuffix(".sql")
  for entry in STORAGE.iterdir()
  if entry.name.endswith(".sql") and entry.name != "schema.sql"
)
# PostgreSQL prepares no CREATE; every migration runs this one.
NOT_PREPARED = {"create_migrations"}
# By kind: what there is, without what was made by running the program.
_OURS = "n.nspname = 'public' AND c.relname <> 'sched_migration'"
_NOT_A_WEEK = "c.relname !~ '[0-9]{4}w[0-9]{2}'"
CATALOGUE = {
  "tables": f"""
    SELECT c.relname, c.relkind, c.reloptions, pg_get_partkeydef(c.oid),
      pg_get_expr(c.relpartbound, c.oid)
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE {_OURS} AND {_NOT_A_WEEK} AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
      AND c.relname NOT LIKE 'sched_migration%'""",
  "columns": f"""
    SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
      a.attnotnull, a.attidentity, pg_get_expr(d.adbin, d.adrelid)
    FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE {_OURS} AND {_NOT_A_WEEK} AND a.attnum > 0 AND c.relkind IN ('r', 'p')""",
  "constraints": f"""
    SELECT c.relname, o.conname, pg_get_constraintdef(o.oid)
    FROM pg_constraint AS o JOIN pg_class AS c ON c.oid = o.conrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE {_OURS} AND {_NOT_A_WEEK}""",
  "indexes": f"""
    SELECT c.relname, pg_get_indexdef(i.indexrelid)
    FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE {_OURS} AND {_NOT_A_WEEK}""",
  "functions": """
    SELECT p.proname, pg_get_functiondef(p.oid)
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE n.nspname = 'public'""",
  "types": """
    SELECT t.typname, e.enumsortorder, e.enumlabel
    FROM pg_enum AS e JOIN pg_type AS t ON t.oid = e.enumtypid""",
  "namespaces": "SELECT id, weight, lead, lease FROM sched_namespace",
}


def catalogue(postgres: Postgres, database: str) -> dict[str, list[str]]:
  """Read what a database consists of."""
  return {
    kind: sorted(postgres.sql(query, database=database).splitlines())
    for kind, query in CATALOGUE.items()
  }


async def test_the_migrations_lead_to_the_schema_that_is_written_down(
  postgres: Postgres,
) -> None:
  with postgres.database() as migrated, postgres.database() as written:
    await migrate_database(postgres.dsn(migrated))
    postgres.run_file(ROOT / "schema.sql", database=written)
    one, other = catalogue(postgres, migrated), catalogue(postgres, written)
  assert one == other
  assert len(one["tables"]) > 15


@pytest.mark.parametrize("stem", STEMS)
async def test_every_query_fits_the_schema(database: Database, stem: str) -> None:
  async with database.connection() as connection:
    queries = [q for q in load_queries(stem) if q.name not in NOT_PREPARED]
    for query in queries:
      prepare = Query(
        name="prepare", text=f"PREPARE {query.name} AS {query.text}", parameters=()
      )
      try:
        await connection.fetch(prepare)
      except Exception as error:
        raise AssertionError(f"{stem}.{query.name}: {error}") from error


def test_every_query_is_used_and_every_used_query_exists() -> None:
  loads: dict[str, set[str]] = {stem: set() for stem in STEMS}
  for entry in STORAGE.iterdir():
    if not entry.name.endswith(".py"):
      continue
    text = entry.read_text(encoding="utf-8")
    for stem in re.findall(r'load_queries\("(\w+)"\)', text):
      loads[stem].update(re.findall(r"\b_sql\.(\w+)", text))
  for stem, used in loads.items():
    assert used == {query.name for query in load_queries(stem)}, stem


def test_every_query_says_what_it_is_for() -> None:
  for stem in STEMS:
    text = STORAGE.joinpath(f"{stem}.sql").read_text(encoding="utf-8")
    for header in re.finditer(r"^-- name: (\w+)\n(.*)$", text, re.M):
      assert re.fullmatch(r"-- [A-Z].+", header[2]), f"{stem}.{header[1]}"


def test_a_query_needs_exactly_its_parameters() -> None:
  query = Queries({"q": Query(name="q", text="", parameters=("a", "b"))}).q
  assert query.arrange({"b": 2, "a": 1}) == [1, 2]
  for wrong in ({"a": 1}, {"a": 1, "c": 2}, {"a": 1, "b": 2, "c": 3}):
    with pytest.raises(TypeError, match=r"missing or unknown|missing 'b'"):
      query.arrange(wrong)
