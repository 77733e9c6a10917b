-- name: list_due_schedules
-- Schedules with planned times up to the horizon, of some namespaces, the longest waiting
-- first. A namespace with a long lead looks as far ahead as it hands out. Whether the job
-- is enabled is looked up row by row, so that the index gives the order.
SELECT s.id, s.namespace_id, s.job_id, s.name, s.kind, s.enabled, s.timezone,
  s.cron_expression, s.run_at, s.interval_seconds, s.fixed_delay, s.replicas,
  s.event_name, s.event_filter, s.after, s.calendars, s.parameters, s.start_at, s.end_at,
  s.max_runs, s.jitter_seconds, s.dst, s.run_count, s.last_run_at, s.created_at,
  s.updated_at, s.revision, s.cursor_at, s.next_plan_at, s.taken,
  j.version AS job_version, j.misfire, j.overlap, j.max_concurrent, j.concurrency_key,
  j.rate_count, n.max_running, now() AS read_at,
  now() + make_interval(secs => GREATEST($horizon, n.lead + $margin)) AS until_at
FROM sched_namespace AS n
CROSS JOIN LATERAL (
  SELECT * FROM sched_schedule
  WHERE namespace_id = n.id AND enabled
    AND next_plan_at <= now() + make_interval(
      secs => GREATEST($horizon, n.lead + $margin))
    AND (SELECT status = 'enabled' FROM sched_job WHERE id = job_id)
  ORDER BY next_plan_at
  LIMIT $limit
) AS s
CROSS JOIN LATERAL (
  SELECT version, misfire, overlap, max_concurrent, concurrency_key, rate_count
  FROM sched_job WHERE id = s.job_id
  OFFSET 0
) AS j
WHERE n.id = ANY($namespaces::text[])
ORDER BY s.next_plan_at
LIMIT $limit

-- name: list_behind
-- Of some schedules that are locked, those with planned times up to a moment that are
-- neither tasks nor booked.
SELECT s.id, s.namespace_id, s.job_id, s.name, s.kind, s.enabled, s.timezone,
  s.cron_expression, s.run_at, s.interval_seconds, s.fixed_delay, s.replicas,
  s.event_name, s.event_filter, s.after, s.calendars, s.parameters, s.start_at, s.end_at,
  s.max_runs, s.jitter_seconds, s.dst, s.run_count, s.last_run_at, s.created_at,
  s.updated_at, s.revision, s.cursor_at, s.next_plan_at, s.taken,
  j.version AS job_version, j.misfire, j.overlap, j.max_concurrent, j.concurrency_key,
  j.rate_count, n.max_running, $now::timestamptz AS read_at, $now AS until_at
FROM sched_schedule AS s
JOIN sched_job AS j ON j.id = s.job_id AND j.status = 'enabled'
JOIN sched_namespace AS n ON n.id = s.namespace_id
WHERE s.id = ANY($ids::uuid[]) AND s.enabled AND s.next_plan_at <= $now

-- name: draw_back_cursors
-- Some schedules that are planned further ahead than anybody looks, because the clock was,
-- begin anew behind now. Gaps that were booked for times to come are forgotten, and the
-- cursor is set before the first of their times, so that those that have passed meanwhile
-- are caught up. What has a task keeps it and is not planned again.
WITH ahead AS (
  SELECT s.id, s.namespace_id
  FROM sched_schedule AS s
  JOIN sched_job AS j ON j.id = s.job_id AND j.status = 'enabled'
  JOIN sched_namespace AS n ON n.id = s.namespace_id
  WHERE s.enabled AND s.cursor_at > now() + make_interval(
      secs => $tolerance + GREATEST($horizon, n.lead + $margin))
    AND s.namespace_id = ANY($namespaces::text[])
  LIMIT $limit
  FOR UPDATE OF s SKIP LOCKED
),
forgotten AS (
  DELETE FROM sched_ledger_gap AS g
  USING ahead
  WHERE g.schedule_id = ahead.id AND g.to_at > now()
  RETURNING g.schedule_id, g.from_at
),
back AS (
  SELECT ahead.id, ahead.namespace_id,
    LEAST(now(), min(f.from_at) - interval '1 microsecond') AS cursor_at
  FROM ahead
  LEFT JOIN forgotten AS f ON f.schedule_id = ahead.id
  GROUP BY ahead.id, ahead.namespace_id
)
UPDATE sched_schedule AS s
SET cursor_at = back.cursor_at, next_plan_at = back.cursor_at,
  revision = s.revision + 1, planned_from = LEAST(s.planned_from, back.cursor_at),
  taken = ARRAY(
    SELECT t.planned_at FROM sched_task AS t
    WHERE t.namespace_id = back.namespace_id AND t.schedule_id = back.id
      AND t.planned_at > back.cursor_at
    ORDER BY t.planned_at
  ),
  updated_at = now()
FROM back
WHERE s.id = back.id
RETURNING s.id

