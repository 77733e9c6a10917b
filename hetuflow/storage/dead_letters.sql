-- name: insert_dead_letter
-- Keep what could not be delivered or stored.
INSERT INTO sched_dead_letter (id, kind, agent_id, reason, payload)
VALUES ($id, $kind, $agent_id, $reason, $payload)

-- name: delete_old_letters
-- Forget what has waited for long, the oldest first.
WITH old AS (
  SELECT id FROM sched_dead_letter
  WHERE created_at < now() - make_interval(days => $days)
  ORDER BY created_at
  LIMIT $limit
  FOR UPDATE SKIP LOCKED
),
gone AS (
  DELETE FROM sched_dead_letter WHERE id IN (SELECT id FROM old) RETURNING id
)
SELECT count(*) FROM gone
