-- name: insert_namespace
-- Make a namespace; nothing comes back when the name is taken.
INSERT INTO sched_namespace (
  id, weight, retention_days, lead, lease, server_id, max_running
)
VALUES ($id, $weight, $retention_days, $lead, $lease, $server_id, $max_running)
ON CONFLICT (id) DO NOTHING
RETURNING id, weight, retention_days, lead, lease, server_id, max_running,
  created_at, updated_at, pg_notify('hetuflow', 'namespaces')

-- name: select_namespace
-- One namespace.
SELECT id, weight, retention_days, lead, lease, server_id, max_running,
  created_at, updated_at
FROM sched_namespace
WHERE id = $id

-- name: list_namespaces
-- A page of namespaces, by name.
SELECT id, weight, retention_days, lead, lease, server_id, max_running,
  created_at, updated_at
FROM sched_namespace
WHERE ($id::text IS NULL OR id = $id)
  AND ($cursor::text IS NULL OR id > $cursor)
ORDER BY id
LIMIT $limit

-- name: update_namespace
-- Change what is given.
UPDATE sched_namespace
SET weight = CASE WHEN $set_weight THEN $weight ELSE weight END,
  retention_days =
    CASE WHEN $set_retention_days THEN $retention_days ELSE retention_days END,
  lead = CASE WHEN $set_lead THEN $lead ELSE lead END,
  lease = CASE WHEN $set_lease THEN $lease ELSE lease END,
  server_id = CASE WHEN $set_server_id THEN $server_id ELSE server_id END,
  max_running = CASE WHEN $set_max_running THEN $max_running ELSE max_running END,
  updated_at = now()
WHERE id = $id
RETURNING id, weight, retention_days, lead, lease, server_id, max_running,
  created_at, updated_at, pg_notify('hetuflow', 'namespaces')

-- name: lock_namespace
-- Keep everybody from adding to a namespace until the end of the transaction.
SELECT id FROM sched_namespace WHERE id = $id FOR UPDATE

-- name: count_uses
-- What still lives in a namespace.
SELECT
  (SELECT count(*) FROM sched_job
    WHERE namespace_id = $id AND status <> 'deleted') AS jobs,
  (SELECT count(*) FROM sched_task
    WHERE completed_at = 'infinity' AND namespace_id = $id) AS tasks

-- name: delete_namespace
-- Remove a namespace with what deleted jobs left behind.
WITH
  jobs AS (SELECT id FROM sched_job WHERE namespace_id = $id),
  schedules AS (
    DELETE FROM sched_schedule WHERE job_id IN (SELECT id FROM jobs)),
  versions AS (
    DELETE FROM sched_job_version WHERE job_id IN (SELECT id FROM jobs)),
  old_jobs AS (DELETE FROM sched_job WHERE namespace_id = $id),
  routes AS (DELETE FROM sched_route WHERE namespace_id = $id)
DELETE FROM sched_namespace WHERE id = $id

-- name: share_namespace
-- Whether a namespace is there, and stays until the end of the transaction.
SELECT id FROM sched_namespace WHERE id = $id FOR KEY SHARE
