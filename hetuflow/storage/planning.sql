-- name: list_due_schedules
-- Schedules with planned times up to the horizon, the longest waiting first. A namespace
-- with a long lead looks as far ahead as it hands out.
SELECT s.id, s.namespace_id, s.job_id, s.name, s.kind, s.enabled, s.timezone,
  s.cron_expression, s.run_at, s.interval_seconds, s.parameters, s.start_at, s.end_at,
  s.max_runs, s.jitter_seconds, s.dst, s.run_count, s.last_run_at, s.created_at,
  s.updated_at, s.revision, s.cursor_at, now() AS read_at,
  now() + make_interval(secs => GREATEST($horizon, n.lead + $margin)) AS until_at
FROM sched_schedule AS s
JOIN sched_job AS j ON j.id = s.job_id AND j.status = 'enabled'
JOIN sched_namespace AS n ON n.id = s.namespace_id
WHERE s.enabled
  AND s.next_plan_at <= now() + make_interval(secs => GREATEST(
    $horizon, (SELECT max(lead) FROM sched_namespace) + $margin))
  AND s.next_plan_at <= now() + make_interval(secs => GREATEST(
    $horizon, n.lead + $margin))
ORDER BY s.next_plan_at
LIMIT $limit

-- name: plan_tasks
-- Move the cursors of schedules that are still as they were read, and for exactly those
-- insert the tasks and book the planned times that will not run. Schedules that another
-- server has in hand are passed over.
WITH held AS (
  SELECT s.id
  FROM unnest($schedules::uuid[], $revisions::bigint[], $expected::timestamptz[])
    AS m (id, revision, cursor_at)
  JOIN sched_schedule AS s
    ON s.id = m.id AND s.revision = m.revision AND s.cursor_at = m.cursor_at
  WHERE s.enabled
  ORDER BY s.id
  FOR UPDATE OF s SKIP LOCKED
),
moved AS (
  UPDATE sched_schedule AS s
  SET cursor_at = m.cursor_at, next_plan_at = m.next_plan_at,
    run_count = s.run_count + m.runs,
    last_run_at = COALESCE(m.last_run_at, s.last_run_at), updated_at = now()
  FROM unnest(
    $schedules::uuid[], $cursors::timestamptz[], $next::timestamptz[],
    $runs::bigint[], $last_runs::timestamptz[]
  ) AS m (id, cursor_at, next_plan_at, runs, last_run_at)
  JOIN held ON held.id = m.id
  WHERE s.id = m.id
  RETURNING s.id, s.namespace_id, s.job_id, s.parameters
),
made AS (
  INSERT INTO sched_task (
    id, namespace_id, job_id, job_version, schedule_id, occurrence, route_id,
    planned_at, scheduled_at, due_at, rank_at, priority, parameters, max_retries
  )
  SELECT f.id, moved.namespace_id, j.id, j.version, moved.id, f.occurrence, j.route_id,
    f.planned_at, f.scheduled_at, f.scheduled_at,
    f.scheduled_at - j.priority * interval '1 minute', j.priority, moved.parameters,
    j.max_retries
  FROM unnest(
    $task_ids::uuid[], $task_schedules::uuid[], $occurrences::text[],
    $planned::timestamptz[], $scheduled::timestamptz[]
  ) AS f (id, schedule_id, occurrence, planned_at, scheduled_at)
  JOIN moved ON moved.id = f.schedule_id
  JOIN sched_job AS j ON j.id = moved.job_id
  RETURNING namespace_id
),
booked AS (
  INSERT INTO sched_ledger_gap (
    id, namespace_id, schedule_id, from_at, to_at, count, outcome, reason
  )
  SELECT g.id, moved.namespace_id, moved.id, g.from_at, g.to_at, g.count, g.outcome,
    g.reason
  FROM unnest(
    $gap_ids::uuid[], $gap_schedules::uuid[], $gap_from::timestamptz[],
    $gap_to::timestamptz[], $gap_counts::bigint[], $gap_outcomes::ledger_outcome[],
    $gap_reasons::text[]
  ) AS g (id, schedule_id, from_at, to_at, count, outcome, reason)
  JOIN moved ON moved.id = g.schedule_id
)
SELECT made.namespace_id, count(*) AS tasks,
  pg_notify('hetuflow', 'tasks:' || made.namespace_id)
FROM made GROUP BY made.namespace_id
