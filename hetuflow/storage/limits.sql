-- Who of those that wait may go. Places are counted, never kept: the holders of a lane are
-- its tasks that are pending, dispatched, running or waiting for a retry. Only the
-- statement settle_tasks makes new holders, and only with the namespace's lock, so that
-- what was counted under the lock can only have become less.
--
-- Rows are found by LATERAL and changed by ctid, as in transitions.sql; num_nulls of what
-- is never null lets the planner expect few of them, as there. Time is that of
-- the statement: the transaction may have waited for the lock since it began.

-- name: lock_limits
-- Let nobody else decide in a namespace until the transaction ends. A statement of its
-- own, so that the next one sees what the one before has decided.
SELECT pg_advisory_xact_lock(hashtextextended('hetuflow limits ' || $namespace_id, 0))

-- name: look_at_limits
-- Of some namespaces, or all, those that have anything to decide, now or later: the
-- seconds until the next blocked task with a limit is due, until the next start and the
-- next end are too late, and whether tasks run that have no lane though there is a limit.
SELECT n.id AS namespace_id,
  extract(epoch FROM blocked.at - now())::double precision AS due_in,
  extract(epoch FROM start.at - now())::double precision AS start_in,
  extract(epoch FROM finish.at - now())::double precision AS end_in,
  stray.row IS NOT NULL AS strays,
  n.max_running IS NOT NULL AS limited
FROM sched_namespace AS n
LEFT JOIN LATERAL (
  SELECT due_at AS at FROM sched_task
  WHERE namespace_id = n.id AND completed_at = 'infinity'
    AND status = 'blocked' AND lane IS NOT NULL
  ORDER BY due_at
  LIMIT 1
) AS blocked ON true
LEFT JOIN LATERAL (
  SELECT start_by AS at FROM sched_task
  WHERE namespace_id = n.id AND completed_at = 'infinity'
    AND start_by IS NOT NULL AND status IN ('blocked', 'pending', 'waiting_retry')
  ORDER BY start_by
  LIMIT 1
) AS start ON true
LEFT JOIN LATERAL (
  SELECT end_by AS at FROM sched_task
  WHERE namespace_id = n.id AND completed_at = 'infinity'
    AND end_by IS NOT NULL AND cancel_requested_at IS NULL
  ORDER BY end_by
  LIMIT 1
) AS finish ON true
LEFT JOIN LATERAL (
  SELECT ctid AS row FROM sched_task
  WHERE namespace_id = n.id AND completed_at = 'infinity'
    AND status IN ('pending', 'waiting_retry') AND lane IS NULL
    AND n.max_running IS NOT NULL
  LIMIT 1
) AS stray ON true
WHERE ($namespace_ids::text[] IS NULL OR n.id = ANY($namespace_ids))
  AND (num_nonnulls(blocked.at, start.at, finish.at, stray.row, n.max_running) > 0)

