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
  scheduled_at, due_at
)
SELECT $id, namespace_id, id, job_id, job_version, $agent_id, attempts, claim_token,
  scheduled_at, due_at
FROM claimed
RETURNING id

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
