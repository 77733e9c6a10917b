-- name: read_job
-- A job, what its tasks wait for, and the database's time now, after all locks.
SELECT clock_timestamp() AS read_at, j.id, j.status, j.name, j.overlap, j.max_concurrent, j.concurrency_key,
  j.rate_count, n.max_running
FROM sched_job AS j
JOIN sched_namespace AS n ON n.id = j.namespace_id
WHERE j.id = $id

-- name: list_planned
-- For which times of a span a schedule has tasks, ended ones too.
SELECT DISTINCT planned_at FROM sched_task
WHERE namespace_id = $namespace_id AND schedule_id = $id
  AND planned_at >= $from::timestamptz AND planned_at <= $to::timestamptz

-- name: insert_tasks
-- Make tasks for planned times that have passed; one that has a task is left alone.
WITH made AS (
  INSERT INTO sched_task (
    id, namespace_id, job_id, job_version, schedule_id, occurrence, route_id, status,
    reason, lane, cause, planned_at, scheduled_at, due_at, rank_at, start_by, end_by,
    priority, parameters, max_retries
  )
  SELECT f.id, s.namespace_id, j.id, j.version, s.id,
    extract(epoch FROM f.planned_at)::text, j.route_id,
    CASE WHEN $lane::text IS NULL THEN 'pending' ELSE 'blocked' END::task_status,
    $reason::text, $lane, 'backfill', f.planned_at, f.scheduled_at, f.due_at,
    f.due_at - j.priority * interval '1 minute',
    f.due_at + make_interval(secs => j.start_deadline),
    f.due_at + make_interval(secs => j.total_timeout),
    j.priority, s.parameters, j.max_retries
  FROM sched_schedule AS s
  JOIN sched_job AS j ON j.id = s.job_id
  CROSS JOIN unnest(
    $ids::uuid[], $planned::timestamptz[], $scheduled::timestamptz[],
    $due::timestamptz[]
  ) AS f (id, planned_at, scheduled_at, due_at)
  WHERE s.id = $schedule_id
  ON CONFLICT DO NOTHING
  RETURNING id, namespace_id, planned_at
)
SELECT id FROM made ORDER BY planned_at

-- name: hint
-- Say that tasks are due.
SELECT pg_notify('hetuflow', $kind::text || ':' || $namespace_id::text)
