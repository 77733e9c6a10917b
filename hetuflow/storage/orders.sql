-- name: order_agents
-- Say what is wanted of agents: that they drain or no longer do, or what their sessions of
-- now are to be told. Of those that are not connected only the former is wanted. Rows are
-- locked in order of id, as heartbeats lock them.
WITH chosen AS (
  SELECT id FROM sched_agent
  WHERE ($ids::uuid[] IS NULL OR id = ANY($ids))
    AND ($namespace_id::text IS NULL OR $namespace_id = ANY(namespace_ids))
    AND (labels || label_overrides) @> $labels::jsonb
    AND ($command::text IN ('drain', 'resume')
      OR (session_id IS NOT NULL AND lease_until > now()))
  ORDER BY id
  FOR NO KEY UPDATE
),
ordered AS (
  UPDATE sched_agent AS a
  SET drain_requested_at = CASE $command
      WHEN 'drain' THEN COALESCE(a.drain_requested_at, now())
      WHEN 'resume' THEN NULL
      ELSE a.drain_requested_at END,
    -- The next heartbeat says what the agent makes of it.
    status = CASE WHEN $command = 'resume' AND a.status = 'draining' THEN 'online'
      ELSE a.status END,
    order_kind = CASE WHEN $command IN ('disconnect', 'shutdown') THEN $command
      ELSE a.order_kind END,
    order_session_id = CASE WHEN $command IN ('disconnect', 'shutdown') THEN a.session_id
      ELSE a.order_session_id END,
    updated_at = now()
  FROM chosen
  WHERE a.id = chosen.id
  RETURNING a.id
)
SELECT count(*) AS agents, pg_notify('hetuflow', 'agents') FROM ordered

-- name: list_orders
-- What is wanted of some agents' sessions; those of which nothing is wanted are left out.
SELECT session_id, drain_requested_at IS NOT NULL AS drained,
  CASE WHEN order_session_id = session_id THEN order_kind END AS order_kind
FROM sched_agent
WHERE id = ANY($agent_ids::uuid[]) AND session_id IS NOT NULL
  AND (drain_requested_at IS NOT NULL OR order_session_id = session_id)