-- name: plan_tasks
-- Move the cursors of schedules that are still as they were read, and for exactly those,
-- whose tasks and gaps stand between their first and last place in the arrays, insert
-- the tasks and book the planned times that will not run. A server plans for the
-- namespaces that are bound to it: their bindings are held meanwhile, and with another
-- epoch nothing is planned; without a server (null) no binding is asked for. Schedules
-- that somebody has in hand are passed over, and so are those whose job somebody changes,
-- or has another version than the one whose limits were looked at: who gives the tasks of
-- a job other lanes would not see those made here. After a clock that was set back an
-- occurrence that still has a task is passed over too, and so is a gap that is booked
-- already: one schedule's must not undo the plans of all. Tasks with a lane wait for a
-- place in it.
WITH bound AS MATERIALIZED (
  SELECT b.namespace_id
  FROM unnest($namespaces::text[], $epochs::bigint[]) AS e (namespace_id, epoch)
  JOIN sched_binding AS b ON b.namespace_id = e.namespace_id
    AND b.server_id = $server_id::uuid AND b.epoch = e.epoch
  ORDER BY b.namespace_id
  FOR SHARE OF b
),
held AS (
  SELECT m.*, found.row
  FROM unnest(
    $schedules::uuid[], $revisions::bigint[], $versions::integer[],
    $expected::timestamptz[], $cursors::timestamptz[], $next::timestamptz[],
    $last_runs::timestamptz[], $lanes::text[], $reasons::text[],
    $first_tasks::integer[], $last_tasks::integer[],
    $first_gaps::integer[], $last_gaps::integer[]
  ) AS m (
    id, revision, version, expected, cursor_at, next_plan_at, last_run_at, lane, reason,
    first_task, last_task, first_gap, last_gap
  )
  CROSS JOIN LATERAL (
    SELECT s.ctid AS row
    FROM sched_schedule AS s
    JOIN sched_job AS j ON j.id = s.job_id AND j.version = m.version
    WHERE s.id = m.id AND s.revision = m.revision AND s.cursor_at = m.expected
      AND s.enabled
      AND ($server_id IS NULL
        OR s.namespace_id IN (SELECT namespace_id FROM bound))
    FOR UPDATE OF s SKIP LOCKED
    FOR KEY SHARE OF j SKIP LOCKED
  ) AS found
),
moved AS (
  UPDATE sched_schedule AS s
  SET cursor_at = held.cursor_at, next_plan_at = held.next_plan_at,
    run_count = s.run_count + (held.last_task - held.first_task + 1),
    last_run_at = COALESCE(held.last_run_at, s.last_run_at),
    taken = CASE WHEN held.cursor_at >= ALL (s.taken) THEN '{}' ELSE s.taken END,
    updated_at = now()
  FROM held
  WHERE s.ctid = held.row AND s.id = held.id
  RETURNING s.id, s.namespace_id, s.job_id, s.parameters, held.lane, held.reason,
    held.first_task, held.last_task, held.first_gap, held.last_gap
),
made AS (
  INSERT INTO sched_task (
    id, namespace_id, job_id, job_version, schedule_id, occurrence, route_id, status,
    reason, lane, cause, planned_at, scheduled_at, due_at, rank_at, start_by, end_by,
    priority, parameters, max_retries
  )
  SELECT f.id, moved.namespace_id, j.id, j.version, moved.id,
    extract(epoch FROM f.planned_at)::text, j.route_id,
    CASE WHEN moved.lane IS NULL THEN 'pending' ELSE 'blocked' END::task_status,
    moved.reason, moved.lane, f.cause, f.planned_at, f.scheduled_at, f.due_at,
    f.due_at - j.priority * interval '1 minute',
    f.due_at + make_interval(secs => j.start_deadline),
    f.due_at + make_interval(secs => j.total_timeout),
    j.priority, moved.parameters, j.max_retries
  FROM moved
  CROSS JOIN LATERAL (
    SELECT id, version, route_id, priority, max_retries, start_deadline, total_timeout
    FROM sched_job WHERE id = moved.job_id
    OFFSET 0
  ) AS j
  CROSS JOIN LATERAL unnest(
    ($task_ids::uuid[])[moved.first_task:moved.last_task],
    ($planned::timestamptz[])[moved.first_task:moved.last_task],
    ($scheduled::timestamptz[])[moved.first_task:moved.last_task],
    ($due::timestamptz[])[moved.first_task:moved.last_task],
    ($causes::task_cause[])[moved.first_task:moved.last_task]
  ) AS f (id, planned_at, scheduled_at, due_at, cause)
  ON CONFLICT DO NOTHING
  RETURNING namespace_id, status, due_at
),
booked AS (
  INSERT INTO sched_ledger_gap (
    id, namespace_id, schedule_id, from_at, to_at, count, outcome, reason
  )
  SELECT g.id, moved.namespace_id, moved.id, g.from_at, g.to_at, g.count, g.outcome,
    g.reason
  FROM moved
  CROSS JOIN LATERAL unnest(
    ($gap_ids::uuid[])[moved.first_gap:moved.last_gap],
    ($gap_from::timestamptz[])[moved.first_gap:moved.last_gap],
    ($gap_to::timestamptz[])[moved.first_gap:moved.last_gap],
    ($gap_counts::bigint[])[moved.first_gap:moved.last_gap],
    ($gap_outcomes::ledger_outcome[])[moved.first_gap:moved.last_gap],
    ($gap_reasons::text[])[moved.first_gap:moved.last_gap]
  ) AS g (id, from_at, to_at, count, outcome, reason)
  ON CONFLICT (schedule_id, from_at) DO NOTHING
)
SELECT planned.namespace_id, COALESCE(counted.tasks, 0) AS tasks,
  CASE WHEN counted.pending
    THEN pg_notify('hetuflow', 'tasks:' || planned.namespace_id) END,
  CASE WHEN counted.blocked
    THEN pg_notify('hetuflow', 'limits:' || planned.namespace_id) END
FROM (SELECT DISTINCT namespace_id FROM moved) AS planned
LEFT JOIN (
  SELECT namespace_id, count(*) AS tasks, bool_or(status = 'pending') AS pending,
    bool_or(status = 'blocked' AND due_at <= now()) AS blocked
  FROM made GROUP BY namespace_id
) AS counted USING (namespace_id)
