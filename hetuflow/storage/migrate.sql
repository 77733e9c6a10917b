-- name: lift_timeouts
-- A migration may take its time.
SELECT set_config('statement_timeout', '0', true),
  set_config('idle_in_transaction_session_timeout', '0', true)

-- name: lock_migrations
-- One migrator at a time, until the end of the transaction.
SELECT pg_advisory_xact_lock(hashtext('hetuflow_migrate'))

-- name: create_migrations
-- Where applied migrations are remembered.
CREATE TABLE IF NOT EXISTS sched_migration (
  version integer PRIMARY KEY,
  name text NOT NULL,
  checksum text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now()
)

-- name: has_migrations
-- Whether anything was ever applied.
SELECT to_regclass('sched_migration') IS NOT NULL

-- name: list_migrations
-- What was applied.
SELECT version, checksum FROM sched_migration ORDER BY version

-- name: insert_migration
-- Remember one.
INSERT INTO sched_migration (version, name, checksum)
VALUES ($version, $name, $checksum)
