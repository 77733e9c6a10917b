-- name: share_jobs
-- The jobs that tasks are made of, with their limits, kept as they are until the
-- transaction ends.
SELECT j.id, j.namespace_id, j.status, j.overlap, j.max_concurrent, j.concurrency_key,
  j.rate_count, n.max_running
FROM sched_job AS j
JOIN sched_namespace AS n ON n.id = j.namespace_id
WHERE j.id = ANY($ids::uuid[]) AND j.status <> 'deleted'
ORDER BY j.id
FOR SHARE OF j

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
-- Make tasks of jobs, due at their time or now, and hint once per namespace. Those with a
-- lane are blocked, for the reason given, until the limiter gives them a place. No
-- deadline lies behind the last year that can be read again.
WITH made AS (
  INSERT INTO sched_task (
    id, namespace_id, job_id, job_version, route_id, planned_at, scheduled_at, due_at,
    rank_at, priority, parameters, max_retries, lane, status, reason, start_by, end_by
  )
  SELECT t.id, j.namespace_id, j.id, j.version, j.route_id, at.at, at.at, at.at,
    at.at - COALESCE(t.priority, j.priority) * interval '1 minute',
    COALESCE(t.priority, j.priority), t.parameters, j.max_retries, t.lane,
    CASE WHEN t.lane IS NULL THEN 'pending' ELSE 'blocked' END::task_status, t.reason,
    LEAST(at.at, '9997-12-30Z') + make_interval(secs => j.start_deadline),
    LEAST(at.at, '9997-12-30Z') + make_interval(secs => j.total_timeout)
  FROM unnest(
    $ids::uuid[], $job_ids::uuid[], $times::timestamptz[], $priorities::smallint[],
    $parameters::jsonb[], $lanes::text[], $reasons::text[]
  ) AS t (id, job_id, at, priority, parameters, lane, reason)
  JOIN sched_job AS j ON j.id = t.job_id AND j.status = 'enabled'
  CROSS JOIN LATERAL (SELECT COALESCE(t.at, now()) AS at) AS at
  RETURNING namespace_id, lane IS NULL AS free,
    lane IS NOT NULL OR num_nonnulls(start_by, end_by) > 0 AS judged
)
SELECT pg_notify('hetuflow', kind.name || made.namespace_id), count(*)
FROM made
CROSS JOIN LATERAL (VALUES ('tasks:', made.free), ('limits:', made.judged))
  AS kind (name, meant)
WHERE kind.meant
GROUP BY made.namespace_id, kind.name

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

-- name: share_job_of
-- The job of a task that has not ended, kept as it is until the transaction ends: what
-- the next statement reads of its limits is what holds.
SELECT id FROM sched_job
WHERE id = (SELECT job_id FROM sched_task WHERE id = $id AND completed_at = 'infinity')
FOR SHARE

-- name: lock_task
-- One task that is to be changed, and the limits of its job and namespace.
SELECT t.status, t.lane, t.parameters, j.id, j.overlap, j.max_concurrent,
  j.concurrency_key, j.rate_count, n.max_running
FROM sched_task AS t
JOIN sched_job AS j ON j.id = t.job_id
JOIN sched_namespace AS n ON n.id = t.namespace_id
WHERE t.id = $id AND t.completed_at = 'infinity'
FOR UPDATE OF t

-- name: update_task
-- Change a task that no agent has yet. What has a lane is judged anew, whether it had a
-- place or not; a retry keeps its place. Deadlines move with the time that it is due at:
-- they are counted from there, also where it is not the one that was planned.
UPDATE sched_task AS t
SET parameters = CASE WHEN $set_parameters::boolean
    THEN $parameters::jsonb ELSE t.parameters END,
  priority = COALESCE($priority::smallint, t.priority),
  scheduled_at = COALESCE($scheduled_at::timestamptz, t.scheduled_at),
  due_at = COALESCE($scheduled_at, t.due_at),
  rank_at = COALESCE($scheduled_at, t.due_at)
    - COALESCE($priority, t.priority) * interval '1 minute',
  lane = $lane::text,
  status = CASE WHEN t.status = 'pending' AND $lane IS NOT NULL THEN 'blocked'
    ELSE t.status END,
  reason = CASE WHEN t.status IN ('pending', 'blocked') AND $lane IS NOT NULL
    THEN $blocked::text ELSE t.reason END,
  start_by = t.start_by + (LEAST(COALESCE($scheduled_at, t.due_at), '9997-12-30Z')
    - LEAST(t.due_at, '9997-12-30Z')),
  end_by = t.end_by + (LEAST(COALESCE($scheduled_at, t.due_at), '9997-12-30Z')
    - LEAST(t.due_at, '9997-12-30Z')),
  updated_at = now()
WHERE t.id = $id AND t.completed_at = 'infinity'
  AND t.status IN ('blocked', 'paused', 'pending', 'waiting_retry')
RETURNING t.id, pg_notify('hetuflow',
  CASE WHEN t.lane IS NULL THEN 'tasks:' ELSE 'limits:' END || t.namespace_id)