-- name: list_candidates
-- Of some lanes, in order of their names from after one on, the due tasks that wait, in
-- order of rank: as many as there may be places for, and one more, or all that a policy
-- may do away with, up to a share of the batch. In the free lane no job limits its tasks.
-- Every row also says what was looked at, how many tasks the namespace has under way
-- (broadcasts do nothing themselves, their parts do), and when the next one is due; there
-- is at least one row.
WITH RECURSIVE heads AS (
  SELECT first.lane, first.rank_at, 1 AS number
  FROM (
    SELECT lane, rank_at FROM sched_task
    WHERE namespace_id = $namespace_id AND completed_at = 'infinity'
      AND status = 'blocked' AND lane IS NOT NULL AND lane > $after
    ORDER BY namespace_id, lane, rank_at
    LIMIT 1
  ) AS first
  UNION ALL
  SELECT next.lane, next.rank_at, heads.number + 1
  FROM heads
  CROSS JOIN LATERAL (
    SELECT lane, rank_at FROM sched_task
    WHERE namespace_id = $namespace_id AND completed_at = 'infinity'
      AND status = 'blocked' AND lane IS NOT NULL AND lane > heads.lane
    ORDER BY namespace_id, lane, rank_at
    LIMIT 1
  ) AS next
  WHERE heads.number < $lanes
),
waiting AS (
  SELECT heads.lane, held.count AS holders, taken.places, t.id, t.job_id, t.rank_at,
    t.due_at
  FROM heads
  CROSS JOIN LATERAL (
    SELECT job_id FROM sched_task
    WHERE namespace_id = $namespace_id AND completed_at = 'infinity'
      AND status = 'blocked' AND lane IS NOT NULL AND lane = heads.lane
      AND rank_at <= now() + interval '10 minutes' AND due_at <= statement_timestamp()
    ORDER BY namespace_id, lane, rank_at
    LIMIT 1
  ) AS first
  CROSS JOIN LATERAL (
    SELECT count(*) FROM sched_task
    WHERE namespace_id = $namespace_id AND completed_at = 'infinity'
      AND lane IS NOT NULL AND lane = heads.lane
      AND status IN ('pending', 'dispatched', 'running', 'waiting_retry')
  ) AS held
  CROSS JOIN LATERAL (
    SELECT CASE
      WHEN heads.lane = $free_lane OR overlap IN ('skip', 'replace') THEN $share::bigint
      WHEN max_concurrent IS NULL AND concurrency_key IS NULL AND overlap = 'allow'
        THEN $share
      ELSE LEAST($share, 1 + GREATEST(COALESCE(max_concurrent, 1) - held.count, 0))
    END AS places
    FROM sched_job WHERE id = first.job_id
    OFFSET 0
  ) AS taken
  CROSS JOIN LATERAL (
    SELECT id, job_id, rank_at, due_at FROM sched_task
    WHERE namespace_id = $namespace_id AND completed_at = 'infinity'
      AND status = 'blocked' AND lane IS NOT NULL AND lane = heads.lane
      AND rank_at <= now() + interval '10 minutes' AND due_at <= statement_timestamp()
    ORDER BY namespace_id, lane, rank_at
    LIMIT taken.places
  ) AS t
  WHERE heads.rank_at <= now() + interval '10 minutes'
  LIMIT $batch
),
looked AS (
  SELECT statement_timestamp() AS now, n.max_running,
    CASE WHEN n.max_running IS NOT NULL THEN (
      SELECT count(*) FROM sched_task
      WHERE namespace_id = $namespace_id AND completed_at = 'infinity'
        AND lane IS NOT NULL
        AND status IN ('pending', 'dispatched', 'running', 'waiting_retry')
    ) - (
      SELECT count(*) FROM sched_broadcast AS b
      CROSS JOIN LATERAL (
        SELECT id FROM sched_task
        WHERE id = b.task_id AND namespace_id = $namespace_id
          AND completed_at = 'infinity' AND lane IS NOT NULL AND status = 'running'
        OFFSET 0
      ) AS parent
      WHERE b.namespace_id = $namespace_id
    ) END AS running,
    (SELECT CASE WHEN count(*) = $lanes THEN max(lane) END FROM heads) AS last_lane,
    (
      SELECT due_at FROM sched_task
      WHERE namespace_id = $namespace_id AND completed_at = 'infinity'
        AND status = 'blocked' AND lane IS NOT NULL AND due_at > statement_timestamp()
      ORDER BY due_at
      LIMIT 1
    ) AS next_due_at
  FROM sched_namespace AS n WHERE n.id = $namespace_id
)
SELECT looked.now, looked.max_running, looked.running, looked.last_lane,
  looked.next_due_at, w.lane, w.holders, w.places, w.id, w.job_id, w.due_at,
  j.overlap, j.max_concurrent, j.concurrency_key, j.rate_count, j.rate_seconds,
  r.arrival_at
FROM looked
LEFT JOIN waiting AS w ON true
LEFT JOIN LATERAL (
  SELECT overlap, max_concurrent, concurrency_key, rate_count, rate_seconds
  FROM sched_job WHERE id = w.job_id
  OFFSET 0
) AS j ON true
LEFT JOIN LATERAL (
  SELECT arrival_at FROM sched_rate WHERE job_id = w.job_id AND j.rate_count IS NOT NULL
  OFFSET 0
) AS r ON true
ORDER BY w.rank_at, w.lane

-- name: list_holders
-- What holds the places of some lanes, the oldest first.
SELECT held.lane, held.id, held.ending
FROM unnest($lanes::text[]) AS wanted (lane)
CROSS JOIN LATERAL (
  SELECT lane, id, cancel_requested_at IS NOT NULL AS ending FROM sched_task
  WHERE namespace_id = $namespace_id AND completed_at = 'infinity'
    AND lane IS NOT NULL AND lane = wanted.lane
    AND status IN ('pending', 'dispatched', 'running', 'waiting_retry')
  ORDER BY due_at, id
  LIMIT $limit
) AS held

