-- name: share_jobs
-- The jobs that tasks are made of, kept as they are until the transaction ends.
SELECT id, namespace_id, status FROM sched_job
WHERE id = ANY($ids::uuid[]) AND status <> 'deleted'
ORDER BY id
FOR SHARE

-- name: insert_task_keys
-- Take idempotency keys, or learn which task has them already.
INSERT INTO sched_idempotency AS known (namespace_id, scope, key, answer)
SELECT t.namespace_id, 'task', t.key, to_jsonb(t.task_id)
FROM unnest($namespace_ids::text[], $keys::text[], $task_ids::uuid[])
  AS t (namespace_id, key, task_id)
ORDER BY t.namespace_id, t.key
ON CONFLICT (namespace_id, scope, key) DO UPDATE
SET answer = CASE WHEN known.expires_at < now()
    THEN excluded.answer ELSE known.answer END,
  expires_at = CASE WHEN known.expires_at < now()
    THEN excluded.expires_at ELSE known.expires_at END,
  updated_at = now()
RETURNING known.namespace_id, known.key, known.answer #>> '{}' AS task_id

-- name: insert_tasks
-- Make tasks of jobs, due at their time or now, and hint once per namespace.
WITH made AS (
  INSERT INTO sched_task (
    id, namespace_id, job_id, job_version, route_id, planned_at, scheduled_at, due_at,
    rank_at, priority, parameters, max_retries
  )
  SELECT t.id, j.namespace_id, j.id, j.version, j.route_id, at.at, at.at, at.at,
    at.at - COALESCE(t.priority, j.priority) * interval '1 minute',
    COALESCE(t.priority, j.priority), t.parameters, j.max_retries
  FROM unnest(
    $ids::uuid[], $job_ids::uuid[], $times::timestamptz[], $priorities::smallint[],
    $parameters::jsonb[]
  ) AS t (id, job_id, at, priority, parameters)
  JOIN sched_job AS j ON j.id = t.job_id AND j.status = 'enabled'
  CROSS JOIN LATERAL (SELECT COALESCE(t.at, now()) AS at) AS at
  RETURNING namespace_id
)
SELECT pg_notify('hetuflow', 'tasks:' || namespace_id), count(*)
FROM made GROUP BY namespace_id

-- name: get_task
-- One task.
SELECT id, namespace_id, job_id, job_version, schedule_id, flow_run_id, status, reason,
  planned_at, scheduled_at, due_at, priority, parameters, attempts, max_retries,
  cancel_requested_at, cause, parent_id, start_by, end_by, created_at, updated_at,
  NULLIF(completed_at, 'infinity') AS completed_at
FROM sched_task WHERE id = $id

-- name: query_tasks
-- A page of tasks, newest first.
SELECT id, namespace_id, job_id, job_version, schedule_id, flow_run_id, status, reason,
  planned_at, scheduled_at, due_at, priority, parameters, attempts, max_retries,
  cancel_requested_at, cause, parent_id, start_by, end_by, created_at, updated_at,
  NULLIF(completed_at, 'infinity') AS completed_at
FROM sched_task
WHERE ($cursor::uuid IS NULL OR id < $cursor)
  AND ($namespace_id::text IS NULL OR namespace_id = $namespace_id)
  AND ($job_id::uuid IS NULL OR job_id = $job_id)
  AND ($schedule_id::uuid IS NULL OR schedule_id = $schedule_id)
  AND ($parent_id::uuid IS NULL OR parent_id = $parent_id)
  AND ($status::task_status IS NULL OR status = $status)
  AND ($live::boolean IS NULL OR NOT $live OR completed_at = 'infinity')
  AND ($live IS NULL OR $live OR completed_at < 'infinity')
ORDER BY id DESC
LIMIT $limit

-- name: update_task
-- Change a task that no agent has yet. What is kept is read from the row itself: it may
-- have been waited for, and be another one by then.
UPDATE sched_task
SET parameters = CASE WHEN $set_parameters::boolean
    THEN $parameters::jsonb ELSE parameters END,
  priority = COALESCE($priority::smallint, priority),
  scheduled_at = COALESCE($scheduled_at::timestamptz, scheduled_at),
  due_at = COALESCE($scheduled_at, due_at),
  rank_at = COALESCE($scheduled_at, due_at)
    - COALESCE($priority, priority) * interval '1 minute',
  updated_at = now()
WHERE id = $id AND completed_at = 'infinity'
  AND status IN ('blocked', 'paused', 'pending', 'waiting_retry')
RETURNING id, pg_notify('hetuflow', 'tasks:' || namespace_id)
