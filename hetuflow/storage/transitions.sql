-- Every status change of tasks and instances. The guards repeat the table in
-- protocol/states.py; a test runs every event on every status and compares.
--
-- Rows are found by LATERAL and changed by ctid, once they are locked. A plain join with
-- the hot table is planned by its statistics, and those of a table that fills and empties
-- in seconds are always wrong: the planner then reads all of it for each row of a batch.
-- A ctid has a trap: a row that another transaction changed while the lock was waited for
-- is locked in its new place, where this statement's snapshot does not see it, and an
-- UPDATE by that ctid finds nothing. A claim leaves such a task to the next one; a record
-- changes neither the instance nor its task and says that it must be tried again.

-- name: claim_tasks
-- Hand due and nearly due tasks of one namespace to agents of one set of routes.
-- run_agents and hold_agents name the agent of each place of the two budgets; floors are
-- the ranks below which a route was found empty. In a namespace with a limit only tasks
-- that have their place, which have a lane, are handed out. Agents whose session is not
-- the named one, or whose lease has run out, get nothing, and their places count for
-- nothing. Agents are locked in order of id, as heartbeats lock them.
WITH terms AS (
  SELECT
    lease,
    now() + make_interval(secs => lead) AS ahead,
    max_running
  FROM sched_namespace WHERE id = $namespace_id
),
agents AS (
  SELECT a.id
  FROM unnest($agents::uuid[], $sessions::uuid[]) AS offer (agent_id, session_id)
  JOIN sched_agent AS a ON a.id = offer.agent_id AND a.session_id = offer.session_id
  WHERE a.lease_until > now()
  ORDER BY a.id
  FOR SHARE OF a
),
run_places AS (
  SELECT array_agg(p.agent_id ORDER BY p.number) AS agent_ids
  FROM unnest($run_agents::uuid[]) WITH ORDINALITY AS p (agent_id, number)
  JOIN agents ON agents.id = p.agent_id
),
hold_places AS (
  SELECT array_agg(p.agent_id ORDER BY p.number) AS agent_ids
  FROM unnest($hold_agents::uuid[]) WITH ORDINALITY AS p (agent_id, number)
  JOIN agents ON agents.id = p.agent_id
),
due AS (
  SELECT found.row
  FROM unnest($routes::bigint[], $floors::timestamptz[]) AS route (id, floor)
  CROSS JOIN LATERAL (
    SELECT t.ctid AS row, t.rank_at
    FROM sched_task AS t
    WHERE t.namespace_id = $namespace_id AND t.completed_at = 'infinity'
      AND t.route_id = route.id AND t.status IN ('pending', 'waiting_retry')
      AND t.rank_at >= route.floor AND t.rank_at <= now() + interval '10 minutes'
      AND t.due_at <= now()
      AND (t.lane IS NOT NULL OR (SELECT max_running FROM terms) IS NULL)
    ORDER BY t.rank_at
    LIMIT cardinality($run_agents::uuid[])
    FOR UPDATE OF t SKIP LOCKED
  ) AS found
  ORDER BY found.rank_at
  LIMIT cardinality($run_agents::uuid[])
),
ahead AS (
  SELECT found.row
  FROM unnest($routes::bigint[]) AS route (id)
  CROSS JOIN terms
  CROSS JOIN LATERAL (
    SELECT t.ctid AS row, t.due_at
    FROM sched_task AS t
    WHERE t.namespace_id = $namespace_id AND t.completed_at = 'infinity'
      AND t.route_id = route.id AND t.status IN ('pending', 'waiting_retry')
      AND t.due_at > t.created_at
      AND t.due_at > now() AND t.due_at <= terms.ahead
      AND (t.lane IS NOT NULL OR terms.max_running IS NULL)
    ORDER BY t.due_at
    LIMIT cardinality($hold_agents::uuid[])
    FOR UPDATE OF t SKIP LOCKED
  ) AS found
  ORDER BY found.due_at
  LIMIT cardinality($hold_agents::uuid[])
),
dealt AS (
  -- By place in an array: joined, the two would be compared each with each.
  SELECT n.row, p.agent_ids[n.place] AS agent_id, false AS held
  FROM (SELECT row, row_number() OVER () AS place FROM due) AS n
  CROSS JOIN run_places AS p
  WHERE n.place <= cardinality(p.agent_ids)
  UNION ALL
  SELECT n.row, p.agent_ids[n.place] AS agent_id, true AS held
  FROM (SELECT row, row_number() OVER () AS place FROM ahead) AS n
  CROSS JOIN hold_places AS p
  WHERE n.place <= cardinality(p.agent_ids)
),
picked AS (
  SELECT dealt.row, dealt.agent_id, dealt.held, gen_random_uuid() AS claim_token,
    hetuflow_uuid7(now()) AS instance_id
  FROM dealt
),
claimed AS (
  UPDATE sched_task AS t
  SET status = 'dispatched', reason = NULL, attempts = t.attempts + 1,
    claim_token = picked.claim_token, updated_at = now()
  FROM picked
  WHERE t.ctid = picked.row AND t.namespace_id = $namespace_id
    AND t.completed_at = 'infinity' AND t.status IN ('pending', 'waiting_retry')
  RETURNING t.id, t.job_id, t.job_version, t.attempts, t.claim_token, t.route_id,
    t.scheduled_at, t.due_at, t.rank_at, t.parameters, picked.instance_id,
    picked.agent_id, picked.held
),
instances AS (
  INSERT INTO sched_task_instance (
    id, namespace_id, task_id, job_id, job_version, agent_id, attempt, claim_token,
    scheduled_at, due_at, lease
  )
  SELECT instance_id, $namespace_id, id, job_id, job_version, agent_id, attempts,
    claim_token, scheduled_at, due_at, (SELECT lease FROM terms)
  FROM claimed
)
SELECT claimed.instance_id, claimed.id AS task_id, claimed.agent_id,
  claimed.claim_token, claimed.attempts AS attempt, claimed.job_id,
  claimed.job_version, claimed.route_id, claimed.scheduled_at, claimed.due_at,
  claimed.rank_at, claimed.parameters, claimed.held, terms.lease,
  extract(epoch FROM now() - claimed.due_at)::double precision AS delay