-- name: settle_tasks
-- Give blocked tasks their places, or let them be skipped, as was decided under the lock;
-- and keep when the next start of each rate is free. What has changed since, or is being
-- changed, is left as it is; so is what is in another lane now, whose places nobody
-- counted. The lane is compared as no index can, so that tasks are found by their ids.
WITH decided AS (
  SELECT d.status, d.reason, found.row
  FROM unnest($ids::uuid[], $lanes::text[], $statuses::task_status[], $reasons::text[])
    AS d (id, lane, status, reason)
  CROSS JOIN LATERAL (
    SELECT t.ctid AS row FROM sched_task AS t
    WHERE t.id = d.id AND t.namespace_id = $namespace_id AND t.completed_at = 'infinity'
      AND t.status = 'blocked' AND t.lane IS NOT DISTINCT FROM d.lane
      AND t.due_at <= statement_timestamp()
    FOR UPDATE SKIP LOCKED
  ) AS found
  WHERE num_nulls(d.id) = 0 AND num_nulls(d.status) = 0
),
settled AS (
  UPDATE sched_task AS t
  SET status = d.status, reason = d.reason,
    completed_at = CASE WHEN d.status = 'pending' THEN 'infinity'::timestamptz
      ELSE statement_timestamp() END,
    updated_at = statement_timestamp()
  FROM decided AS d
  WHERE t.ctid = d.row AND t.namespace_id = $namespace_id
    AND t.completed_at = 'infinity' AND t.status = 'blocked'
  RETURNING t.status
),
rates AS (
  INSERT INTO sched_rate (job_id, namespace_id, arrival_at)
  SELECT r.job_id, $namespace_id, r.arrival_at
  FROM unnest($rate_jobs::uuid[], $arrivals::timestamptz[]) AS r (job_id, arrival_at)
  ON CONFLICT (job_id) DO UPDATE
  SET arrival_at = excluded.arrival_at, updated_at = statement_timestamp()
),
counted AS (
  SELECT count(*) AS settled, count(*) FILTER (WHERE status = 'pending') AS promoted
  FROM settled
),
hint AS (
  SELECT pg_notify('hetuflow', 'tasks:' || $namespace_id)
  FROM counted WHERE counted.promoted > 0
)
SELECT counted.settled, counted.promoted, (SELECT count(*) FROM hint) AS hints
FROM counted

-- name: replace_tasks
-- End tasks that others take the place of: at once what no agent has; for the others the
-- agent is asked.
WITH decided AS (
  SELECT d.reason, found.row
  FROM unnest($ids::uuid[], $reasons::text[]) AS d (id, reason)
  CROSS JOIN LATERAL (
    SELECT t.ctid AS row FROM sched_task AS t
    WHERE t.id = d.id AND t.namespace_id = $namespace_id AND t.completed_at = 'infinity'
      AND t.status IN ('pending', 'dispatched', 'running', 'waiting_retry')
      AND t.cancel_requested_at IS NULL
    FOR UPDATE SKIP LOCKED
  ) AS found
  WHERE num_nulls(d.id) = 0 AND num_nulls(d.reason) = 0
),
replaced AS (
  UPDATE sched_task AS t
  SET cancel_requested_at = statement_timestamp(), reason = d.reason,
    status = CASE WHEN t.status IN ('dispatched', 'running') THEN t.status
      ELSE 'cancelled' END,
    claim_token = CASE WHEN t.status IN ('dispatched', 'running') THEN t.claim_token END,
    completed_at = CASE WHEN t.status IN ('dispatched', 'running')
      THEN 'infinity'::timestamptz ELSE statement_timestamp() END,
    updated_at = statement_timestamp()
  FROM decided AS d
  WHERE t.ctid = d.row AND t.namespace_id = $namespace_id
    AND t.completed_at = 'infinity'
    AND t.status IN ('pending', 'dispatched', 'running', 'waiting_retry')
  RETURNING t.status
),
counted AS (
  SELECT count(*) AS replaced, count(*) FILTER (WHERE status = 'cancelled') AS ended
  FROM replaced
),
hint AS (
  SELECT pg_notify('hetuflow', 'cancels')
  FROM counted WHERE counted.replaced > counted.ended
)
SELECT counted.replaced, counted.ended, (SELECT count(*) FROM hint) AS hints
FROM counted

-- name: adopt_waiting
-- Put waiting tasks without a lane behind the limit of their namespace; what waits for a
-- retry has its place already.
WITH strays AS (
  SELECT t.ctid AS row FROM sched_task AS t
  WHERE t.namespace_id = $namespace_id AND t.completed_at = 'infinity'
    AND t.status IN ('pending', 'waiting_retry') AND t.lane IS NULL
    AND EXISTS (
      SELECT FROM sched_namespace WHERE id = $namespace_id AND max_running IS NOT NULL)
  LIMIT $limit
  FOR UPDATE SKIP LOCKED
)
UPDATE sched_task AS t
SET lane = $lane,
  status = CASE WHEN t.status = 'pending' THEN 'blocked' ELSE t.status END,
  reason = CASE WHEN t.status = 'pending' THEN $reason ELSE t.reason END,
  updated_at = now()
FROM strays
WHERE t.ctid = strays.row AND num_nulls(strays.row) = 0
  AND t.namespace_id = $namespace_id
  AND t.completed_at = 'infinity' AND t.lane IS NULL
  AND t.status IN ('pending', 'waiting_retry')
