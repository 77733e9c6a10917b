-- What the leader does about those who have gone silent. What is written begins as
-- leader.sql says; rows are found and changed as transitions.sql says.
--
-- An attempt whose agent is silent is lost, and still waited for: until its task has a
-- newer claim, or for as long as lost_grace says. It is given up when its agent may not
-- start it any more: what has not started is good until its due time and a lease, whatever
-- becomes of the session, as agents fire what they hold without a server.

-- name: find_overdue
-- Who and what is overdue, at the price of one look. No agent is before all had the time to
-- come back: a lease once servers and database are in touch again, and a little while after
-- each change of the leader.
SELECT
  ARRAY(
    SELECT a.id FROM sched_agent AS a
    WHERE a.lease_until <= now()
      AND now() >= $steady_since::timestamptz + make_interval(secs => $lease)
      AND now() >= l.acquired_at + make_interval(secs => $term_grace)
      AND EXISTS (
        SELECT FROM sched_task_instance AS i
        WHERE i.agent_id = a.id AND i.completed_at = 'infinity' AND (
          i.status = 'running' OR i.status = 'dispatched'
          AND i.due_at + make_interval(secs => i.lease) <= now()))
    ORDER BY a.id
    LIMIT $limit
  ) AS agents,
  EXISTS (
    SELECT FROM sched_task_instance AS i
    WHERE i.completed_at = 'infinity' AND i.status = 'lost' AND (
      i.lost_at <= now() - make_interval(secs => $lost_grace) OR NOT EXISTS (
        SELECT FROM sched_task AS t
        WHERE t.id = i.task_id AND t.namespace_id = i.namespace_id
          AND t.completed_at = 'infinity' AND t.claim_token = i.claim_token
          AND t.cancel_requested_at IS NULL))
  ) AS lost,
  EXISTS (
    SELECT FROM sched_server WHERE stopped_at IS NULL AND alive_until <= now()
  ) AS servers
FROM distributed_lock AS l
WHERE l.name = 'leader'

