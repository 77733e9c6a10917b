-- name: find_route
-- The number of a selector that is known already.
SELECT id FROM sched_route
WHERE namespace_id = $namespace_id AND selector = $selector
  AND md5(selector::text) = md5($selector::jsonb::text)

-- name: insert_route
-- Number a selector and tell who serves agents; nothing comes back when another was
-- faster.
INSERT INTO sched_route (namespace_id, selector)
VALUES ($namespace_id, $selector)
ON CONFLICT (namespace_id, md5(selector::text)) DO NOTHING
RETURNING id, pg_notify('hetuflow', 'routes')

-- name: list_routes
-- The routes of some namespaces, or of all, in the order they were made, with what their
-- namespace counts for.
SELECT r.id, r.namespace_id, r.selector, n.weight
FROM sched_route AS r
JOIN sched_namespace AS n ON n.id = r.namespace_id
WHERE '*' = ANY($namespace_ids::text[]) OR r.namespace_id = ANY($namespace_ids)
ORDER BY r.id

-- name: list_waiting_routes
-- Of the routes of single agents, those with tasks to hand out, now or ahead.
SELECT route.id
FROM unnest($routes::bigint[]) AS route (id)
CROSS JOIN (SELECT lead FROM sched_namespace WHERE id = $namespace_id) AS n
CROSS JOIN LATERAL (
  SELECT FROM sched_task AS t
  WHERE t.namespace_id = $namespace_id AND t.completed_at = 'infinity'
    AND t.route_id = route.id AND t.status IN ('pending', 'waiting_retry')
    AND t.rank_at <= now() + interval '10 minutes'
    AND t.due_at <= now() + make_interval(secs => n.lead)
  ORDER BY t.rank_at
  LIMIT 1
) AS waiting

-- name: matching_agents
-- The agents that are online and have what each selector asks for.
SELECT wish.key, a.id AS agent_id
FROM unnest($keys::uuid[], $namespace_ids::text[], $selectors::jsonb[])
  AS wish (key, namespace_id, selector)
JOIN sched_agent AS a
  ON wish.namespace_id = ANY(a.namespace_ids)
  AND a.labels || a.label_overrides @> (wish.selector -> 'labels')
  AND a.capabilities -> 'executors' @> (wish.selector -> 'executor')
  AND (wish.selector -> 'function' IS NULL
    OR a.capabilities -> 'functions' @> (wish.selector -> 'function'))
WHERE a.session_id IS NOT NULL AND a.lease_until > now()
  AND a.status IN ('online', 'busy')
ORDER BY wish.key, a.id

-- name: share_agent_routes
-- The routes of single agents, kept until the end of the transaction.
SELECT r.id, r.namespace_id, wanted.agent_id
FROM unnest($namespace_ids::text[], $agent_ids::uuid[])
  AS wanted (namespace_id, agent_id)
JOIN sched_route AS r ON r.namespace_id = wanted.namespace_id
  AND md5(r.selector::text) = md5(jsonb_build_object('agent', wanted.agent_id)::text)
ORDER BY r.namespace_id, wanted.agent_id
FOR KEY SHARE OF r

-- name: insert_agent_routes
-- Number those that are missing, each in the order in which others would.
WITH made AS (
  INSERT INTO sched_route (namespace_id, selector)
  SELECT wanted.namespace_id, jsonb_build_object('agent', wanted.agent_id)
  FROM unnest($namespace_ids::text[], $agent_ids::uuid[])
    AS wanted (namespace_id, agent_id)
  WHERE NOT EXISTS (
    SELECT FROM sched_route AS r
    WHERE r.namespace_id = wanted.namespace_id
      AND md5(r.selector::text)
        = md5(jsonb_build_object('agent', wanted.agent_id)::text))
  ORDER BY wanted.namespace_id, wanted.agent_id
  ON CONFLICT (namespace_id, md5(selector::text)) DO NOTHING
  RETURNING id
),
news AS (SELECT count(*) AS count FROM made)
SELECT pg_notify('hetuflow', 'routes') FROM news WHERE news.count > 0

-- name: lock_agent_routes
-- Some routes of single agents that have been away for a day, and that nobody is about
-- to make a task for.
SELECT r.id
FROM sched_route AS r
WHERE r.selector -> 'agent' IS NOT NULL AND r.created_at < now() - interval '1 day'
  AND NOT EXISTS (
    SELECT FROM sched_agent AS a
    WHERE a.id = (r.selector ->> 'agent')::uuid
      AND a.lease_until > now() - interval '1 day')
LIMIT $limit
FOR UPDATE SKIP LOCKED

-- name: delete_agent_routes
-- Forget locked routes that no task waits on.
DELETE FROM sched_route AS r
WHERE r.id = ANY($ids::bigint[])
  AND NOT EXISTS (
    SELECT FROM sched_task AS t
    WHERE t.namespace_id = r.namespace_id AND t.completed_at = 'infinity'
      AND t.route_id = r.id AND t.status IN ('pending', 'waiting_retry'))
RETURNING r.id
