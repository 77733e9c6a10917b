-- name: share_job
-- The job of a schedule, kept as it is until the end of the transaction.
SELECT id, namespace_id, name, status FROM sched_job WHERE id = $id FOR SHARE

-- name: find_job
-- Whose schedule it is.
SELECT job_id FROM sched_schedule WHERE id = $id

-- name: read_clock
-- The database's time now, after whatever was waited for.
SELECT clock_timestamp()

-- name: insert_schedule
-- Make a schedule; nothing comes back when its job has one of that name.
INSERT INTO sched_schedule (
  id, namespace_id, job_id, name, kind, enabled, timezone, cron_expression, run_at,
  interval_seconds, fixed_delay, replicas, event_name, event_filter, after, calendars,
  parameters, start_at, end_at, max_runs, jitter_seconds, dst,
  cursor_at, next_plan_at, planned_from, created_at, updated_at
)
VALUES (
  $id, $namespace_id, $job_id, $name, $kind, $enabled, $timezone, $cron_expression,
  $run_at, $interval_seconds, $fixed_delay, $replicas, $event_name, $event_filter,
  $after, $calendars, $parameters, $start_at, $end_at, $max_runs,
  $jitter_seconds, $dst, $cursor_at, $next_plan_at, $cursor_at, $created_at, $created_at
)
ON CONFLICT (job_id, name) DO NOTHING
RETURNING id

-- name: select_schedules
-- Some schedules, with what their next run depends on. The last run is one whose time has
-- come, which the last one planned may not be.
SELECT s.id, s.namespace_id, s.job_id, s.name, s.kind, s.enabled, s.timezone,
  s.cron_expression, s.run_at, s.interval_seconds, s.fixed_delay, s.replicas,
  s.event_name, s.event_filter, s.after, s.calendars, s.parameters, s.start_at, s.end_at,
  s.max_runs, s.jitter_seconds, s.dst, s.run_count, s.created_at, s.updated_at,
  s.cursor_at, now() AS read_at, j.status = 'enabled' AS job_enabled,
  CASE WHEN s.last_run_at > now() THEN
    (SELECT max(t.planned_at) FROM sched_task AS t
      WHERE t.namespace_id = s.namespace_id AND t.schedule_id = s.id
        AND t.planned_at <= now())
    ELSE s.last_run_at END AS last_run_at,
  (SELECT min(t.planned_at) FROM sched_task AS t
    WHERE t.completed_at = 'infinity' AND t.namespace_id = s.namespace_id
      AND t.schedule_id = s.id AND t.planned_at > now()) AS planned_run_at,
  (SELECT r.next_at FROM sched_replica AS r
    WHERE r.schedule_id = s.id AND r.replica = 0 AND s.fixed_delay
      AND (s.end_at IS NULL OR r.next_at <= s.end_at)) AS kept_next_at
FROM sched_schedule AS s
JOIN sched_job AS j ON j.id = s.job_id
WHERE s.id = ANY($ids::uuid[])
ORDER BY s.id

-- name: list_schedules
-- A page of schedules, newest first, as in select_schedules.
SELECT s.id, s.namespace_id, s.job_id, s.name, s.kind, s.enabled, s.timezone,
  s.cron_expression, s.run_at, s.interval_seconds, s.fixed_delay, s.replicas,
  s.event_name, s.event_filter, s.after, s.calendars, s.parameters, s.start_at, s.end_at,
  s.max_runs, s.jitter_seconds, s.dst, s.run_count, s.created_at, s.updated_at,
  s.cursor_at, now() AS read_at, j.status = 'enabled' AS job_enabled,
  CASE WHEN s.last_run_at > now() THEN
    (SELECT max(t.planned_at) FROM sched_task AS t
      WHERE t.namespace_id = s.namespace_id AND t.schedule_id = s.id
        AND t.planned_at <= now())
    ELSE s.last_run_at END AS last_run_at,
  (SELECT min(t.planned_at) FROM sched_task AS t
    WHERE t.completed_at = 'infinity' AND t.namespace_id = s.namespace_id
      AND t.schedule_id = s.id AND t.planned_at > now()) AS planned_run_at,
  (SELECT r.next_at FROM sched_replica AS r
    WHERE r.schedule_id = s.id AND r.replica = 0 AND s.fixed_delay
      AND (s.end_at IS NULL OR r.next_at <= s.end_at)) AS kept_next_at
FROM sched_schedule AS s
JOIN sched_job AS j ON j.id = s.job_id
WHERE ($namespace_id::text IS NULL OR s.namespace_id = $namespace_id)
  AND ($job_id::uuid IS NULL OR s.job_id = $job_id)
  AND ($kind::schedule_kind IS NULL OR s.kind = $kind)
  AND ($enabled::boolean IS NULL OR s.enabled = $enabled)
  AND ($cursor::uuid IS NULL OR s.id < $cursor)
