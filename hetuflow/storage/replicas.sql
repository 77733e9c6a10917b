-- What is kept going: replicas of daemons, and the one task of a schedule whose interval is
-- counted from the end of the task before (replica 0). The lock of the schedule's row is
-- held by whoever changes any of it.

-- name: read_replicas
-- Schedules that keep something going, with each replica, its task if that is live, the
-- attempt under way, and the agent it is on or meant for. Null: of all schedules.
SELECT s.id AS schedule_id, s.namespace_id, s.job_id, s.kind, s.replicas,
  s.interval_seconds, s.start_at, s.end_at, s.max_runs, s.run_count,
  s.enabled AND j.status = 'enabled' AS enabled, now() AS read_at,
  r.replica, r.generation, r.task_id, r.failures, r.next_at,
  t.status, t.due_at, t.cancel_requested_at IS NOT NULL AS ending,
  t.job_version <> j.version OR t.parameters <> s.parameters AS stale,
  attempt.started_at, COALESCE(attempt.agent_id, r.agent_id) AS agent_id,
  a.status AS agent_status, a.session_id IS NOT NULL AND a.lease_until > now() AS connected,
  a.lease_until > now() AS leased
FROM sched_schedule AS s
JOIN sched_job AS j ON j.id = s.job_id
LEFT JOIN sched_replica AS r ON r.schedule_id = s.id
LEFT JOIN LATERAL (
  SELECT status, due_at, cancel_requested_at, job_version, parameters
  FROM sched_task
  WHERE id = r.task_id AND namespace_id = s.namespace_id AND completed_at = 'infinity'
  OFFSET 0
) AS t ON true
LEFT JOIN LATERAL (
  SELECT agent_id, started_at FROM sched_task_instance
  WHERE task_id = r.task_id AND namespace_id = s.namespace_id
    AND completed_at = 'infinity' AND attempt > 0 AND status <> 'lost'
  OFFSET 0
) AS attempt ON true
LEFT JOIN sched_agent AS a ON a.id = COALESCE(attempt.agent_id, r.agent_id)
WHERE (s.kind = 'daemon' OR s.fixed_delay)
  AND ($namespaces::text[] IS NULL OR s.namespace_id = ANY($namespaces))
  AND ($id::uuid IS NULL OR s.id = $id)
ORDER BY s.id, r.replica

-- name: hold_schedule
-- Keep editors and other servers away from a schedule, unless one of them has it in hand,
-- and its job as it is: limits that it got before the next task is made would miss that.
SELECT s.parameters, s.jitter_seconds, j.id, j.overlap, j.max_concurrent, j.concurrency_key,
  j.rate_count, j.route_id, r.selector, n.max_running
FROM sched_schedule AS s
JOIN sched_job AS j ON j.id = s.job_id
JOIN sched_route AS r ON r.id = j.route_id
JOIN sched_namespace AS n ON n.id = s.namespace_id
WHERE s.id = $id
FOR NO KEY UPDATE OF s SKIP LOCKED
FOR KEY SHARE OF j SKIP LOCKED

-- name: read_ends
-- How tasks that are no longer live ended, and when their last attempt had begun.
SELECT ended.id, ended.status, ended.completed_at, (
    SELECT max(i.started_at) FROM sched_task_instance AS i WHERE i.task_id = ended.id
  ) AS started_at, v.config
FROM unnest($ids::uuid[]) AS wanted (id)
CROSS JOIN LATERAL (
  SELECT id, status, completed_at, job_id, job_version FROM sched_task
  WHERE id = wanted.id AND namespace_id = $namespace_id AND completed_at < 'infinity'
  OFFSET 0
) AS ended
JOIN sched_job_version AS v
  ON v.job_id = ended.job_id AND v.version = ended.job_version

-- name: insert_replicas
-- Make replicas that there are none of.
INSERT INTO sched_replica (schedule_id, replica, namespace_id, next_at)
SELECT $schedule_id, number, $namespace_id, $next_at
FROM unnest($replicas::integer[]) AS wanted (number)
ON CONFLICT (schedule_id, replica) DO NOTHING

-- name: settle_replicas
-- Let replicas wait for their next start, or, without one (null), for nothing.
UPDATE sched_replica AS r
SET task_id = NULL, agent_id = NULL, failures = w.failures, next_at = w.next_at,
  updated_at = now()
FROM unnest($replicas::integer[], $failures::integer[], $next::timestamptz[])
  AS w (replica, failures, next_at)
WHERE r.schedule_id = $schedule_id AND r.replica = w.replica