-- name: lose_instances
-- Give up what silent agents have, and end their sessions, so that those who come back say
-- what they have. A task goes on at once if its job wants that and it was not lost too
-- often, with the claim that its lost attempt may still use; one that was to end ends; any
-- other stays as it is until its attempt has been waited for.
WITH leader AS MATERIALIZED (
  SELECT FROM distributed_lock
  WHERE name = 'leader' AND owner = $owner AND term = $term AND expires_at > now()
  FOR SHARE
),
agents AS MATERIALIZED (
  SELECT a.id, a.name
  FROM leader
  CROSS JOIN sched_agent AS a
  WHERE a.id = ANY($agents::uuid[]) AND a.lease_until <= now()
  ORDER BY a.id
  FOR NO KEY UPDATE OF a SKIP LOCKED
),
silent AS MATERIALIZED (
  SELECT i.*, task.row AS task_row, task.due_at,
    CASE
      WHEN task.row IS NULL THEN 'failed'
      WHEN task.cancel_requested_at IS NOT NULL AND task.reason = 'total timeout'
        THEN 'failed'
      WHEN task.cancel_requested_at IS NOT NULL THEN 'cancelled'
      WHEN v.config ->> 'on_lost' = 'retry'
        AND task.lost_attempts < (v.config ->> 'max_lost')::integer
        THEN 'waiting_retry'
      ELSE task.status::text
    END::task_status AS next
  FROM agents
  CROSS JOIN LATERAL (
    SELECT i.ctid AS row, i.agent_id, i.namespace_id, i.task_id, i.job_id,
      i.job_version, i.claim_token
    FROM sched_task_instance AS i
    WHERE i.agent_id = agents.id AND i.completed_at = 'infinity' AND (
      i.status = 'running' OR i.status = 'dispatched'
      AND i.due_at + make_interval(secs => i.lease) <= now())
    ORDER BY i.id
    LIMIT $limit
    FOR UPDATE OF i SKIP LOCKED
  ) AS i
  LEFT JOIN LATERAL (
    SELECT t.ctid AS row, t.status, t.reason, t.due_at, t.lost_attempts,
      t.cancel_requested_at
    FROM sched_task AS t
    WHERE t.id = i.task_id AND t.namespace_id = i.namespace_id
      AND t.completed_at = 'infinity' AND t.claim_token = i.claim_token
    FOR UPDATE
  ) AS task ON true
  LEFT JOIN LATERAL (
    SELECT config FROM sched_job_version
    WHERE job_id = i.job_id AND version = i.job_version
    OFFSET 0
  ) AS v ON true
  CROSS JOIN LATERAL (
    SELECT ctid AS row FROM sched_task_instance
    WHERE ctid = i.row AND completed_at = 'infinity'
    OFFSET 0
  ) AS seen
  LEFT JOIN LATERAL (
    SELECT ctid AS row FROM sched_task
    WHERE ctid = task.row AND completed_at = 'infinity'
    OFFSET 0
  ) AS task_seen ON true
  WHERE task_seen.row IS NOT DISTINCT FROM task.row
  LIMIT $limit
),
lost AS (
  UPDATE sched_task_instance AS i
  SET status = 'lost', reason = 'the agent was silent for too long', lost_at = now(),
    completed_at = CASE WHEN s.next IN ('failed', 'cancelled') THEN now()
      ELSE 'infinity' END,
    updated_at = now()
  FROM silent AS s
  WHERE i.ctid = s.row AND i.namespace_id = s.namespace_id
    AND i.completed_at = 'infinity' AND i.status IN ('dispatched', 'running')
  RETURNING i.agent_id
),
tasks AS (
  UPDATE sched_task AS t
  SET status = s.next,
    reason = CASE WHEN t.cancel_requested_at IS NULL THEN 'lost'
      ELSE COALESCE(t.reason, 'cancelled by request') END,
    lost_attempts = t.lost_attempts + 1,
    claim_token = CASE WHEN s.next IN ('failed', 'cancelled') THEN NULL
      ELSE t.claim_token END,
    due_at = CASE WHEN s.next = 'waiting_retry' THEN GREATEST(t.due_at, now())
      ELSE t.due_at END,
    rank_at = CASE WHEN s.next = 'waiting_retry'
      THEN GREATEST(t.due_at, now()) - t.priority * interval '1 minute'
      ELSE t.rank_at END,
    completed_at = CASE WHEN s.next IN ('failed', 'cancelled') THEN now()
      ELSE 'infinity' END,
    updated_at = now()
  FROM silent AS s
  WHERE t.ctid = s.task_row AND t.namespace_id = s.namespace_id
    AND t.completed_at = 'infinity' AND t.status IN ('dispatched', 'running')
  RETURNING t.namespace_id, t.status, t.lane,
    t.parent_id IS NOT NULL OR t.occurrence LIKE 'r%' AS awaited
),
sessions AS (
  UPDATE sched_agent AS a
  SET status = 'offline', session_id = NULL, updated_at = now()
  WHERE a.id IN (SELECT agent_id FROM lost) AND a.lease_until <= now()
),
hints AS (
  SELECT pg_notify('hetuflow', payload)
  FROM (
    SELECT DISTINCT kind.name || tasks.namespace_id AS payload
    FROM tasks
    CROSS JOIN LATERAL (VALUES
      ('tasks:', status = 'waiting_retry'),
      ('limits:', status IN ('failed', 'cancelled') AND lane IS NOT NULL),
      ('ends:', status IN ('failed', 'cancelled') AND awaited)
    ) AS kind (name, meant)
    WHERE kind.meant
  ) AS payloads
)
SELECT a.id, a.name, count(lost.agent_id) AS count, (SELECT count(*) FROM hints) AS hints
FROM leader
LEFT JOIN lost ON true
LEFT JOIN agents AS a ON a.id = lost.agent_id
GROUP BY a.id, a.name

