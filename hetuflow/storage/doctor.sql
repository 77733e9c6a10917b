-- What must hold between tables that no constraint holds together. Each statement is one
-- look: what it compares was so at one moment. Its rows are what is wrong, the first few
-- of them, each with a subject, what is the matter with it, and how many there are in all.
-- Only live partitions are read, and small tables.

-- name: missing_partitions
-- Weeks to come, and that of now, without a partition.
SELECT missing.name AS subject, 'there is no such partition' AS matter,
  count(*) OVER () AS count
FROM (
  SELECT parent.name || to_char(
    (now() AT TIME ZONE 'UTC') + make_interval(days => 7 * week.number), '_IYYY"w"IW')
    AS name
  FROM generate_series(0, $weeks::integer) AS week (number)
  CROSS JOIN (
    VALUES ('sched_task'), ('sched_task_instance'), ('sched_task_log')
  ) AS parent (name)
) AS missing
WHERE to_regclass(missing.name) IS NULL
ORDER BY missing.name
LIMIT $limit

-- name: orphaned_instances
-- Attempts under way that are not those of their tasks: the task is gone or has ended, is
-- not claimed, or by another token.
SELECT i.id::text AS subject,
  CASE WHEN t.id IS NULL THEN 'its task ' || i.task_id || ' is not live'
    ELSE 'its task ' || i.task_id || ' is ' || t.status || ' by another claim' END
    AS matter,
  count(*) OVER () AS count
FROM sched_task_instance AS i
LEFT JOIN sched_task AS t
  ON t.id = i.task_id AND t.namespace_id = i.namespace_id AND t.completed_at = 'infinity'
WHERE i.completed_at = 'infinity' AND i.status IN ('dispatched', 'running')
  AND (t.id IS NULL OR t.status NOT IN ('dispatched', 'running')
    OR t.claim_token IS DISTINCT FROM i.claim_token)
ORDER BY i.id
LIMIT $limit

-- name: doubled_attempts
-- Tasks with several attempts under way.
SELECT doubled.task_id::text AS subject,
  doubled.attempts || ' attempts are under way' AS matter, count(*) OVER () AS count
FROM (
  SELECT task_id, count(*) AS attempts
  FROM sched_task_instance
  WHERE completed_at = 'infinity' AND status IN ('dispatched', 'running')
  GROUP BY namespace_id, task_id
  HAVING count(*) > 1
) AS doubled
ORDER BY doubled.task_id
LIMIT $limit

-- name: claims_without_attempt
-- Tasks that an agent is said to have, without an attempt; those of broadcasts have none.
SELECT t.id::text AS subject, 'it is ' || t.status || ' without an attempt' AS matter,
  count(*) OVER () AS count
FROM sched_task AS t
WHERE t.completed_at = 'infinity' AND t.status IN ('dispatched', 'running')
  AND NOT EXISTS (
    SELECT FROM sched_task_instance AS i
    WHERE i.task_id = t.id AND i.namespace_id = t.namespace_id
      AND i.completed_at = 'infinity')
  AND NOT EXISTS (SELECT FROM sched_broadcast AS b WHERE b.task_id = t.id)
ORDER BY t.id
LIMIT $limit

-- name: forgotten_losses
-- Attempts that were lost and for which nobody has waited for long.
SELECT i.id::text AS subject, 'it is lost since ' || i.lost_at AS matter,
  count(*) OVER () AS count
FROM sched_task_instance AS i
WHERE i.completed_at = 'infinity' AND i.status = 'lost'
  AND i.lost_at < now() - make_interval(secs => $patience::double precision)
ORDER BY i.lost_at
LIMIT $limit

-- name: tasks_of_nothing
-- Live tasks whose job, version or route is gone.
SELECT t.id::text AS subject,
  CASE WHEN j.id IS NULL THEN 'there is no job ' || t.job_id
    WHEN v.job_id IS NULL
      THEN 'the job ' || j.name || ' has no version ' || t.job_version
    ELSE 'there is no route ' || t.route_id END AS matter,
  count(*) OVER () AS count
FROM sched_task AS t
LEFT JOIN sched_job AS j ON j.id = t.job_id
LEFT JOIN sched_job_version AS v ON v.job_id = t.job_id AND v.version = t.job_version
LEFT JOIN sched_route AS r ON r.id = t.route_id
WHERE t.completed_at = 'infinity'
  AND (j.id IS NULL OR v.job_id IS NULL OR r.id IS NULL)
ORDER BY t.id
LIMIT $limit

-- name: broadcasts_of_nothing
-- Broadcasts that are said to go on, without a task that does.
SELECT b.task_id::text AS subject, 'its task does not run' AS matter,
  count(*) OVER () AS count
