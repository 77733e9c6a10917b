-- What is mechanical to mend, one statement each, guarded by what makes it wrong: what has
-- changed meanwhile is left alone. Each mends so many rows and answers how many those were.

-- name: close_orphans
-- Attempts that are not those of their tasks count as lost, for good.
WITH orphans AS (
  SELECT i.id, i.namespace_id, i.claim_token
  FROM sched_task_instance AS i
  LEFT JOIN sched_task AS t
    ON t.id = i.task_id AND t.namespace_id = i.namespace_id
    AND t.completed_at = 'infinity'
  WHERE i.completed_at = 'infinity' AND i.status IN ('dispatched', 'running')
    AND (t.id IS NULL OR t.status NOT IN ('dispatched', 'running')
      OR t.claim_token IS DISTINCT FROM i.claim_token)
  LIMIT $limit
),
closed AS (
  UPDATE sched_task_instance AS i
  SET status = 'lost', reason = 'repaired: not the attempt of its task', lost_at = now(),
    completed_at = now(), updated_at = now()
  FROM orphans AS o
  WHERE i.id = o.id AND i.namespace_id = o.namespace_id AND i.completed_at = 'infinity'
    AND i.claim_token = o.claim_token AND i.status IN ('dispatched', 'running')
  RETURNING i.id
)
SELECT count(*) FROM closed

-- name: free_claims
-- Tasks that an agent is said to have without an attempt go back: one that had not started
-- to the queue, one that had as after a loss, one that was to be cancelled to its end.
WITH stuck AS (
  SELECT t.id, t.namespace_id, t.claim_token
  FROM sched_task AS t
  WHERE t.completed_at = 'infinity' AND t.status IN ('dispatched', 'running')
    AND NOT EXISTS (
      SELECT FROM sched_task_instance AS i
      WHERE i.task_id = t.id AND i.namespace_id = t.namespace_id
        AND i.completed_at = 'infinity')
    AND NOT EXISTS (SELECT FROM sched_broadcast AS b WHERE b.task_id = t.id)
  LIMIT $limit
),
freed AS (
  UPDATE sched_task AS t
  SET status = CASE WHEN t.cancel_requested_at IS NOT NULL THEN 'cancelled'
      WHEN t.status = 'dispatched' THEN 'pending'
      ELSE 'waiting_retry' END::task_status,
    reason = CASE WHEN t.cancel_requested_at IS NOT NULL THEN t.reason
      ELSE 'repaired: its attempt is gone' END,
    completed_at = CASE WHEN t.cancel_requested_at IS NOT NULL THEN now()
      ELSE 'infinity'::timestamptz END,
    claim_token = NULL, updated_at = now()
  FROM stuck AS s
  WHERE t.id = s.id AND t.namespace_id = s.namespace_id AND t.completed_at = 'infinity'
    AND t.claim_token = s.claim_token AND t.status IN ('dispatched', 'running')
  RETURNING t.namespace_id
),
hint AS (
  SELECT pg_notify('hetuflow', 'tasks:' || names.namespace_id)
  FROM (SELECT DISTINCT namespace_id FROM freed) AS names
)
SELECT count(*), (SELECT count(*) FROM hint) AS hints FROM freed

-- name: close_losses
-- Attempts that were lost long ago are waited for no longer.
WITH closed AS (
  UPDATE sched_task_instance
  SET completed_at = now(), updated_at = now()
  WHERE completed_at = 'infinity' AND status = 'lost'
    AND lost_at < now() - make_interval(secs => $patience::double precision)
  RETURNING id
)
SELECT count(*) FROM closed

-- name: fail_tasks_of_nothing
-- Tasks that nobody has and of which nobody can say what they are fail.
WITH helpless AS (
  SELECT t.id, t.namespace_id
  FROM sched_task AS t
  LEFT JOIN sched_job_version AS v ON v.job_id = t.job_id AND v.version = t.job_version
  LEFT JOIN sched_job AS j ON j.id = t.job_id
  LEFT JOIN sched_route AS r ON r.id = t.route_id
  WHERE t.completed_at = 'infinity'
    AND t.status IN ('blocked', 'paused', 'pending', 'waiting_retry')
    AND (v.job_id IS NULL OR j.id IS NULL OR r.id IS NULL)
  LIMIT $limit
),
failed AS (
  UPDATE sched_task AS t
  SET status = 'failed', reason = 'repaired: its job, version or route is gone',
    claim_token = NULL, completed_at = now(), updated_at = now()
  FROM helpless AS h
  WHERE t.id = h.id AND t.namespace_id = h.namespace_id AND t.completed_at = 'infinity'
    AND t.status IN ('blocked', 'paused', 'pending', 'waiting_retry')
  RETURNING t.id
)
SELECT count(*) FROM failed

-- name: forget_broadcasts
-- Broadcasts without a task that goes on are forgotten.
WITH forgotten AS (
  DELETE FROM sched_broadcast AS b
  WHERE NOT EXISTS (
    SELECT FROM sched_task AS t
    WHERE t.id = b.task_id AND t.namespace_id = b.namespace_id
      AND t.completed_at = 'infinity' AND t.status = 'running')
  RETURNING b.task_id
)
SELECT count(*) FROM forgotten

-- name: forget_keys
-- Idempotency keys that have expired are forgotten, some at a time.
WITH stale AS (
  SELECT namespace_id, scope, key FROM sched_idempotency
  WHERE expires_at < now()
  ORDER BY expires_at
  LIMIT $limit
  FOR UPDATE SKIP LOCKED
),
forgotten AS (
  DELETE FROM sched_idempotency AS k
  USING stale AS s
  WHERE k.namespace_id = s.namespace_id AND k.scope = s.scope AND k.key = s.key
  RETURNING k.key
)
SELECT count(*) FROM forgotten

-- name: forget_keys_of_nothing
-- Idempotency keys of tasks that are not there are forgotten: the request makes a new one.
WITH dangling AS (
  SELECT k.namespace_id, k.key, k.answer
  FROM (
    SELECT namespace_id, key, answer FROM sched_idempotency
    WHERE scope = 'task' AND expires_at >= now()
    ORDER BY expires_at DESC
    LIMIT $counted
  ) AS k
  WHERE NOT EXISTS (
    SELECT FROM sched_task AS t
    WHERE t.id = (k.answer #>> '{}')::uuid AND t.namespace_id = k.namespace_id)
),
forgotten AS (
  DELETE FROM sched_idempotency AS k
  USING dangling AS d
  WHERE k.namespace_id = d.namespace_id AND k.scope = 'task' AND k.key = d.key
    AND k.answer = d.answer
  RETURNING k.key
)
SELECT count(*) FROM forgotten