-- name: close_lost
-- Wait no longer for lost attempts: their time is over, their task has a newer claim, or
-- it is to end. A task that waits for its next attempt goes on waiting, now without the
-- claim; one that had no other attempt to hope for ends.
WITH leader AS MATERIALIZED (
  SELECT FROM distributed_lock
  WHERE name = 'leader' AND owner = $owner AND term = $term AND expires_at > now()
  FOR SHARE
),
overdue AS MATERIALIZED (
  SELECT i.*, task.row AS task_row
  FROM leader
  CROSS JOIN LATERAL (
    SELECT i.ctid AS row, i.namespace_id, i.task_id, i.claim_token
    FROM sched_task_instance AS i
    WHERE i.completed_at = 'infinity' AND i.status = 'lost' AND (
      i.lost_at <= now() - make_interval(secs => $lost_grace) OR NOT EXISTS (
        SELECT FROM sched_task AS t
        WHERE t.id = i.task_id AND t.namespace_id = i.namespace_id
          AND t.completed_at = 'infinity' AND t.claim_token = i.claim_token
          AND t.cancel_requested_at IS NULL))
    ORDER BY i.lost_at
    LIMIT $limit
    FOR UPDATE OF i SKIP LOCKED
  ) AS i
  LEFT JOIN LATERAL (
    SELECT t.ctid AS row FROM sched_task AS t
    WHERE t.id = i.task_id AND t.namespace_id = i.namespace_id
      AND t.completed_at = 'infinity' AND t.claim_token = i.claim_token
    FOR UPDATE
  ) AS task ON true
  CROSS JOIN LATERAL (
    SELECT ctid AS row FROM sched_task_instance
    WHERE ctid = i.row AND completed_at = 'infinity'
    OFFSET 0
  ) AS seen
  LEFT JOIN LATERAL (
    SELECT ctid AS row FROM sched_task
    WHERE ctid = task.row AND completed_at = 'infinity'
    OFFSET 0
  ) AS task_seen ON true
  WHERE task_seen.row IS NOT DISTINCT FROM task.row
),
closed AS (
  UPDATE sched_task_instance AS i
  SET completed_at = now(), updated_at = now()
  FROM overdue AS o
  WHERE i.ctid = o.row AND i.namespace_id = o.namespace_id
    AND i.completed_at = 'infinity' AND i.status = 'lost'
  RETURNING i.id
),
tasks AS (
  UPDATE sched_task AS t
  SET status = CASE
      WHEN t.status = 'waiting_retry' THEN 'waiting_retry'
      WHEN t.cancel_requested_at IS NULL OR t.reason = 'total timeout' THEN 'failed'
      ELSE 'cancelled' END::task_status,
    reason = CASE WHEN t.cancel_requested_at IS NULL THEN 'lost'
      ELSE COALESCE(t.reason, 'cancelled by request') END,
    claim_token = NULL,
    completed_at = CASE WHEN t.status = 'waiting_retry' THEN 'infinity' ELSE now() END,
    updated_at = now()
  FROM overdue AS o
  WHERE t.ctid = o.task_row AND t.namespace_id = o.namespace_id
    AND t.completed_at = 'infinity'
    AND t.status IN ('dispatched', 'running', 'waiting_retry')
  RETURNING t.namespace_id, t.status, t.lane,
    t.parent_id IS NOT NULL OR t.occurrence LIKE 'r%' AS awaited
),
hints AS (
  SELECT pg_notify('hetuflow', payload)
  FROM (
    SELECT DISTINCT kind.name || tasks.namespace_id AS payload
    FROM tasks
    CROSS JOIN LATERAL (VALUES
      ('limits:', status <> 'waiting_retry' AND lane IS NOT NULL),
      ('ends:', status <> 'waiting_retry' AND awaited)
    ) AS kind (name, meant)
    WHERE kind.meant
  ) AS payloads
)
SELECT closed.id, (SELECT count(*) FROM hints) AS hints
FROM leader
LEFT JOIN closed ON true

-- name: sign_off_servers
-- Say of servers that gave no sign of life in time that they have stopped.
WITH leader AS MATERIALIZED (
  SELECT FROM distributed_lock
  WHERE name = 'leader' AND owner = $owner AND term = $term AND expires_at > now()
  FOR SHARE
),
gone AS (
  UPDATE sched_server AS s
  SET stopped_at = now(), updated_at = now()
  FROM leader
  WHERE s.stopped_at IS NULL AND s.alive_until <= now()
  RETURNING s.id, s.name, pg_notify('hetuflow', 'servers') AS hint
)
SELECT gone.id, gone.name, gone.hint
FROM leader
LEFT JOIN gone ON true
