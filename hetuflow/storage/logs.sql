-- name: append_chunks
-- Keep output of instances of one namespace. Pieces that are there already are left
-- alone; pieces without the claim's token are refused.
INSERT INTO sched_task_log (namespace_id, instance_id, stream, start_offset, data)
SELECT $namespace_id, c.instance_id, c.stream, c.start_offset, c.data
FROM unnest(
  $ids::uuid[], $claim_tokens::uuid[], $streams::log_stream[], $offsets::bigint[],
  $data::bytea[]
) AS c (instance_id, claim_token, stream, start_offset, data)
CROSS JOIN LATERAL (
  SELECT claim_token FROM sched_task_instance
  WHERE id = c.instance_id AND namespace_id = $namespace_id
    AND completed_at = 'infinity'
  OFFSET 0
) AS i
WHERE i.claim_token = c.claim_token
ORDER BY c.instance_id, c.stream, c.start_offset
ON CONFLICT (instance_id, namespace_id, stream, start_offset) DO NOTHING
RETURNING instance_id

-- name: read_stream
-- Pieces of one stream that reach beyond a byte.
SELECT stream, start_offset, data
FROM sched_task_log
WHERE instance_id = $instance_id AND stream = $stream::log_stream
  AND start_offset + length(data) > $offset::bigint
ORDER BY start_offset
LIMIT $limit

-- name: read_both
-- Pieces of both streams in the order in which they were kept, from a piece on.
SELECT stream, start_offset, data
FROM sched_task_log
WHERE instance_id = $instance_id
ORDER BY created_at, stream, start_offset
OFFSET $offset
LIMIT $limit
