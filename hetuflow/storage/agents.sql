-- name: register_agent
-- Open a session of an agent, unless the agent has been started again since, or has
-- registered again, as it does when a server is slow to answer; or unless it belongs to
-- namespaces that who speaks for it may not enter.
INSERT INTO sched_agent AS a (
  id, namespace_ids, name, status, labels, capabilities, version, epoch,
  session_number, session_id, server_id, lease_until, connected_at, last_heartbeat_at
) VALUES (
  $id, $namespace_ids, $name, 'online', $labels, $capabilities, $version, $epoch,
  $session_number, $session_id, $server_id, now() + make_interval(secs => $lease),
  now(), now()
)
ON CONFLICT (id) DO UPDATE
SET namespace_ids = excluded.namespace_ids, name = excluded.name,
  status = 'online', labels = excluded.labels, capabilities = excluded.capabilities,
  version = excluded.version, epoch = excluded.epoch,
  session_number = excluded.session_number,
  session_id = excluded.session_id, server_id = excluded.server_id,
  lease_until = excluded.lease_until, connected_at = now(), last_heartbeat_at = now(),
  updated_at = now()
WHERE (a.epoch, a.session_number) <= (excluded.epoch, excluded.session_number)
  AND ('*' = ANY($allowed::text[]) OR a.namespace_ids <@ $allowed::text[])
RETURNING now() AS server_time, labels || label_overrides AS labels

-- name: find_forbidden_namespaces
-- Of the namespaces an agent belongs to, those that are not allowed.
SELECT unnest(namespace_ids) AS name FROM sched_agent WHERE id = $id
EXCEPT
SELECT unnest($allowed::text[])
ORDER BY name

-- name: find_missing_namespaces
-- Of the named namespaces, those that do not exist.
SELECT name FROM unnest($namespace_ids::text[]) AS named (name)
WHERE NOT EXISTS (SELECT FROM sched_namespace WHERE id = name)

-- name: list_claims
-- What an agent is thought to have.
SELECT id, namespace_id, claim_token, status
FROM sched_task_instance
WHERE agent_id = $agent_id AND completed_at = 'infinity'
ORDER BY id

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
  ) AS admitted

-- name: close_session
-- An agent's connection has ended; its lease runs on.
UPDATE sched_agent
SET status = 'offline', session_id = NULL, updated_at = now()
WHERE id = $id AND session_id = $session_id
RETURNING id

-- name: list_cancels
-- Instances of these agents that somebody asked to cancel.
SELECT i.id, i.agent_id
FROM sched_task AS t
JOIN sched_task_instance AS i
  ON i.task_id = t.id AND i.namespace_id = t.namespace_id
  AND i.completed_at = 'infinity'
WHERE t.completed_at = 'infinity' AND t.cancel_requested_at IS NOT NULL
  AND t.status IN ('dispatched', 'running') AND i.agent_id = ANY($agent_ids::uuid[])

-- name: get_agent
-- One agent.
SELECT id, namespace_ids, name, version, server_id, clock_offset_ms,
  CASE WHEN session_id IS NULL OR lease_until < now() THEN 'offline' ELSE status END
    AS status,
  labels || label_overrides AS labels, capabilities, metrics,
  connected_at, last_heartbeat_at, created_at, updated_at
FROM sched_agent WHERE id = $id

-- name: query_agents
-- A page of agents, newest first.
SELECT id, namespace_ids, name, version, server_id, clock_offset_ms,
  CASE WHEN session_id IS NULL OR lease_until < now() THEN 'offline' ELSE status END
    AS status,
  labels || label_overrides AS labels, capabilities, metrics,
  connected_at, last_heartbeat_at, created_at, updated_at
FROM sched_agent
WHERE ($cursor::uuid IS NULL OR id < $cursor)
  AND ($namespace_id::text IS NULL OR $namespace_id = ANY(namespace_ids))
  AND ($name::text IS NULL OR name = $name)
  AND ($status::agent_status IS NULL OR $status =
    CASE WHEN session_id IS NULL OR lease_until < now() THEN 'offline' ELSE status END)
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
