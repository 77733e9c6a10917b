-- name: list_loads
-- A page of the schedules that make tasks by themselves, with the limits of their jobs.
SELECT s.id, s.namespace_id, s.job_id, s.name, s.kind, s.enabled, s.timezone,
  s.cron_expression, s.run_at, s.interval_seconds, s.fixed_delay, s.replicas,
  s.event_name, s.event_filter, s.after, s.calendars, s.parameters, s.start_at, s.end_at,
  s.max_runs, s.jitter_seconds, s.dst, s.run_count, s.last_run_at, s.created_at,
  s.updated_at, j.name AS job_name, j.priority, j.overlap, j.max_concurrent,
  j.concurrency_key, j.rate_count, j.rate_seconds, j.start_deadline, n.max_running
FROM sched_schedule AS s
JOIN sched_job AS j ON j.id = s.job_id AND j.status = 'enabled'
JOIN sched_namespace AS n ON n.id = s.namespace_id
WHERE s.enabled AND s.kind IN ('cron', 'time', 'daemon')
  AND ($namespace_id::text IS NULL OR s.namespace_id = $namespace_id)
  AND s.id <> ALL ($without::uuid[])
  AND ($cursor::uuid IS NULL OR s.id > $cursor)
ORDER BY s.id
LIMIT $limit

-- name: list_limits
-- What some jobs say of limits.
SELECT j.id AS job_id, j.namespace_id, j.name AS job_name, j.priority, j.overlap,
  j.max_concurrent, j.concurrency_key, j.rate_count, j.rate_seconds, j.start_deadline,
  n.max_running
FROM sched_job AS j
JOIN sched_namespace AS n ON n.id = j.namespace_id
WHERE j.id = ANY($ids::uuid[]) AND j.status <> 'deleted'

-- name: list_rooms
-- How many tasks some namespaces let be under way.
SELECT id, max_running FROM sched_namespace WHERE id = ANY($ids::text[])

-- name: select_upcoming
-- One schedule with what its coming runs depend on: of how many there are tasks already.
SELECT s.id, s.namespace_id, s.job_id, s.name, s.kind, s.enabled, s.timezone,
  s.cron_expression, s.run_at, s.interval_seconds, s.fixed_delay, s.replicas,
  s.event_name, s.event_filter, s.after, s.calendars, s.parameters, s.start_at, s.end_at,
  s.max_runs, s.jitter_seconds, s.dst, s.run_count, s.last_run_at, s.created_at,
  s.updated_at, now() AS read_at, j.status = 'enabled' AS job_enabled,
  (SELECT count(*) FROM sched_task AS t
    WHERE t.completed_at = 'infinity' AND t.namespace_id = s.namespace_id
      AND t.schedule_id = s.id AND t.planned_at > now()) AS planned
FROM sched_schedule AS s
JOIN sched_job AS j ON j.id = s.job_id
WHERE s.id = $id
