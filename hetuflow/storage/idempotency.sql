-- name: take_key
-- Take a key, also one that has expired; who comes at the same time waits here until the
-- first one's transaction ends. Nothing comes back when the key is taken.
INSERT INTO sched_idempotency AS known (namespace_id, scope, key, answer)
VALUES ($namespace_id, $scope, $key, $answer)
ON CONFLICT (namespace_id, scope, key) DO UPDATE
SET answer = excluded.answer, expires_at = excluded.expires_at, updated_at = now()
WHERE known.expires_at <= now()
RETURNING key

-- name: read_answer
-- What was answered first.
SELECT answer
FROM sched_idempotency
WHERE namespace_id = $namespace_id AND scope = $scope AND key = $key

-- name: write_answer
-- Keep the first answer with its key.
UPDATE sched_idempotency
SET answer = $answer, updated_at = now()
WHERE namespace_id = $namespace_id AND scope = $scope AND key = $key

-- name: delete_expired
-- Forget keys whose time is over, a batch at a time.
WITH expired AS (
  SELECT namespace_id, scope, key
  FROM sched_idempotency
  WHERE expires_at <= now()
  ORDER BY expires_at
  LIMIT $limit
  FOR UPDATE SKIP LOCKED
),
gone AS (
  DELETE FROM sched_idempotency AS i
  USING expired AS e
  WHERE i.namespace_id = e.namespace_id AND i.scope = e.scope AND i.key = e.key
  RETURNING i.key
)
SELECT count(*) FROM gone
