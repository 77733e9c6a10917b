-- name: renew_sessions
-- Write the heartbeats of many sessions; those that were replaced are not returned, of the
-- others also whether the token they came in by is still good. Rows are locked in the
-- order of the arrays, which is that of the ids, as claims lock them.
WITH beats AS (
  SELECT h.*
  FROM unnest(
    $ids::uuid[], $sessions::uuid[], $statuses::agent_status[], $metrics::jsonb[],
    $clock_offsets::double precision[], $capabilities::jsonb[], $tokens::uuid[]
  ) AS h (id, session_id, status, metrics, clock_offset_ms, capabilities, token_id)
  CROSS JOIN LATERAL (
    SELECT id FROM sched_agent
    WHERE id = h.id AND session_id = h.session_id
    FOR NO KEY UPDATE
  ) AS found
)
UPDATE sched_agent AS a
SET last_heartbeat_at = now(),
  lease_until = now() + make_interval(secs => $lease),
  status = h.status, metrics = h.metrics, clock_offset_ms = h.clock_offset_ms,
  capabilities = COALESCE(h.capabilities, a.capabilities),
  updated_at = now()
FROM beats AS h
WHERE a.id = h.id AND a.session_id = h.session_id
RETURNING a.session_id, a.labels || a.label_overrides AS labels,
  h.token_id IS NULL OR EXISTS (
    SELECT FROM sched_agent_token WHERE id = h.token_id
  ) AS admitted,
  a.drain_requested_at IS NOT NULL AS drained,
  CASE WHEN a.order_session_id = a.session_id THEN a.order_kind END AS order_kind

-- name: find_expired
-- Of sessions that are not live any more, those whose place no other has taken: they were
-- silent for too long.
SELECT said.session_id
FROM unnest($ids::uuid[], $sessions::uuid[]) AS said (id, session_id)
WHERE NOT EXISTS (
  SELECT FROM sched_agent AS a WHERE a.id = said.id AND a.session_id IS NOT NULL)

-- name: close_session
-- An agent's connection has ended; its lease runs on.
UPDATE sched_agent
SET status = 'offline', session_id = NULL, updated_at = now()
WHERE id = $id AND session_id = $session_id
RETURNING id

-- name: list_cancels
-- Instances of these agents that somebody asked to cancel, or to kill.
SELECT i.id, i.agent_id, i.kill_requested_at IS NOT NULL AS kill
FROM sched_task AS t
JOIN sched_task_instance AS i
  ON i.task_id = t.id AND i.namespace_id = t.namespace_id
  AND i.completed_at = 'infinity' AND i.claim_token = t.claim_token
WHERE t.completed_at = 'infinity' AND t.cancel_requested_at IS NOT NULL
  AND t.status IN ('dispatched', 'running') AND i.agent_id = ANY($agent_ids::uuid[])

-- name: delete_gone
-- Forget agents that have been offline for long and have nothing to do; a limited number.
WITH old AS (
  SELECT a.id FROM sched_agent AS a
  WHERE a.lease_until < now() - make_interval(days => $days)
    AND a.updated_at < now() - make_interval(days => $days)
    AND NOT EXISTS (
      SELECT FROM sched_task_instance AS i
      WHERE i.agent_id = a.id AND i.completed_at = 'infinity')
  LIMIT $limit
  FOR UPDATE OF a SKIP LOCKED
),
gone AS (
  DELETE FROM sched_agent WHERE id IN (SELECT id FROM old)
  RETURNING id
)
SELECT count(*) FROM gone

-- name: get_agent
-- One agent.
SELECT id, namespace_ids, name, version, server_id, clock_offset_ms,
  CASE WHEN session_id IS NULL OR lease_until < now() THEN 'offline'
    WHEN drain_requested_at IS NOT NULL THEN 'draining' ELSE status END AS status,
  labels || label_overrides AS labels, capabilities, metrics,
  connected_at, last_heartbeat_at, created_at, updated_at
FROM sched_agent WHERE id = $id

-- name: query_agents
-- A page of agents, newest first.
SELECT id, namespace_ids, name, version, server_id, clock_offset_ms,
  CASE WHEN session_id IS NULL OR lease_until < now() THEN 'offline'
    WHEN drain_requested_at IS NOT NULL THEN 'draining' ELSE status END AS status,
  labels || label_overrides AS labels, capabilities, metrics,
  connected_at, last_heartbeat_at, created_at, updated_at
FROM sched_agent
WHERE ($cursor::uuid IS NULL OR id < $cursor)
  AND ($namespace_id::text IS NULL OR $namespace_id = ANY(namespace_ids))
  AND ($name::text IS NULL OR name = $name)
  AND ($status::agent_status IS NULL OR $status =
    CASE WHEN session_id IS NULL OR lease_until < now() THEN 'offline'
      WHEN drain_requested_at IS NOT NULL THEN 'draining' ELSE status END)
ORDER BY id DESC
LIMIT $limit

-- name: create_agent
-- An agent that has not connected yet.
INSERT INTO sched_agent (id, namespace_ids, name, labels, capabilities, version)
VALUES ($id, $namespace_ids, $name, $labels, $capabilities, $version)

-- name: update_agent
-- What an operator says of an agent; labels are laid over what it declares.
UPDATE sched_agent
SET name = COALESCE($name::text, name),
  label_overrides = COALESCE($labels::jsonb, label_overrides),
  updated_at = now()
WHERE id = $id
RETURNING id

-- name: delete_agent
-- Forget an agent that is not connected and has nothing to do.
DELETE FROM sched_agent AS a
WHERE a.id = $id AND (a.session_id IS NULL OR a.lease_until < now())
  AND NOT EXISTS (
    SELECT FROM sched_task_instance AS i
    WHERE i.agent_id = a.id AND i.completed_at = 'infinity')
RETURNING id