RETURNING t.id

-- name: adopt_running
-- Let tasks without a lane that agents have count for the limit of their namespace.
WITH strays AS (
  SELECT found.row
  FROM sched_task_instance AS i
  CROSS JOIN LATERAL (
    SELECT t.ctid AS row FROM sched_task AS t
    WHERE t.id = i.task_id AND t.namespace_id = $namespace_id
      AND t.completed_at = 'infinity' AND t.lane IS NULL
      AND t.status IN ('dispatched', 'running')
    FOR UPDATE SKIP LOCKED
  ) AS found
  WHERE i.namespace_id = $namespace_id AND i.completed_at = 'infinity'
    AND i.attempt > 0 AND i.status <> 'lost'
    AND EXISTS (
      SELECT FROM sched_namespace WHERE id = $namespace_id AND max_running IS NOT NULL)
)
UPDATE sched_task AS t
SET lane = $lane, updated_at = now()
FROM strays
WHERE t.ctid = strays.row AND num_nulls(strays.row) = 0
  AND t.namespace_id = $namespace_id
  AND t.completed_at = 'infinity' AND t.lane IS NULL
  AND t.status IN ('dispatched', 'running')
RETURNING t.id

-- name: miss_late
-- End tasks that should have started by now and never did. For those that did, the
-- deadline is over.
WITH late AS (
  SELECT t.ctid AS row FROM sched_task AS t
  WHERE t.namespace_id = $namespace_id AND t.completed_at = 'infinity'
    AND t.start_by IS NOT NULL AND t.status IN ('blocked', 'pending', 'waiting_retry')
    AND t.start_by <= now()
  ORDER BY t.start_by
  LIMIT $limit
  FOR UPDATE SKIP LOCKED
),
missed AS (
  UPDATE sched_task AS t
  SET status = CASE WHEN t.attempts = 0 THEN 'missed' ELSE t.status END,
    reason = CASE WHEN t.attempts = 0 THEN 'start_deadline' ELSE t.reason END,
    start_by = CASE WHEN t.attempts = 0 THEN t.start_by END,
    completed_at = CASE WHEN t.attempts = 0 THEN now() ELSE t.completed_at END,
    claim_token = CASE WHEN t.attempts > 0 THEN t.claim_token END,
    updated_at = now()
  FROM late
  WHERE t.ctid = late.row AND num_nulls(late.row) = 0
    AND t.namespace_id = $namespace_id
    AND t.completed_at = 'infinity'
    AND t.status IN ('blocked', 'pending', 'waiting_retry')
  RETURNING t.lane
),
hint AS (
  SELECT pg_notify('hetuflow', 'limits:' || $namespace_id)
  FROM (SELECT count(lane) AS count FROM missed) AS freed WHERE freed.count > 0
)
SELECT count(*) AS count, (SELECT count(*) FROM hint) AS hints FROM missed

-- name: expire_overdue
-- End tasks whose time for all attempts is over: at once what no agent has; for the others
-- the agent is asked, and whatever it answers is the failure that the reason names.
WITH overdue AS (
  SELECT t.ctid AS row FROM sched_task AS t
  WHERE t.namespace_id = $namespace_id AND t.completed_at = 'infinity'
    AND t.end_by IS NOT NULL AND t.cancel_requested_at IS NULL AND t.end_by <= now()
  ORDER BY t.end_by
  LIMIT $limit
  FOR UPDATE SKIP LOCKED
),
expired AS (
  UPDATE sched_task AS t
  SET cancel_requested_at = now(), reason = 'total timeout',
    status = CASE WHEN t.status IN ('dispatched', 'running') THEN t.status
      ELSE 'failed' END,
    claim_token = CASE WHEN t.status IN ('dispatched', 'running') THEN t.claim_token END,
    completed_at = CASE WHEN t.status IN ('dispatched', 'running')
      THEN 'infinity'::timestamptz ELSE now() END,
    updated_at = now()
  FROM overdue
  WHERE t.ctid = overdue.row AND num_nulls(overdue.row) = 0
    AND t.namespace_id = $namespace_id
    AND t.completed_at = 'infinity' AND t.cancel_requested_at IS NULL
  RETURNING t.status, t.lane
),
hint AS (
  SELECT pg_notify('hetuflow', kind.payload)
  FROM (
    SELECT count(*) FILTER (WHERE status <> 'failed') AS asked,
      count(lane) FILTER (WHERE status = 'failed') AS freed
    FROM expired
  ) AS counted
  CROSS JOIN LATERAL (
    VALUES ('cancels', counted.asked), ('limits:' || $namespace_id, counted.freed)
  ) AS kind (payload, count)
  WHERE kind.count > 0
)
SELECT count(*) AS count, (SELECT count(*) FROM hint) AS hints FROM expired
