-- Every statement that only the leader may run begins with the CTE `leader` below, word
-- for word, and takes everything that it writes FROM leader, and its answer too: so it
-- writes nothing and answers no row where the term is over, and one row or more where it
-- is not. The row is held FOR SHARE: a successor's acquisition waits for the writes of
-- the term before, and who waited for a successor finds its term over.
--
--   WITH leader AS MATERIALIZED (
--     SELECT FROM distributed_lock
--     WHERE name = 'leader' AND owner = $owner AND term = $term AND expires_at > now()
--     FOR SHARE
--   ), …
--   SELECT … FROM leader LEFT JOIN … ON true

-- name: acquire_leader
-- Take an office that nobody holds; nothing comes back where somebody does. The time of
-- now() is that of the statement's begin, before any wait for the row.
INSERT INTO distributed_lock AS l (name, owner, term, expires_at)
VALUES ('leader', $owner, 1, now() + make_interval(secs => $ttl))
ON CONFLICT (name) DO UPDATE
SET owner = excluded.owner, term = l.term + 1, acquired_at = now(),
  expires_at = excluded.expires_at, updated_at = now()
WHERE l.expires_at <= now()
RETURNING term

-- name: resign_leader
-- End a term before its time, and tell the others.
UPDATE distributed_lock SET expires_at = now(), updated_at = now()
WHERE name = 'leader' AND owner = $owner AND term = $term AND expires_at > now()
RETURNING pg_notify('hetuflow', 'leader')
