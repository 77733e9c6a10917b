-- name: read_balance
-- All that the balancer weighs: who is there, and which namespace is whose.
SELECT now() AS now,
  (
    SELECT COALESCE(jsonb_agg(jsonb_build_object(
      'id', s.id, 'weight', s.weight, 'load', s.load,
      'seconds', extract(epoch FROM s.alive_until - now())
    )), '[]')
    FROM sched_server AS s
    WHERE s.stopped_at IS NULL AND s.alive_until > now()
  ) AS servers,
  (
    SELECT COALESCE(jsonb_agg(jsonb_build_object(
      'id', n.id, 'weight', n.weight, 'wish', n.server_id, 'server_id', b.server_id
    )), '[]')
    FROM sched_namespace AS n
    LEFT JOIN sched_binding AS b ON b.namespace_id = n.id
  ) AS namespaces

-- name: move_namespaces
-- Bind namespaces to servers, by the leader; those that are gone are left out.
WITH leader AS MATERIALIZED (
  SELECT FROM distributed_lock
  WHERE name = 'leader' AND owner = $owner AND term = $term AND expires_at > now()
  FOR SHARE
),
there AS (
  SELECT n.id, m.server_id
  FROM leader
  CROSS JOIN unnest($namespaces::text[], $servers::uuid[]) AS m (id, server_id)
  JOIN sched_namespace AS n ON n.id = m.id
  ORDER BY n.id
  FOR KEY SHARE OF n
),
moved AS (
  INSERT INTO sched_binding AS b (namespace_id, server_id)
  SELECT id, server_id FROM there
  ON CONFLICT (namespace_id) DO UPDATE
  SET server_id = excluded.server_id, epoch = b.epoch + 1, bound_at = now(),
    updated_at = now()
  WHERE b.server_id <> excluded.server_id
  RETURNING namespace_id
),
counted AS (SELECT count(*) AS moved FROM moved)
SELECT counted.moved,
  CASE WHEN counted.moved > 0 THEN pg_notify('hetuflow', 'bindings') END
FROM leader CROSS JOIN counted
