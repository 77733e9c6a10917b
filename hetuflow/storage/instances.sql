-- name: get_instance
-- One task instance.
SELECT id, task_id, job_id, namespace_id, agent_id, attempt, status, reason, exit_code,
  error_message, output, scheduled_at, dispatched_at, started_at,
  NULLIF(completed_at, 'infinity') AS completed_at, start_error_ms, metrics, updated_at
FROM sched_task_instance WHERE id = $id

-- name: query_instances
-- A page of task instances, newest first.
SELECT id, task_id, job_id, namespace_id, agent_id, attempt, status, reason, exit_code,
  error_message, output, scheduled_at, dispatched_at, started_at,
  NULLIF(completed_at, 'infinity') AS completed_at, start_error_ms, metrics, updated_at
FROM sched_task_instance
WHERE ($cursor::uuid IS NULL OR id < $cursor)
  AND ($namespace_id::text IS NULL OR namespace_id = $namespace_id)
  AND ($task_id::uuid IS NULL OR task_id = $task_id)
  AND ($job_id::uuid IS NULL OR job_id = $job_id)
  AND ($agent_id::uuid IS NULL OR agent_id = $agent_id)
  AND ($status::task_instance_status IS NULL OR status = $status)
  AND ($live::boolean IS NULL OR NOT $live OR completed_at = 'infinity')
  AND ($live IS NULL OR $live OR completed_at < 'infinity')
ORDER BY id DESC
LIMIT $limit

-- name: create_instance
-- Claim one named task for one agent; the same change as the claim of many.
WITH claimed AS (
  UPDATE sched_task
  SET status = 'dispatched', reason = NULL, attempts = attempts + 1,
    claim_token = gen_random_uuid(), updated_at = now()
  WHERE id = $task_id AND completed_at = 'infinity'
    AND status IN ('pending', 'waiting_retry')
  RETURNING *
)
INSERT INTO sched_task_instance (
  id, namespace_id, task_id, job_id, job_version, agent_id, attempt, claim_token,
  scheduled_at, due_at, lease
)
SELECT $id, t.namespace_id, t.id, t.job_id, t.job_version, $agent_id, t.attempts,
  t.claim_token, t.scheduled_at, t.due_at, n.lease
FROM claimed AS t
JOIN sched_namespace AS n ON n.id = t.namespace_id
RETURNING id

-- name: request_kill
-- Ask the agent of an attempt to kill it, and let its task be cancelled with it; at once
-- where the attempt is lost and the task waits for another.
WITH attempt AS (
  SELECT id, namespace_id, task_id, claim_token FROM sched_task_instance
  WHERE id = $id AND completed_at = 'infinity'
  FOR UPDATE
),
task AS (
  UPDATE sched_task AS t
  SET cancel_requested_at = COALESCE(t.cancel_requested_at, now()),
    status = CASE t.status WHEN 'waiting_retry' THEN 'cancelled' ELSE t.status END,
    reason = CASE WHEN t.cancel_requested_at IS NULL THEN 'killed by request'
      ELSE t.reason END,
    claim_token = CASE WHEN t.status <> 'waiting_retry' THEN t.claim_token END,
    completed_at = CASE WHEN t.status = 'waiting_retry' THEN now()
      ELSE 'infinity' END,
    updated_at = now()
  FROM attempt AS a
  WHERE t.id = a.task_id AND t.namespace_id = a.namespace_id
    AND t.completed_at = 'infinity' AND t.claim_token = a.claim_token
  RETURNING t.namespace_id, t.status, t.lane
),
killed AS (
  UPDATE sched_task_instance AS i
  SET kill_requested_at = COALESCE(i.kill_requested_at, now()), updated_at = now()
  FROM attempt AS a
  WHERE i.id = a.id AND i.namespace_id = a.namespace_id AND i.completed_at = 'infinity'
    AND EXISTS (SELECT FROM task)
)
SELECT pg_notify('hetuflow', CASE
  WHEN task.status = 'cancelled' AND task.lane IS NOT NULL
    THEN 'limits:' || task.namespace_id
  ELSE 'cancels' END)
FROM task

-- name: update_instance
-- Note something on an attempt.
UPDATE sched_task_instance
SET reason = CASE WHEN $set_reason::boolean THEN $reason::text ELSE reason END,
  updated_at = now()
WHERE id = $id
RETURNING id

-- name: delete_instance
-- Forget an attempt that has ended.
DELETE FROM sched_task_instance
WHERE id = $id AND completed_at < 'infinity'
RETURNING id
