-- What is known of one task, to say why it is as it is. Each statement looks along an
-- index and no further than a limit; none reads history but that of the task itself.

-- name: find_circumstances
-- One task with what decides over it: job, route, namespace, schedule, rate, and the
-- server that plans for the namespace.
SELECT t.id, t.namespace_id, t.job_id, t.job_version, t.schedule_id, t.flow_run_id,
  t.status, t.reason, t.planned_at, t.scheduled_at, t.due_at, t.priority, t.parameters,
  t.attempts, t.max_retries, t.cancel_requested_at, t.cause, t.parent_id, t.start_by,
  t.end_by, t.created_at, t.updated_at,
  NULLIF(t.completed_at, 'infinity') AS completed_at,
  t.lane, t.rank_at, t.route_id, t.lost_attempts, now() AS now,
  j.name AS job_name, j.status AS job_status, j.overlap, j.max_concurrent,
  j.concurrency_key, j.rate_count, j.rate_seconds,
  r.selector, n.lead, n.max_running, s.name AS schedule_name, s.jitter_seconds,
  k.arrival_at, b.server_id, v.name AS server_name, v.heartbeat_at AS server_seen_at,
  COALESCE(v.stopped_at IS NULL AND v.alive_until > now(), false) AS server_alive
FROM sched_task AS t
JOIN sched_job AS j ON j.id = t.job_id
JOIN sched_namespace AS n ON n.id = t.namespace_id
LEFT JOIN sched_route AS r ON r.id = t.route_id
LEFT JOIN sched_schedule AS s ON s.id = t.schedule_id
LEFT JOIN sched_rate AS k ON k.job_id = t.job_id
LEFT JOIN sched_binding AS b ON b.namespace_id = t.namespace_id
LEFT JOIN sched_server AS v ON v.id = b.server_id
WHERE t.id = $id

-- name: list_attempts
-- The last attempts of a task with their agents, the newest first.
SELECT i.id, i.attempt, i.status, i.reason, i.exit_code, i.error_message, i.due_at,
  i.dispatched_at, i.started_at, i.start_error_ms,
  NULLIF(i.completed_at, 'infinity') AS completed_at,
  i.agent_id, a.name AS agent_name, a.lease_until, a.last_heartbeat_at, a.clock_offset_ms,
  COALESCE(a.session_id IS NOT NULL AND a.lease_until > now(), false) AS connected
FROM sched_task_instance AS i
LEFT JOIN sched_agent AS a ON a.id = i.agent_id
WHERE i.task_id = $task_id
ORDER BY i.id DESC
LIMIT $limit

-- name: count_ahead
-- How many blocked tasks of a lane, or claimable ones of a route, come before a rank, and
-- how many places of the lane and of its namespace are taken; each no further than a
-- limit.
SELECT
  (SELECT count(*) FROM (
    SELECT FROM sched_task
    WHERE namespace_id = $namespace_id AND completed_at = 'infinity'
      AND status = 'blocked' AND lane IS NOT NULL AND lane = $lane
      AND rank_at < $rank_at
    LIMIT $limit
  ) AS blocked) AS blocked,
  (SELECT count(*) FILTER (WHERE due_at <= now()) FROM (
    SELECT due_at FROM sched_task
    WHERE namespace_id = $namespace_id AND completed_at = 'infinity'
      AND route_id = $route_id AND status IN ('pending', 'waiting_retry')
      AND rank_at < $rank_at
    LIMIT $limit
  ) AS waiting) AS claimable,
  (SELECT count(*) FROM (
    SELECT FROM sched_task
    WHERE namespace_id = $namespace_id AND completed_at = 'infinity'
      AND lane IS NOT NULL AND lane = $lane
      AND status IN ('pending', 'dispatched', 'running', 'waiting_retry')
    LIMIT $limit
  ) AS held) AS holders,
  (SELECT count(*) FROM (
    SELECT FROM sched_task
    WHERE namespace_id = $namespace_id AND completed_at = 'infinity'
      AND lane IS NOT NULL AND $lane::text IS NOT NULL
      AND status IN ('pending', 'dispatched', 'running', 'waiting_retry')
    LIMIT $limit
  ) AS running) AS running

-- name: list_holders
-- Who holds the places of a lane, or, where that is null, of all lanes of the namespace.
SELECT t.id AS task_id, t.job_id, t.status, t.updated_at AS since, i.id AS instance_id,
  i.agent_id, a.name AS agent_name, i.started_at