-- name: start_replicas
-- Make the next task of replicas, generation by generation. Tasks of a daemon are not
-- retried and know no deadlines: what ends is started anew.
WITH started AS (
  UPDATE sched_replica AS r
  SET generation = r.generation + 1, task_id = w.task_id, agent_id = w.agent_id,
    next_at = NULL, updated_at = now()
  FROM unnest($replicas::integer[], $task_ids::uuid[], $agents::uuid[], $routes::bigint[])
    AS w (replica, task_id, agent_id, route_id)
  WHERE r.schedule_id = $schedule_id AND r.replica = w.replica
  RETURNING r.replica, r.generation, r.task_id, w.route_id
),
made AS (
  INSERT INTO sched_task (
    id, namespace_id, job_id, job_version, schedule_id, occurrence, cause, route_id,
    status, reason, lane, planned_at, scheduled_at, due_at, rank_at, start_by, end_by,
    priority, parameters, max_retries
  )
  SELECT started.task_id, s.namespace_id, j.id, j.version, s.id,
    'r' || started.replica || 'g' || started.generation,
    CASE WHEN s.kind = 'daemon' THEN 'daemon' ELSE 'schedule' END::task_cause,
    started.route_id,
    CASE WHEN $lane::text IS NULL THEN 'pending' ELSE 'blocked' END::task_status,
    $reason, $lane, $planned_at::timestamptz, $scheduled_at::timestamptz, $scheduled_at,
    $scheduled_at - j.priority * interval '1 minute',
    CASE WHEN s.fixed_delay
      THEN $scheduled_at + make_interval(secs => j.start_deadline) END,
    CASE WHEN s.fixed_delay
      THEN $scheduled_at + make_interval(secs => j.total_timeout) END,
    j.priority, s.parameters, CASE WHEN s.fixed_delay THEN j.max_retries ELSE 0 END
  FROM started
  JOIN sched_schedule AS s ON s.id = $schedule_id
  JOIN sched_job AS j ON j.id = s.job_id
),
counted AS (
  UPDATE sched_schedule AS s
  SET run_count = s.run_count + (SELECT count(*) FROM started),
    last_run_at = $planned_at, updated_at = now()
  WHERE s.id = $schedule_id
  RETURNING s.namespace_id
)
SELECT pg_notify('hetuflow',
  CASE WHEN $lane IS NULL THEN 'tasks:' ELSE 'limits:' END || namespace_id)
FROM counted

-- name: stop_replicas
-- Cancel live tasks of a daemon: at once what no agent has; for the others the agent is
-- asked.
WITH stopped AS (
  UPDATE sched_task AS t
  SET cancel_requested_at = now(), reason = w.reason,
    status = CASE WHEN t.status IN ('dispatched', 'running') THEN t.status
      ELSE 'cancelled' END,
    claim_token = CASE WHEN t.status IN ('dispatched', 'running') THEN t.claim_token END,
    completed_at = CASE WHEN t.status IN ('dispatched', 'running')
      THEN 'infinity'::timestamptz ELSE now() END,
    updated_at = now()
  FROM unnest($ids::uuid[], $reasons::text[]) AS w (id, reason)
  WHERE t.id = w.id AND t.namespace_id = $namespace_id AND t.completed_at = 'infinity'
    AND t.cancel_requested_at IS NULL
  RETURNING t.status
)
SELECT count(*) AS stopped, pg_notify('hetuflow', 'cancels') FROM stopped

-- name: list_live_replicas
-- The live tasks of a daemon that is being deleted.
SELECT r.task_id
FROM sched_replica AS r
JOIN sched_schedule AS s ON s.id = r.schedule_id AND s.kind = 'daemon'
WHERE r.schedule_id = $schedule_id AND r.task_id IS NOT NULL

-- name: restart_intervals
-- Of schedules that were edited, let what waits count its interval from now.
UPDATE sched_replica AS r
SET next_at = GREATEST(
    now() + make_interval(secs => s.interval_seconds), s.start_at),
  updated_at = now()
FROM sched_schedule AS s
WHERE r.schedule_id = s.id AND s.id = $id AND s.fixed_delay AND r.next_at IS NOT NULL

-- name: count_running
-- Of some agents those that have a free place, with how much each runs.
SELECT a.id AS agent_id,
  (SELECT count(*) FROM sched_task_instance AS i
    WHERE i.agent_id = a.id AND i.completed_at = 'infinity') AS running
FROM sched_agent AS a
WHERE a.id = ANY($agents::uuid[]) AND a.status = 'online'
ORDER BY a.id
