-- name: find_route
-- The number of a selector that is known already.
SELECT id FROM sched_route WHERE namespace_id = $namespace_id AND selector = $selector

-- name: insert_route
-- Number a selector and tell who serves agents; nothing comes back when another was
-- faster.
INSERT INTO sched_route (namespace_id, selector)
VALUES ($namespace_id, $selector)
ON CONFLICT (namespace_id, selector) DO NOTHING
RETURNING id, pg_notify('hetuflow', 'routes')

-- name: list_routes
-- The routes of some namespaces, or of all, in the order they were made, with what their
-- namespace counts for.
SELECT r.id, r.namespace_id, r.selector, n.weight
FROM sched_route AS r
JOIN sched_namespace AS n ON n.id = r.namespace_id
WHERE '*' = ANY($namespace_ids::text[]) OR r.namespace_id = ANY($namespace_ids)
ORDER BY r.id
