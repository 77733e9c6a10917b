-- name: insert_job
-- Make a job; nothing comes back when its name is taken.
INSERT INTO sched_job (
  id, namespace_id, name, description, status, route_id, priority, max_retries, overlap,
  max_concurrent, concurrency_key, rate_count, rate_seconds, misfire, start_deadline,
  total_timeout, broadcast
)
VALUES (
  $id, $namespace_id, $name, $description, $status, $route_id, $priority, $max_retries,
  $overlap, $max_concurrent, $concurrency_key, $rate_count, $rate_seconds, $misfire,
  $start_deadline, $total_timeout, $broadcast
)
ON CONFLICT (namespace_id, name) WHERE status <> 'deleted' DO NOTHING
RETURNING id, namespace_id, name, status

-- name: insert_version
-- Freeze a configuration.
INSERT INTO sched_job_version (job_id, version, config)
VALUES ($job_id, $version, $config)

-- name: select_job
-- One job with its configuration.
SELECT j.id, j.namespace_id, j.name, j.description, j.status, v.config, j.version,
  j.created_at, j.updated_at
FROM sched_job AS j
JOIN sched_job_version AS v ON v.job_id = j.id AND v.version = j.version
WHERE j.id = $id

-- name: list_jobs
-- A page of jobs, newest first; deleted ones only when asked for.
SELECT j.id, j.namespace_id, j.name, j.description, j.status, v.config, j.version,
  j.created_at, j.updated_at
FROM sched_job AS j
JOIN sched_job_version AS v ON v.job_id = j.id AND v.version = j.version
WHERE ($namespace_id::text IS NULL OR j.namespace_id = $namespace_id)
  AND ($name::text IS NULL OR j.name = $name)
  AND CASE WHEN $status::job_status IS NULL
    THEN j.status <> 'deleted' ELSE j.status = $status END
  AND ($cursor::uuid IS NULL OR j.id < $cursor)
ORDER BY j.id DESC
LIMIT $limit

-- name: lock_job
-- Keep everybody from changing a job, or making tasks of it, until the transaction ends.
SELECT id, namespace_id, name, status, version, route_id, priority, max_retries, overlap,
  max_concurrent, concurrency_key, rate_count, rate_seconds, misfire, start_deadline,
  total_timeout, broadcast
FROM sched_job WHERE id = $id FOR UPDATE

-- name: update_job
-- Change what is given; what a new configuration implies follows it.
UPDATE sched_job
SET name = CASE WHEN $set_name THEN $name ELSE name END,
  description = CASE WHEN $set_description THEN $description ELSE description END,
  version = $version,
  route_id = $route_id,
  priority = $priority,
  max_retries = $max_retries,
  overlap = $overlap,
  max_concurrent = $max_concurrent,
  concurrency_key = $concurrency_key,
  rate_count = $rate_count,
  rate_seconds = $rate_seconds,
  misfire = $misfire,
  start_deadline = $start_deadline,
  total_timeout = $total_timeout,
  broadcast = $broadcast,
  updated_at = now()
WHERE id = $id

-- name: set_job_status
-- Enable, disable or delete.
UPDATE sched_job SET status = $status, updated_at = now() WHERE id = $id

-- name: list_versions
-- A page of a job's configurations, newest first.
SELECT job_id, version, config, created_at
FROM sched_job_version
WHERE job_id = $job_id AND ($cursor::integer IS NULL OR version < $cursor)
ORDER BY version DESC
LIMIT $limit
