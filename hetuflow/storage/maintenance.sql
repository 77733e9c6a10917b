-- name: ensure_partitions
-- Make the partitions of the coming weeks.
SELECT hetuflow_ensure_partitions($weeks, now())

-- name: keep_alive
-- Prove that a connection is alive, and read the database's clock.
SELECT clock_timestamp()