FROM (
  SELECT id, job_id, status, updated_at FROM sched_task
  WHERE namespace_id = $namespace_id AND completed_at = 'infinity'
    AND lane IS NOT NULL AND ($lane::text IS NULL OR lane = $lane)
    AND status IN ('pending', 'dispatched', 'running', 'waiting_retry')
  LIMIT $limit
) AS t
LEFT JOIN LATERAL (
  SELECT id, agent_id, started_at FROM sched_task_instance
  WHERE namespace_id = $namespace_id AND task_id = t.id AND completed_at = 'infinity'
    AND attempt > 0 AND status <> 'lost'
  LIMIT 1
) AS i ON true
LEFT JOIN sched_agent AS a ON a.id = i.agent_id
ORDER BY t.updated_at, t.id

-- name: list_agents
-- The agents of a namespace that come nearest to what a selector asks for, with what each
-- lacks of it; those that can take work before those that cannot. Every row also says of
-- how many that was found out.
WITH asked AS (
  SELECT $selector::jsonb AS selector
),
judged AS (
  SELECT a.id, a.name, a.server_id, a.last_heartbeat_at, a.lease_until,
    CASE WHEN a.session_id IS NULL OR a.lease_until < now() THEN 'offline'
      WHEN a.drain_requested_at IS NOT NULL THEN 'draining'
      ELSE a.status END AS status,
    COALESCE((a.metrics ->> 'running')::integer, 0) AS running,
    COALESCE((a.capabilities ->> 'max_concurrent')::integer, 1) AS max_concurrent,
    asked.selector ? 'executor' AND NOT COALESCE(
      a.capabilities -> 'executors' ? (asked.selector ->> 'executor'), false)
      AS lacks_executor,
    asked.selector ? 'function' AND NOT COALESCE(
      a.capabilities -> 'functions' ? (asked.selector ->> 'function'), false)
      AS lacks_function,
    asked.selector ? 'agent' AND asked.selector ->> 'agent' <> a.id::text
      AS lacks_identity,
    ARRAY(
      SELECT label.key FROM jsonb_each_text(asked.selector -> 'labels') AS label
      WHERE (a.labels || a.label_overrides) ->> label.key IS DISTINCT FROM label.value
      ORDER BY label.key
    ) AS lacks_labels
  FROM sched_agent AS a
  CROSS JOIN asked
  WHERE $namespace_id = ANY(a.namespace_ids)
),
counted AS (
  SELECT j.*,
    j.lacks_executor::integer + j.lacks_function::integer + j.lacks_identity::integer
      + cardinality(j.lacks_labels) AS lacking
  FROM judged AS j
)
SELECT c.id, c.name, c.server_id, c.last_heartbeat_at, c.lease_until, c.status, c.running,
  c.max_concurrent, c.lacks_executor, c.lacks_function, c.lacks_identity, c.lacks_labels,
  c.lacking,
  count(*) OVER () AS agents,
  count(*) FILTER (WHERE c.lacking = 0 AND c.status IN ('online', 'busy')) OVER ()
    AS serving,
  sum(c.max_concurrent) FILTER (
    WHERE c.lacking = 0 AND c.status IN ('online', 'busy')) OVER () AS slots
FROM counted AS c
ORDER BY c.lacking, c.status NOT IN ('online', 'busy'), c.running >= c.max_concurrent,
  c.last_heartbeat_at DESC NULLS LAST, c.id
LIMIT $limit

-- name: list_children
-- The parts of a broadcast, those that go on first, with the agent of each. Every row also
-- says how many there are and how many go on.
SELECT c.id, c.status, c.reason, c.completed_at, r.selector ->> 'agent' AS agent_id, a.name AS agent_name,
  count(*) OVER () AS children,
  count(*) FILTER (WHERE c.completed_at IS NULL) OVER () AS live
FROM (
  SELECT id, status, reason, route_id, NULLIF(completed_at, 'infinity') AS completed_at
  FROM sched_task
  WHERE parent_id = $task_id
  ORDER BY id DESC
  LIMIT $limit
) AS c
LEFT JOIN sched_route AS r ON r.id = c.route_id
LEFT JOIN sched_agent AS a ON a.id = (r.selector ->> 'agent')::uuid
ORDER BY c.completed_at IS NOT NULL, c.id
LIMIT $shown