FROM claimed
CROSS JOIN terms

-- name: record_updates
-- Write what agents report of instances of one namespace, and what it means for their
-- tasks: the end, a retry, or back to the queue. Rows are locked in the order of the
-- reports, which is that of their ids, each instance before its task. A report whose
-- claim token is not the current one changes nothing; one whose rows changed while they
-- were waited for changes nothing yet, and comes back with again. A lost attempt is heard
-- for as long as its task has no newer claim, and takes its loss back by what it says.
WITH reported AS (
  SELECT r.*, found.row, found.was, task.row AS task_row,
    task.claim_token AS task_token, seen.row IS NOT NULL AND task_seen.row IS NOT DISTINCT FROM task.row AS settled
  FROM unnest(
    $ids::uuid[], $claim_tokens::uuid[], $statuses::task_instance_status[],
    $reasons::text[], $started::timestamptz[], $completed::timestamptz[],
    $exit_codes::integer[], $error_messages::text[], $outputs::text[],
    $metrics::jsonb[]
  ) AS r (
    id, claim_token, status, reason, started_at, completed_at, exit_code,
    error_message, output, metrics
  )
  CROSS JOIN LATERAL (
    SELECT i.ctid AS row, i.task_id, i.status AS was
    FROM sched_task_instance AS i
    WHERE i.id = r.id AND i.namespace_id = $namespace_id AND i.completed_at = 'infinity'
    FOR UPDATE
  ) AS found
  LEFT JOIN LATERAL (
    SELECT t.ctid AS row, t.claim_token
    FROM sched_task AS t
    WHERE t.id = found.task_id AND t.namespace_id = $namespace_id
      AND t.completed_at = 'infinity'
    FOR UPDATE
  ) AS task ON true
  LEFT JOIN LATERAL (
    SELECT ctid AS row FROM sched_task_instance
    WHERE ctid = found.row AND completed_at = 'infinity'
    OFFSET 0
  ) AS seen ON true
  LEFT JOIN LATERAL (
    SELECT ctid AS row FROM sched_task
    WHERE ctid = task.row AND completed_at = 'infinity'
    OFFSET 0
  ) AS task_seen ON true
  -- Always so. The planner takes each for one in two hundred and expects a single row:
  -- then it looks up ctids one by one, where it would else read the whole table, which it
  -- believes to be empty, and compare every row with every report.
  WHERE num_nulls(r.id) = 0 AND num_nulls(r.claim_token) = 0
),
ended AS (
  UPDATE sched_task_instance AS i
  SET status = r.status,
    reason = r.reason,
    started_at = COALESCE(i.started_at, r.started_at),
    start_error_ms = COALESCE(
      i.start_error_ms, extract(epoch FROM r.started_at - i.due_at) * 1000),
    exit_code = r.exit_code,
    error_message = r.error_message,
    output = r.output,
    metrics = r.metrics,
    updated_at = now(),
    lost_at = CASE WHEN r.status = 'lost' THEN COALESCE(i.lost_at, now()) END,
    completed_at = CASE
      WHEN r.status IN ('dispatched', 'running') THEN 'infinity'
      -- The agent's word, within what the database can believe.
      ELSE LEAST(now(), GREATEST(
        i.dispatched_at, r.completed_at, now() - interval '1 day'))
    END
  FROM reported AS r
  WHERE i.ctid = r.row AND r.settled AND i.namespace_id = $namespace_id
    AND i.completed_at = 'infinity' AND i.claim_token = r.claim_token
    AND CASE i.status
      WHEN 'dispatched' THEN r.status <> 'dispatched'
      WHEN 'running' THEN r.status NOT IN ('dispatched', 'running', 'released')
      WHEN 'lost' THEN r.task_token = i.claim_token
        AND (i.started_at IS NULL OR r.status NOT IN ('dispatched', 'released'))
      ELSE false END
  RETURNING i.id, i.task_id, i.job_id, i.job_version, i.claim_token, i.status, i.reason,
    i.exit_code, i.completed_at, r.task_row,
    (r.was = 'lost')::integer AS was_lost, (i.status = 'lost')::integer AS is_lost
),
tasks AS (
  UPDATE sched_task AS t
  SET (
    status, reason, due_at, rank_at, attempts, lost_attempts, claim_token,
    completed_at, updated_at
  ) = (
    SELECT
      next.status,
      CASE
        WHEN next.status IN ('succeeded', 'pending') THEN NULL
        WHEN t.cancel_requested_at IS NOT NULL
          THEN COALESCE(t.reason, 'cancelled by request')
        WHEN next.status IN ('dispatched', 'running') THEN NULL
        ELSE COALESCE(e.reason, e.status::text)
      END,
      next.due_at,
      next.due_at - t.priority * interval '1 minute',
      t.attempts - (e.status = 'released')::integer,
      t.lost_attempts + e.is_lost - e.was_lost,
      CASE WHEN next.status IN ('dispatched', 'running') THEN t.claim_token END,
      CASE
        WHEN next.status IN ('dispatched', 'running', 'pending', 'waiting_retry')
          THEN 'infinity'
        ELSE e.completed_at END,
      now()
    FROM (
      SELECT
        outcome.status,
        CASE
          WHEN outcome.status <> 'waiting_retry' THEN t.due_at
          WHEN e.is_lost = 1 THEN GREATEST(t.due_at, now())
          -- By chance, but by the same whenever it is asked: that of the claim.
          ELSE now() + make_interval(secs => (
            1 + COALESCE((v.config ->> 'retry_jitter')::double precision, 0)
              * (uuid_hash_extended(t.claim_token, 0) & 65535) / 65536
          ) * LEAST(
            (v.config ->> 'retry_max_interval')::double precision,
            (v.config ->> 'retry_interval')::double precision * power(
              (v.config ->> 'retry_backoff')::double precision,
              LEAST(used.pauses, 60))))
        END AS due_at
      FROM (
        -- What a manual retry has added to max_retries had been used by then.
        SELECT own.retries,
          GREATEST(0, own.retries - t.max_retries + (v.config ->> 'max_retries')::integer)
            AS pauses
        FROM (SELECT t.attempts - t.lost_attempts + e.was_lost - 1 AS retries) AS own
      ) AS used
      CROSS JOIN LATERAL (
        SELECT (CASE
          WHEN e.status IN ('dispatched', 'running', 'succeeded') THEN e.status::text
          WHEN t.cancel_requested_at IS NOT NULL AND t.reason = 'total timeout'
            THEN 'failed'
          WHEN t.cancel_requested_at IS NOT NULL THEN 'cancelled'
          WHEN e.status = 'released' THEN 'pending'
          WHEN e.status = 'cancelled' AND e.reason = 'start_deadline' THEN 'missed'
          WHEN e.status = 'cancelled' THEN 'cancelled'
          -- What a loss means was decided when it was noticed.
          WHEN e.is_lost + e.was_lost = 2 THEN CASE t.status
            WHEN 'waiting_retry' THEN 'waiting_retry' ELSE 'failed' END
          WHEN e.status = 'lost' AND v.config ->> 'on_lost' = 'retry'
            AND t.lost_attempts < (v.config ->> 'max_lost')::integer
            THEN 'waiting_retry'
          WHEN e.status = 'lost' THEN 'failed'
          WHEN used.retries < t.max_retries AND (
            e.exit_code IS NULL
            OR jsonb_typeof(v.config -> 'retry_on_exit_codes') <> 'array'
            OR v.config -> 'retry_on_exit_codes' @> to_jsonb(e.exit_code))
            THEN 'waiting_retry'
          ELSE 'failed'
        END)::task_status AS status
      ) AS outcome
    ) AS next
  )
  FROM ended AS e
  LEFT JOIN LATERAL (
    SELECT config
    FROM sched_job_version
    WHERE job_id = e.job_id AND version = e.job_version
      AND e.status NOT IN ('dispatched', 'running', 'succeeded')
    OFFSET 0
  ) AS v ON true
  WHERE t.ctid = e.task_row AND t.namespace_id = $namespace_id
    AND t.completed_at = 'infinity' AND t.claim_token = e.claim_token
    AND t.status IN ('dispatched', 'running', 'waiting_retry')
  RETURNING t.id, t.status, t.lane,
    -- Part of a broadcast, or one of what is kept going.
    t.parent_id IS NOT NULL OR t.occurrence LIKE 'r%' AS awaited
),
counted AS (
  SELECT count(*) FILTER (WHERE status IN ('pending', 'waiting_retry')) AS waiting,
    count(lane) FILTER (WHERE status NOT IN (
      'dispatched', 'running', 'pending', 'waiting_retry')) AS freed,
    count(*) FILTER (WHERE awaited AND status NOT IN (
      'dispatched', 'running', 'pending', 'waiting_retry')) AS awaited
  FROM tasks
),
hint AS (
  SELECT pg_notify('hetuflow', kind.name || $namespace_id)
  FROM counted
  CROSS JOIN LATERAL (VALUES
    ('tasks:', counted.waiting), ('limits:', counted.freed),
    ('ends:', counted.awaited)) AS kind (name, count)
  WHERE kind.count > 0
)
SELECT id, false AS again, (SELECT count(*) FROM hint) AS hints FROM ended
UNION ALL
SELECT id, true AS again, 0 AS hints FROM reported WHERE NOT settled

