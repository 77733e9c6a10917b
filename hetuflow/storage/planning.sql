-- name: list_due_schedules
-- Schedules with planned times up to the horizon, the longest waiting first. A namespace
-- with a long lead looks as far ahead as it hands out.
SELECT s.id, s.namespace_id, s.job_id, s.name, s.kind, s.enabled, s.timezone,
  s.cron_expression, s.run_at, s.interval_seconds, s.fixed_delay, s.replicas,
  s.event_name, s.event_filter, s.after, s.calendars, s.parameters, s.start_at, s.end_at,
  s.max_runs, s.jitter_seconds, s.dst, s.run_count, s.last_run_at, s.created_at,
  s.updated_at, s.revision, s.cursor_at, s.taken, now() AS read_at,
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

-- name: list_behind
-- Of some schedules that are locked, those with planned times up to a moment that are
-- neither tasks nor booked.
SELECT s.id, s.namespace_id, s.job_id, s.name, s.kind, s.enabled, s.timezone,
  s.cron_expression, s.run_at, s.interval_seconds, s.fixed_delay, s.replicas,
  s.event_name, s.event_filter, s.after, s.calendars, s.parameters, s.start_at, s.end_at,
  s.max_runs, s.jitter_seconds, s.dst, s.run_count, s.last_run_at, s.created_at,
  s.updated_at, s.revision, s.cursor_at, s.taken, $now::timestamptz AS read_at,
  $now AS until_at
FROM sched_schedule AS s
JOIN sched_job AS j ON j.id = s.job_id AND j.status = 'enabled'
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
  revision = s.revision + 1,
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
-- the tasks and book the planned times that will not run. Schedules that another server
-- has in hand are passed over. After a clock that was set back an occurrence that still
-- has a task is passed over too, and so is a gap that is booked already: one schedule's
-- must not undo the plans of all. A gap that begins with the planned time after the last
-- one makes that one longer.
WITH held AS (
  SELECT m.*, found.row, found.first_at
  FROM unnest(
    $schedules::uuid[], $revisions::bigint[], $expected::timestamptz[],
    $cursors::timestamptz[], $next::timestamptz[], $last_runs::timestamptz[],
    $first_tasks::integer[], $last_tasks::integer[],
    $first_gaps::integer[], $last_gaps::integer[]
  ) AS m (
    id, revision, expected, cursor_at, next_plan_at, last_run_at, first_task, last_task,
    first_gap, last_gap
  )
  CROSS JOIN LATERAL (
    SELECT s.ctid AS row, s.next_plan_at AS first_at
    FROM sched_schedule AS s
    WHERE s.id = m.id AND s.revision = m.revision AND s.cursor_at = m.expected
      AND s.enabled
    FOR UPDATE SKIP LOCKED
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
  RETURNING s.id, s.namespace_id, s.job_id, s.parameters, held.expected,
    held.first_at, held.first_task, held.last_task, held.first_gap, held.last_gap
),
made AS (
  INSERT INTO sched_task (
    id, namespace_id, job_id, job_version, schedule_id, occurrence, route_id,
    planned_at, scheduled_at, due_at, rank_at, priority, parameters, max_retries
  )
  SELECT f.id, moved.namespace_id, j.id, j.version, moved.id,
    extract(epoch FROM f.planned_at)::text, j.route_id, f.planned_at, f.scheduled_at,
    f.scheduled_at, f.scheduled_at - j.priority * interval '1 minute', j.priority,
    moved.parameters, j.max_retries
  FROM moved
  CROSS JOIN LATERAL (
    SELECT id, version, route_id, priority, max_retries
    FROM sched_job WHERE id = moved.job_id
    OFFSET 0
  ) AS j
  CROSS JOIN LATERAL unnest(
    ($task_ids::uuid[])[moved.first_task:moved.last_task],
    ($planned::timestamptz[])[moved.first_task:moved.last_task],
    ($scheduled::timestamptz[])[moved.first_task:moved.last_task]
  ) AS f (id, planned_at, scheduled_at)
  ON CONFLICT DO NOTHING
  RETURNING namespace_id
),
gaps AS (
  SELECT g.id, moved.namespace_id, moved.id AS schedule_id, g.from_at, g.to_at, g.count,
    g.outcome, g.reason, moved.expected, moved.first_at
  FROM moved
  CROSS JOIN LATERAL unnest(
    ($gap_ids::uuid[])[moved.first_gap:moved.last_gap],
    ($gap_from::timestamptz[])[moved.first_gap:moved.last_gap],
    ($gap_to::timestamptz[])[moved.first_gap:moved.last_gap],
    ($gap_counts::bigint[])[moved.first_gap:moved.last_gap],
    ($gap_outcomes::ledger_outcome[])[moved.first_gap:moved.last_gap],
    ($gap_reasons::text[])[moved.first_gap:moved.last_gap]
  ) AS g (id, from_at, to_at, count, outcome, reason)
),
extended AS (
  UPDATE sched_ledger_gap AS known
  SET to_at = gaps.to_at, count = known.count + gaps.count, updated_at = now()
  FROM gaps
  WHERE known.schedule_id = gaps.schedule_id AND known.to_at = gaps.expected
    AND gaps.from_at = gaps.first_at
    AND known.outcome = gaps.outcome AND known.reason = gaps.reason
  RETURNING gaps.id
),
booked AS (
  INSERT INTO sched_ledger_gap (
    id, namespace_id, schedule_id, from_at, to_at, count, outcome, reason
  )
  SELECT id, namespace_id, schedule_id, from_at, to_at, count, outcome, reason
  FROM gaps
  WHERE NOT EXISTS (SELECT FROM extended WHERE extended.id = gaps.id)
  ON CONFLICT (schedule_id, from_at) DO NOTHING
)
SELECT made.namespace_id, count(*) AS tasks,
  pg_notify('hetuflow', 'tasks:' || made.namespace_id)
FROM made GROUP BY made.namespace_id
