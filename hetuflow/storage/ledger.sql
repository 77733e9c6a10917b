-- name: read_terms
-- What the ledger of a schedule is read by. Behind known_from, up to known_until, every
-- time of the definition is covered: not what an earlier definition planned, nor what may
-- be forgotten by now, nor what is not planned yet or lies behind the last run that
-- max_runs allows.
SELECT s.id, s.namespace_id, s.job_id, s.name, s.kind, s.enabled, s.timezone,
  s.cron_expression, s.run_at, s.interval_seconds, s.fixed_delay, s.replicas,
  s.event_name, s.event_filter, s.after, s.calendars, s.parameters, s.start_at, s.end_at,
  s.max_runs, s.jitter_seconds, s.dst, s.run_count, s.last_run_at, s.created_at,
  s.updated_at, s.revision,
  GREATEST(s.planned_from,
    now() - make_interval(days => n.retention_days, hours => -2)) AS known_from,
  CASE WHEN s.run_count >= s.max_runs
    THEN LEAST(s.cursor_at, s.last_run_at) ELSE s.cursor_at END AS known_until,
  GREATEST(s.cursor_at, now()) AS last_at
FROM sched_schedule AS s
JOIN sched_namespace AS n ON n.id = s.namespace_id
WHERE s.id = $id

-- name: list_ledger
-- A page of what became of planned times, in their order: tasks, and gaps between them.
WITH tasks AS (
  SELECT planned_at AS at, id, status::text AS what, planned_at AS to_at,
    1::bigint AS count, reason, cause
  FROM sched_task
  WHERE namespace_id = $namespace_id AND schedule_id = $id
    AND planned_at >= GREATEST($from::timestamptz, $after_at::timestamptz)
    AND planned_at <= $to::timestamptz
    AND ($after_at IS NULL OR (planned_at, id) > ($after_at, $after_id::uuid))
  ORDER BY planned_at, id
  LIMIT $limit
),
gaps AS (
  SELECT from_at AS at, id, outcome::text AS what, to_at, count, reason,
    NULL::task_cause AS cause
  FROM sched_ledger_gap
  WHERE schedule_id = $id AND from_at <= $to AND to_at >= $from
    AND ($after_at IS NULL OR (from_at, id) > ($after_at, $after_id))
  ORDER BY from_at, id
  LIMIT $limit
)
SELECT true AS task, at, id, what, to_at, count, reason, cause FROM tasks
UNION ALL
SELECT false, at, id, what, to_at, count, reason, cause FROM gaps
ORDER BY at, id
LIMIT $limit

-- name: count_tasks
-- How many tasks of a span came to what.
SELECT status, count(*) AS count
FROM sched_task
WHERE namespace_id = $namespace_id AND schedule_id = $id
  AND planned_at >= $from::timestamptz AND planned_at <= $to::timestamptz
GROUP BY status

-- name: list_gaps
-- The gaps that reach into a span, in order.
SELECT id, from_at, to_at, count, outcome, reason
FROM sched_ledger_gap
WHERE schedule_id = $id AND from_at <= $to::timestamptz AND to_at >= $from::timestamptz
ORDER BY from_at, id

-- name: read_coverage
-- What covers the times of a schedule as it was read, as of one moment; nothing if it has
-- changed since.
SELECT
  ARRAY(
    SELECT planned_at FROM sched_task
    WHERE namespace_id = s.namespace_id AND schedule_id = s.id
      AND planned_at > $after::timestamptz AND planned_at <= $until::timestamptz
    ORDER BY planned_at
    LIMIT $limit
  ) AS tasks,
  COALESCE((
    SELECT jsonb_agg(jsonb_build_array(from_at, to_at, count) ORDER BY from_at, id)
    FROM sched_ledger_gap
    WHERE schedule_id = s.id AND to_at > $after AND from_at <= $until
  ), '[]') AS gaps
FROM sched_schedule AS s
WHERE s.id = $id AND s.revision = $revision
