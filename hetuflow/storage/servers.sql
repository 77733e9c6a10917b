-- name: insert_server
-- Enter a server that has just started; nothing comes back when its id is taken.
INSERT INTO sched_server (id, name, url, version, weight, alive_until)
VALUES ($id, $name, $url, $version, $weight, now() + make_interval(secs => $ttl))
ON CONFLICT (id) DO NOTHING
RETURNING id, pg_notify('hetuflow', 'servers')

-- name: select_server
-- One server.
SELECT s.id, s.name, s.url, s.version, s.started_at, s.heartbeat_at, s.weight, s.load,
  s.created_at, s.updated_at, s.stopped_at IS NULL AND s.alive_until > now() AS alive,
  (SELECT count(*) FROM sched_binding AS b WHERE b.server_id = s.id) AS namespaces,
  EXISTS (
    SELECT FROM distributed_lock AS k
    WHERE k.name = 'leader' AND k.owner = s.id AND k.expires_at > now()
  ) AS leader
FROM sched_server AS s
WHERE s.id = $id

-- name: list_servers
-- A page of servers, the last started first.
SELECT s.id, s.name, s.url, s.version, s.started_at, s.heartbeat_at, s.weight, s.load,
  s.created_at, s.updated_at, l.alive,
  (SELECT count(*) FROM sched_binding AS b WHERE b.server_id = s.id) AS namespaces,
  EXISTS (
    SELECT FROM distributed_lock AS k
    WHERE k.name = 'leader' AND k.owner = s.id AND k.expires_at > now()
  ) AS leader
FROM sched_server AS s
CROSS JOIN LATERAL (
  SELECT s.stopped_at IS NULL AND s.alive_until > now() AS alive
) AS l
WHERE ($alive::boolean IS NULL OR l.alive = $alive)
  AND ($cursor::uuid IS NULL OR s.id < $cursor)
ORDER BY s.id DESC
LIMIT $limit

-- name: update_server
-- Change what is given.
UPDATE sched_server
SET name = CASE WHEN $set_name THEN $name ELSE name END, updated_at = now()
WHERE id = $id

-- name: beat_server
-- A sign of life, which renews the leader's term where this server has one. Nothing comes
-- back when the server was taken for gone and removed. What a server that stops has said
-- stands. The bindings are told in full unless they are those that the server knows by
-- their print.
WITH beat AS (
  UPDATE sched_server
  SET heartbeat_at = now(), alive_until = now() + make_interval(secs => $ttl),
    load = $load, updated_at = now(),
    stopped_at = CASE WHEN $stopping THEN COALESCE(stopped_at, now()) END
  WHERE id = $id
  RETURNING heartbeat_at
),
renewed AS (
  UPDATE distributed_lock
  SET expires_at = now() + make_interval(secs => $ttl), updated_at = now()
  WHERE name = 'leader' AND owner = $id AND term = $term AND expires_at > now()
  RETURNING term
),
bound AS (
  SELECT COALESCE(bit_xor(hashtextextended(namespace_id, epoch)), 0) AS print,
    COALESCE(array_agg(namespace_id), '{}') AS namespaces,
    COALESCE(array_agg(epoch), '{}') AS epochs
  FROM sched_binding WHERE server_id = $id
)
SELECT beat.heartbeat_at AS now, renewed.term IS NOT NULL AS renewed,
  extract(epoch FROM l.expires_at - now())::double precision AS leads_for,
  bound.print,
  CASE WHEN bound.print IS DISTINCT FROM $known THEN bound.namespaces END AS namespaces,
  CASE WHEN bound.print IS DISTINCT FROM $known THEN bound.epochs END AS epochs,
  EXISTS (
    SELECT FROM sched_task
    WHERE completed_at = 'infinity' AND status = 'blocked' AND lane IS NOT NULL
  ) AS blocked
FROM beat
CROSS JOIN bound
LEFT JOIN renewed ON true
LEFT JOIN distributed_lock AS l ON l.name = 'leader'

-- name: stop_server
-- A server says that it stops.
UPDATE sched_server SET stopped_at = now(), updated_at = now() WHERE id = $id
RETURNING pg_notify('hetuflow', 'servers')

-- name: delete_server
-- Forget a server that is gone.
DELETE FROM sched_server
WHERE id = $id
  AND (stopped_at IS NOT NULL OR alive_until <= now())
RETURNING id

-- name: delete_gone
-- Forget servers that have been gone for long.
WITH gone AS (
  DELETE FROM sched_server
  WHERE COALESCE(stopped_at, alive_until) < now() - make_interval(days => $days)
    AND alive_until < now()
  RETURNING id
)
SELECT count(*) FROM gone

-- name: ping
-- Prove that the database answers, and tell its time and version.
SELECT clock_timestamp() AS now, current_setting('server_version') AS version