-- name: fail_claims
-- End claims that cannot be handed to their agents, and their tasks for good: whatever
-- retries they have left would meet the same.
WITH ended AS (
  UPDATE sched_task_instance AS i
  SET status = 'failed', reason = f.reason, completed_at = now(), updated_at = now()
  FROM unnest($ids::uuid[], $claim_tokens::uuid[], $reasons::text[])
    AS f (id, claim_token, reason)
  WHERE i.id = f.id AND i.namespace_id = $namespace_id AND i.completed_at = 'infinity'
    AND i.claim_token = f.claim_token AND i.status = 'dispatched'
  RETURNING i.task_id, i.claim_token, i.reason, i.completed_at
),
tasks AS (
  UPDATE sched_task AS t
  SET status = 'failed', reason = ended.reason, claim_token = NULL,
    completed_at = ended.completed_at, updated_at = now()
  FROM ended
  WHERE t.id = ended.task_id AND t.namespace_id = $namespace_id
    AND t.completed_at = 'infinity' AND t.claim_token = ended.claim_token
    AND t.status = 'dispatched'
  RETURNING t.id, t.lane
),
hint AS (
  SELECT pg_notify('hetuflow', 'limits:' || $namespace_id)
  FROM (SELECT count(lane) AS count FROM tasks) AS freed WHERE freed.count > 0
)
SELECT tasks.id, (SELECT count(*) FROM hint) AS hints FROM tasks

