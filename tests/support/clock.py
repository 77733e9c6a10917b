"""A database whose clock stands still until a test sets it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from support.postgres import Postgres
from support.world import query

# Names are looked up here before PostgreSQL's own: time passes when a test says so.
OWN_CLOCK = """
  CREATE SCHEMA clock;
  CREATE TABLE clock.hand AS SELECT now() AS at;
  CREATE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql STABLE
    AS 'SELECT at FROM clock.hand';
  CREATE FUNCTION clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS 'SELECT at FROM clock.hand';
  DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET search_path = clock, public, pg_catalog',
      current_database());
  END $$;
"""
SET_CLOCK = query("UPDATE clock.hand SET at = $at")


@contextmanager
def clocked_database(
  postgres: Postgres, template: str, start: datetime
) -> Iterator[str]:
  """Make a database in whose weeks around a moment tasks can end; return its address."""
  with postgres.database(template) as name:
    postgres.sql(OWN_CLOCK, database=name)
    postgres.sql(f"UPDATE clock.hand SET at = '{start}'", database=name)
    postgres.sql(f"SELECT hetuflow_ensure_partitions(4, '{start}')", database=name)
    yield postgres.dsn(name)
