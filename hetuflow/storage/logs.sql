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
ON CONFLICT (instance_id, stream, start_offset, namespace_id) DO NOTHING
RETURNING instance_id

-- name: ensure_weeks
-- Make the weeks of instances under way, from whenever they are.
SELECT hetuflow_ensure_partitions(0, week)
FROM (
  SELECT DISTINCT date_trunc('week', to_timestamp(
    ('x' || left(replace(i.id::text, '-', ''), 12))::bit(48)::bigint / 1000.0
  )) AS week
  FROM sched_task_instance AS i
  WHERE i.id = ANY($ids::uuid[]) AND i.namespace_id = $namespace_id
    AND i.completed_at = 'infinity'
) AS weeks

-- name: read_stream
-- Pieces of one stream that reach beyond a byte: from the one in which it lies.
SELECT stream, start_offset, data
FROM sched_task_log
WHERE instance_id = $instance_id AND stream = $stream::log_stream
  AND start_offset >= COALESCE((
    SELECT max(start_offset) FROM sched_task_log
    WHERE instance_id = $instance_id AND stream = $stream
      AND start_offset <= $offset::bigint), 0)
  AND start_offset + length(data) > $offset
ORDER BY start_offset
LIMIT $limit

-- name: read_both
-- Pieces of both streams in the order in which they were kept, from a piece on.
SELECT stream, start_offset, data
FROM sched_task_log
WHERE instance_id = $instance_id
ORDER BY number
OFFSET $offset
LIMIT $limit