-- name: find_finished
-- Of instances that a report did not match: those that already ended as reported, by
-- the same claim, or whose start is told after their end. Everything else is stale.
SELECT r.id
FROM unnest(
  $ids::uuid[], $claim_tokens::uuid[], $statuses::task_instance_status[]
) AS r (id, claim_token, status)
CROSS JOIN LATERAL (
  SELECT claim_token, status FROM sched_task_instance
  WHERE id = r.id AND namespace_id = $namespace_id
  OFFSET 0
) AS i
WHERE i.claim_token = r.claim_token AND (
  i.status = r.status OR r.status = 'running' AND i.status <> 'lost')

-- name: request_cancel
-- Cancel at once what no agent has; otherwise ask the agent.
UPDATE sched_task AS t
SET cancel_requested_at = COALESCE(t.cancel_requested_at, now()),
  status = CASE WHEN t.status IN ('dispatched', 'running') THEN t.status
    ELSE 'cancelled' END,
  reason = CASE WHEN t.cancel_requested_at IS NULL THEN 'cancelled by request'
    ELSE t.reason END,
  claim_token = CASE WHEN t.status IN ('dispatched', 'running') THEN t.claim_token END,
  completed_at = CASE WHEN t.status IN ('dispatched', 'running')
    THEN 'infinity'::timestamptz ELSE now() END,
  updated_at = now()
