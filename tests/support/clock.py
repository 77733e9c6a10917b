"""A database whose clock stands still until a test sets it."""

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
