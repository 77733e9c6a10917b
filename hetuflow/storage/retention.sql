-- How long history is kept. A week is dropped as a whole once no namespace keeps it any
-- longer; before that the rows of those namespaces that do not are deleted from it, a few
-- pages at a time. The statements name the bounds of the week, so that they see no other.

-- name: list_weeks
-- The weeks that there are, the oldest first, in pages, and the ids that belong to their
-- time.
SELECT p.relname AS parent, c.relname AS name, week.begins_at, week.ends_at,
  hetuflow_uuid7(week.begins_at, false) AS low, hetuflow_uuid7(week.ends_at, false) AS high,
  pg_relation_size(c.oid) / current_setting('block_size')::bigint AS pages
FROM pg_inherits AS h
JOIN pg_class AS p ON p.oid = h.inhparent
JOIN pg_class AS c ON c.oid = h.inhrelid
CROSS JOIN LATERAL (
  SELECT to_timestamp(right(c.relname, 7), 'IYYY"w"IW') AS begins_at,
    to_timestamp(right(c.relname, 7), 'IYYY"w"IW') + interval '7 days' AS ends_at
) AS week
WHERE h.inhparent IN (
    'sched_task'::regclass, 'sched_task_instance'::regclass, 'sched_task_log'::regclass)
  AND c.relname ~ '_[0-9]{4}w[0-9]{2}$'
ORDER BY c.relname

-- name: list_retention
-- How many days each namespace keeps its history, and what time it is.
SELECT id, now() - make_interval(days => retention_days) AS keeps_from
FROM sched_namespace

-- name: drop_week
-- Drop a week, unless somebody uses the table for so long that others would have to wait.
SELECT hetuflow_drop_week($name)

-- name: has_attempts
-- Whether there are attempts that were begun in a time.
SELECT EXISTS (
  SELECT FROM sched_task_instance WHERE id >= $low AND id < $high
)

-- name: prune_tasks
-- Delete the tasks of namespaces from some pages of a week.
WITH gone AS (
  DELETE FROM sched_task
  WHERE completed_at >= $begins_at AND completed_at < $ends_at
    AND ctid >= format('(%s,0)', $from_page::bigint)::tid
    AND ctid < format('(%s,0)', $to_page::bigint)::tid
    AND namespace_id = ANY($namespaces::text[])
  RETURNING id
)
SELECT count(*) FROM gone

-- name: prune_instances
-- Delete the attempts of namespaces from some pages of a week.
WITH gone AS (
  DELETE FROM sched_task_instance
  WHERE completed_at >= $begins_at AND completed_at < $ends_at
    AND ctid >= format('(%s,0)', $from_page::bigint)::tid
    AND ctid < format('(%s,0)', $to_page::bigint)::tid
    AND namespace_id = ANY($namespaces::text[])
  RETURNING id
)
SELECT count(*) FROM gone

-- name: prune_logs
-- Delete the output of namespaces from some pages of a week, but for that of attempts that
-- are kept: output is filed by when its attempt was begun.
WITH gone AS (
  DELETE FROM sched_task_log
  WHERE instance_id >= $low AND instance_id < $high
    AND ctid >= format('(%s,0)', $from_page::bigint)::tid
    AND ctid < format('(%s,0)', $to_page::bigint)::tid
    AND namespace_id = ANY($namespaces::text[])
    AND instance_id NOT IN (
      SELECT id FROM sched_task_instance
      WHERE id >= $low AND id < $high AND namespace_id = ANY($namespaces))
  RETURNING instance_id
)
SELECT count(*) FROM gone

-- name: prune_gaps
-- Delete entries of the ledger that their namespace keeps no longer; a limited number.
WITH old AS (
  SELECT g.id
  FROM sched_ledger_gap AS g
  JOIN sched_namespace AS n ON n.id = g.namespace_id
  WHERE g.to_at < now() - make_interval(days => n.retention_days)
  LIMIT $limit
  FOR UPDATE OF g SKIP LOCKED
),
gone AS (
  DELETE FROM sched_ledger_gap WHERE id IN (SELECT id FROM old)
  RETURNING id
)
SELECT count(*) FROM gone