WHERE t.id = $id AND t.completed_at = 'infinity'
  AND t.status IN (
    'blocked', 'paused', 'pending', 'waiting_retry', 'dispatched', 'running')
RETURNING t.id, pg_notify('hetuflow', CASE
  WHEN t.lane IS NULL OR t.status <> 'cancelled' THEN 'cancels'
  ELSE 'limits:' || t.namespace_id END)

-- name: pause_task
-- Keep a waiting task from being claimed; it gives its place back if it had one.
UPDATE sched_task
SET status = 'paused', reason = 'paused by request', claim_token = NULL,
  updated_at = now()
WHERE id = $id AND completed_at = 'infinity'
  AND (status IN ('pending', 'waiting_retry') OR status = 'blocked' AND lane IS NOT NULL)
RETURNING id, CASE WHEN lane IS NOT NULL
  THEN pg_notify('hetuflow', 'limits:' || namespace_id) END

-- name: get_lane
-- Whose limit a task waits for.
SELECT lane FROM sched_task WHERE id = $id

-- name: resume_task
-- Let a paused task be claimed again, once it has its place if it has a limit.
UPDATE sched_task
SET status = CASE WHEN lane IS NULL THEN 'pending' ELSE 'blocked' END::task_status,
  reason = CASE WHEN lane IS NOT NULL THEN $blocked::text END, updated_at = now()
WHERE id = $id AND completed_at = 'infinity' AND status = 'paused'
RETURNING id, pg_notify('hetuflow',
  CASE WHEN lane IS NULL THEN 'tasks:' ELSE 'limits:' END || namespace_id)

-- name: lock_ended
-- A task that has ended, and the limits that its job has now, kept as they are until the
-- transaction ends.
SELECT t.lane, t.parameters, t.parent_id, j.id, j.overlap, j.max_concurrent,
  j.concurrency_key, j.rate_count, n.max_running
FROM sched_task AS t
JOIN sched_job AS j ON j.id = t.job_id
JOIN sched_namespace AS n ON n.id = t.namespace_id
WHERE t.id = $id AND t.completed_at < 'infinity'
FOR SHARE OF j

-- name: keep_broadcast
-- Keep a broadcast from ending until the transaction ends, if it has not yet.
SELECT task_id FROM sched_broadcast WHERE task_id = $id FOR SHARE

-- name: revive_task
-- Give a finished task one more attempt, due now, once it has its place if it has a limit;
-- its history stays. Deadlines are counted from now, and so are retries and losses: it
-- has as many left as a new task of its version.
UPDATE sched_task AS t
SET lane = $lane::text,
  status = CASE WHEN $lane IS NULL THEN 'pending' ELSE 'blocked' END::task_status,
  reason = COALESCE('retried by request; ' || $blocked::text, 'retried by request'),
  completed_at = 'infinity', cancel_requested_at = NULL, due_at = now(),
  rank_at = now() - t.priority * interval '1 minute',
  start_by = CASE WHEN t.start_by IS NOT NULL AND t.attempts = 0
    THEN now() + make_interval(secs => j.start_deadline) END,
  end_by = CASE WHEN t.end_by IS NOT NULL
    THEN now() + make_interval(secs => j.total_timeout) END,
  max_retries = t.attempts + (v.config ->> 'max_retries')::integer, lost_attempts = 0,
  updated_at = now()
FROM sched_job AS j
JOIN sched_job_version AS v ON v.job_id = j.id
WHERE t.id = $id AND t.completed_at < 'infinity' AND j.id = t.job_id
  AND v.version = t.job_version
  AND t.status IN ('succeeded', 'failed', 'cancelled', 'skipped', 'missed')
RETURNING t.id, pg_notify('hetuflow',
  CASE WHEN t.lane IS NULL THEN 'tasks:' ELSE 'limits:' END || t.namespace_id)

-- name: load_configs
-- Frozen configurations with the names of their jobs.
SELECT v.job_id, v.version, j.name, v.config
FROM unnest($job_ids::uuid[], $versions::integer[]) AS wanted (job_id, version)
JOIN sched_job_version AS v ON v.job_id = wanted.job_id AND v.version = wanted.version
JOIN sched_job AS j ON j.id = v.job_id