ORDER BY s.id DESC
LIMIT $limit

-- name: lock_schedules
-- Keep planners and editors away from schedules until the end of the transaction.
SELECT id FROM sched_schedule
WHERE id = $id OR job_id = $job_id
ORDER BY id
FOR UPDATE

-- name: update_schedule
-- Change what is given.
UPDATE sched_schedule
SET name = CASE WHEN $set_name THEN $name ELSE name END,
  timezone = CASE WHEN $set_timezone THEN $timezone ELSE timezone END,
  cron_expression =
    CASE WHEN $set_cron_expression THEN $cron_expression ELSE cron_expression END,
  run_at = CASE WHEN $set_run_at THEN $run_at ELSE run_at END,
  interval_seconds =
    CASE WHEN $set_interval_seconds THEN $interval_seconds ELSE interval_seconds END,
  fixed_delay = CASE WHEN $set_fixed_delay THEN $fixed_delay ELSE fixed_delay END,
  replicas = CASE WHEN $set_replicas THEN $replicas ELSE replicas END,
  event_name = CASE WHEN $set_event_name THEN $event_name ELSE event_name END,
  event_filter = CASE WHEN $set_event_filter THEN $event_filter ELSE event_filter END,
  after = CASE WHEN $set_after THEN $after ELSE after END,
  calendars = CASE WHEN $set_calendars THEN $calendars ELSE calendars END,
  parameters = CASE WHEN $set_parameters THEN $parameters ELSE parameters END,
  start_at = CASE WHEN $set_start_at THEN $start_at ELSE start_at END,
  end_at = CASE WHEN $set_end_at THEN $end_at ELSE end_at END,
  max_runs = CASE WHEN $set_max_runs THEN $max_runs ELSE max_runs END,
  jitter_seconds =
    CASE WHEN $set_jitter_seconds THEN $jitter_seconds ELSE jitter_seconds END,
  dst = CASE WHEN $set_dst THEN $dst ELSE dst END,
  updated_at = now()
WHERE id = $id

-- name: switch_schedules
-- Enable or disable one schedule, or every schedule of a job.
UPDATE sched_schedule
SET enabled = $enabled, updated_at = now()
WHERE id = $id OR job_id = $job_id

-- name: wake_schedules
-- Let schedules of a job be looked at anew that plan no more: those that have no planned
-- time left are found to have none once more.
UPDATE sched_schedule AS s
SET next_plan_at = s.cursor_at, updated_at = now()
FROM sched_job AS j
WHERE j.id = $job_id AND j.status = 'enabled' AND s.job_id = j.id AND s.enabled
  AND s.kind IN ('cron', 'time') AND NOT s.fixed_delay AND s.next_plan_at IS NULL

-- name: delete_schedule
-- Remove a schedule; what it has planned and agents have taken goes on.
DELETE FROM sched_schedule WHERE id = $id

-- name: delete_future_tasks
-- Take back what is planned for later and nobody has taken; a backfill was no run that
-- had been counted.
WITH gone AS (
  DELETE FROM sched_task
  WHERE completed_at = 'infinity' AND namespace_id = $namespace_id
    AND schedule_id = ANY($ids::uuid[]) AND status IN ('pending', 'paused', 'blocked')
    AND attempts = 0 AND planned_at > $now
  RETURNING schedule_id, cause
)
SELECT schedule_id, count(*) FILTER (WHERE cause <> 'backfill') AS count
FROM gone GROUP BY schedule_id

-- name: move_cursors
-- Begin to plan anew, from these times; plans made from older readings are refused. Tasks
-- that are there to stay, or have ended before their time, are not planned again.
UPDATE sched_schedule AS s
SET cursor_at = m.cursor_at, next_plan_at = m.next_plan_at, revision = s.revision + 1,
  planned_from = m.cursor_at,
  taken = ARRAY(
    SELECT t.planned_at FROM sched_task AS t
    WHERE t.namespace_id = $namespace_id AND t.schedule_id = s.id
      AND t.planned_at > m.cursor_at
    ORDER BY t.planned_at
  ),
  run_count = GREATEST(s.run_count - m.gone, 0), updated_at = now()
FROM unnest(
  $ids::uuid[], $cursors::timestamptz[], $next::timestamptz[], $gone::bigint[]
) AS m (id, cursor_at, next_plan_at, gone)
WHERE s.id = m.id

-- name: notify_schedules
-- Hint that schedules may be due earlier than thought.
SELECT pg_notify('hetuflow', 'schedules')
