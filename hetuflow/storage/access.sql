-- name: insert_api_key
-- Keep the hash of an API key; nothing comes back when its name is taken.
INSERT INTO sched_api_key (id, name, key_hash)
VALUES ($id, $name, $hash)
ON CONFLICT (name) DO NOTHING
RETURNING id, name, created_at

-- name: find_api_key
-- Whose key it is.
SELECT id, name, key_hash AS hash FROM sched_api_key WHERE key_hash = $hash

-- name: list_api_keys
-- A page of API keys, newest first.
SELECT id, name, created_at
FROM sched_api_key
WHERE $cursor::uuid IS NULL OR id < $cursor
ORDER BY id DESC
LIMIT $limit

-- name: delete_api_key
-- Revoke an API key.
DELETE FROM sched_api_key WHERE id = $id RETURNING id

-- name: count_api_keys
-- How many keys let anybody in.
SELECT count(*) FROM sched_api_key

-- name: insert_agent_token
-- Keep the hash of an agent token; nothing comes back when its name is taken.
INSERT INTO sched_agent_token (id, name, token_hash, namespace_ids)
VALUES ($id, $name, $hash, $namespace_ids)
ON CONFLICT (name) DO NOTHING
RETURNING id, name, namespace_ids, created_at

-- name: find_agent_token
-- Where a token lets an agent in.
SELECT id, name, token_hash AS hash, namespace_ids
FROM sched_agent_token
WHERE token_hash = $hash

-- name: list_agent_tokens
-- A page of agent tokens, newest first.
SELECT id, name, namespace_ids, created_at
FROM sched_agent_token
WHERE $cursor::uuid IS NULL OR id < $cursor
ORDER BY id DESC
LIMIT $limit

-- name: delete_agent_token
-- Revoke an agent token.
DELETE FROM sched_agent_token WHERE id = $id RETURNING id

-- name: lock_access
-- One at a time decides whether there is anybody to let in.
SELECT pg_advisory_xact_lock(hashtext('hetuflow_access'))