FROM sched_broadcast AS b
WHERE NOT EXISTS (
  SELECT FROM sched_task AS t
  WHERE t.id = b.task_id AND t.namespace_id = b.namespace_id
    AND t.completed_at = 'infinity' AND t.status = 'running')
ORDER BY b.task_id
LIMIT $limit

-- name: overfull_lanes
-- Lanes with more holders than places. What changed before the limit did does not count:
-- it may have got its place under another one.
SELECT h.subject, h.matter, count(*) OVER () AS count
FROM (
  SELECT t.namespace_id || ' ' || t.lane AS subject,
    count(*) || ' hold a place of ' || max(p.places) AS matter
  FROM sched_task AS t
  JOIN sched_job AS j ON j.id = t.job_id AND j.updated_at < t.updated_at
  CROSS JOIN LATERAL (
    SELECT COALESCE(j.max_concurrent, CASE
      WHEN j.concurrency_key IS NOT NULL OR j.overlap <> 'allow' THEN 1 END) AS places
  ) AS p
  WHERE t.completed_at = 'infinity' AND t.lane IS NOT NULL
    AND t.status IN ('pending', 'dispatched', 'running', 'waiting_retry')
    AND p.places IS NOT NULL AND t.lane <> 'namespace'
  GROUP BY t.namespace_id, t.lane
  HAVING count(*) > max(p.places)
  UNION ALL
  SELECT n.id || ' namespace', count(*) || ' hold a place of ' || n.max_running
  FROM sched_task AS t
  JOIN sched_namespace AS n ON n.id = t.namespace_id AND n.updated_at < t.updated_at
  WHERE t.completed_at = 'infinity' AND t.lane IS NOT NULL
    AND t.status IN ('pending', 'dispatched', 'running', 'waiting_retry')
    AND n.max_running IS NOT NULL
  GROUP BY n.id
  HAVING count(*) > n.max_running
) AS h
ORDER BY h.subject
LIMIT $limit

-- name: unused_places
-- Lanes in which the first task has been due for long though there is a place for it, in
-- the lane and in the namespace, and its rate allows it.
SELECT w.subject, w.matter, count(*) OVER () AS count
FROM (
  SELECT first.id::text AS subject,
    'it waits in ' || first.lane || ' since ' || first.due_at || ', and a place is free'
    AS matter
  FROM (
    SELECT DISTINCT ON (namespace_id, lane) id, namespace_id, lane, job_id, due_at
    FROM sched_task
    WHERE completed_at = 'infinity' AND status = 'blocked' AND lane IS NOT NULL
      AND due_at < now() - make_interval(secs => $patience::double precision)
    ORDER BY namespace_id, lane, rank_at
  ) AS first
  JOIN sched_job AS j ON j.id = first.job_id
  JOIN sched_namespace AS n ON n.id = first.namespace_id
  LEFT JOIN sched_rate AS r ON r.job_id = j.id AND j.rate_count IS NOT NULL
  CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE lane = first.lane) AS holders, count(*) AS running,
      max(updated_at) AS changed_at
    FROM sched_task
    WHERE namespace_id = first.namespace_id AND completed_at = 'infinity'
      AND lane IS NOT NULL
      AND (lane = first.lane OR n.max_running IS NOT NULL)
      AND status IN ('pending', 'dispatched', 'running', 'waiting_retry')
  ) AS held
  WHERE held.holders < COALESCE(j.max_concurrent, CASE
      WHEN j.concurrency_key IS NOT NULL OR j.overlap <> 'allow' THEN 1 END, 2147483647)
    AND (n.max_running IS NULL OR held.running < n.max_running)
    AND COALESCE(
      r.arrival_at < now() - make_interval(secs => $patience), true)
    -- Places that have just been given do not count against those who wait for the next.
    AND COALESCE(
      held.changed_at < now() - make_interval(secs => $patience), true)
) AS w
ORDER BY w.subject
LIMIT $limit

-- name: late_schedules
-- Schedules that should have been planned long ago.
SELECT s.id::text AS subject,
  s.name || ' of ' || j.name || ' is planned up to ' || s.cursor_at AS matter,
  count(*) OVER () AS count
FROM sched_schedule AS s
JOIN sched_job AS j ON j.id = s.job_id AND j.status = 'enabled'
WHERE s.enabled
  AND s.next_plan_at < now() - make_interval(secs => $patience::double precision)
ORDER BY s.next_plan_at
LIMIT $limit

-- name: stale_keys
-- Idempotency keys that nobody has forgotten though they expired long ago.
SELECT known.namespace_id || ' ' || known.scope AS subject,
  'the oldest expired at ' || min(known.expires_at) AS matter,
  count(*) AS count
FROM (
  SELECT namespace_id, scope, expires_at FROM sched_idempotency
  WHERE expires_at < now() - interval '2 days'
  ORDER BY expires_at
  LIMIT $counted
) AS known
GROUP BY known.namespace_id, known.scope
ORDER BY known.namespace_id, known.scope
LIMIT $limit

-- name: keys_of_nothing
-- Idempotency keys of tasks that are not there: who repeats the request would be told of
-- one that nobody can read. The newest are looked at.
SELECT known.key AS subject, 'there is no task ' || known.task_id AS matter,
  count(*) OVER () AS count
FROM (
  SELECT namespace_id, key, (answer #>> '{}')::uuid AS task_id FROM sched_idempotency
  WHERE scope = 'task' AND expires_at >= now()
  ORDER BY expires_at DESC
  LIMIT $counted
) AS known
WHERE NOT EXISTS (
  SELECT FROM sched_task AS t
  WHERE t.id = known.task_id AND t.namespace_id = known.namespace_id)
ORDER BY known.key
LIMIT $limit

-- name: unserved_namespaces
-- Namespaces that no server plans for, or one that is not there, though others are.
SELECT n.id AS subject,
  CASE WHEN b.server_id IS NULL THEN 'no server plans for it'
    ELSE 'the server ' || COALESCE(s.name, b.server_id::text) || ' that plans for it is away'
  END AS matter,
  count(*) OVER () AS count
FROM sched_namespace AS n
LEFT JOIN sched_binding AS b ON b.namespace_id = n.id
LEFT JOIN sched_server AS s ON s.id = b.server_id
WHERE (b.server_id IS NULL OR s.id IS NULL OR s.stopped_at IS NOT NULL
    OR s.alive_until < now() - make_interval(secs => $patience::double precision))
  AND n.created_at < now() - make_interval(secs => $patience)
ORDER BY n.id
LIMIT $limit

-- name: vacant_offices
-- Offices that nobody has held for long though there are servers to hold them.
SELECT office.name AS subject,
  COALESCE('nobody has held it since ' || k.expires_at, 'nobody has ever held it')
    AS matter,
  count(*) OVER () AS count
FROM (VALUES ('leader')) AS office (name)
LEFT JOIN distributed_lock AS k ON k.name = office.name
WHERE COALESCE(
  k.expires_at < now() - make_interval(secs => $patience::double precision), true)
ORDER BY office.name
LIMIT $limit

-- name: claims_of_the_gone
-- Agents that have been gone for long and are still said to have tasks.
SELECT gone.subject, gone.matter, count(*) OVER () AS count
FROM (
  SELECT i.agent_id::text AS subject,
    COALESCE(min(a.name), 'a forgotten agent') || ' has ' || count(*)
      || COALESCE(' tasks, and its lease is over since ' || min(a.lease_until), ' tasks')
    AS matter
  FROM sched_task_instance AS i
  LEFT JOIN sched_agent AS a ON a.id = i.agent_id
  WHERE i.completed_at = 'infinity' AND i.status IN ('dispatched', 'running')
    AND GREATEST(a.lease_until, i.due_at, i.dispatched_at)
      < now() - make_interval(secs => $patience::double precision)
  GROUP BY i.agent_id
) AS gone
ORDER BY gone.subject
LIMIT $limit

-- name: skewed_clocks
-- Live servers whose clock was off the database's when they started. The clock of a server
-- stands in its id (RFC 9562, 5.7), made before the row and not long before.
SELECT s.name AS subject,
  'its clock was ' || round(abs(off.seconds)) || ' s '
    || CASE WHEN off.seconds > 0 THEN 'ahead' ELSE 'behind' END AS matter,
  count(*) OVER () AS count
FROM sched_server AS s
CROSS JOIN LATERAL (
  SELECT ('x' || left(replace(s.id::text, '-', ''), 12))::bit(48)::bigint / 1000.0
    - extract(epoch FROM s.created_at) AS seconds
) AS off
WHERE s.stopped_at IS NULL AND s.alive_until > now()
  AND (off.seconds > $tolerance::double precision OR off.seconds < -$patience::double precision)
ORDER BY s.name
LIMIT $limit

-- name: count_servers
-- How many servers are there now.
SELECT count(*) FROM sched_server WHERE stopped_at IS NULL AND alive_until > now()

-- name: list_planned_schedules
-- A page of the schedules whose planned times must all be accounted for.
SELECT s.id, s.name, now() AS now
FROM sched_schedule AS s
JOIN sched_job AS j ON j.id = s.job_id AND j.status = 'enabled'
WHERE s.enabled AND s.kind IN ('cron', 'time') AND NOT s.fixed_delay
  AND ($after::uuid IS NULL OR s.id > $after)
ORDER BY s.id
LIMIT $limit
