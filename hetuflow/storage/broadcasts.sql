-- Broadcasts: one task, its parent, and a part for each matching agent. The parent is
-- `running` by a claim token that nobody has; its row in sched_broadcast is there as long
-- as its parts have not all been seen to have ended. Each change of status has its event
-- in protocol/states.py.

-- name: survey_broadcasts
-- Whether anything can be to do: are there such jobs, such tasks, and when is one due?
-- The first by rank need not be the first that is due: what is due now is asked for too.
SELECT
  EXISTS (
    SELECT FROM sched_route AS r
    WHERE r.selector -> 'broadcast' IS NOT NULL
      AND r.namespace_id = ANY($namespaces::text[])
  ) AS known,
  EXISTS (
    SELECT FROM sched_broadcast AS b WHERE b.namespace_id = ANY($namespaces)
  ) AS running,
  (
    SELECT extract(epoch FROM min(next.due_at) - now())::double precision
    FROM sched_route AS r
    CROSS JOIN LATERAL (
      (
        SELECT t.due_at FROM sched_task AS t
        WHERE t.namespace_id = r.namespace_id AND t.completed_at = 'infinity'
          AND t.route_id = r.id AND t.status = 'pending'
          AND t.rank_at <= now() + interval '10 minutes' AND t.due_at <= now()
        ORDER BY t.rank_at
        LIMIT 1
      )
      UNION ALL
      (
        SELECT t.due_at FROM sched_task AS t
        WHERE t.namespace_id = r.namespace_id AND t.completed_at = 'infinity'
          AND t.route_id = r.id AND t.status = 'pending'
        ORDER BY t.rank_at
        LIMIT 1
      )
    ) AS next
    WHERE r.selector -> 'broadcast' IS NOT NULL AND r.namespace_id = ANY($namespaces)
  ) AS due_in

-- name: lock_due
-- Due tasks that are to be broadcast, in order of rank; those that another server has in
-- hand are passed over.
SELECT found.id, r.namespace_id, r.selector
FROM sched_route AS r
CROSS JOIN LATERAL (
  SELECT t.id, t.rank_at
  FROM sched_task AS t
  WHERE t.namespace_id = r.namespace_id AND t.completed_at = 'infinity'
    AND t.route_id = r.id AND t.status = 'pending'
    AND t.rank_at <= now() + interval '10 minutes' AND t.due_at <= now()
  ORDER BY t.rank_at
  LIMIT $limit
  FOR UPDATE OF t SKIP LOCKED
) AS found
WHERE r.selector -> 'broadcast' IS NOT NULL AND r.namespace_id = ANY($namespaces::text[])
ORDER BY found.rank_at
LIMIT $limit

-- name: insert_parts
-- Make the parts of locked tasks, each on the route of its agent.
INSERT INTO sched_task (
  id, namespace_id, job_id, job_version, route_id, cause, parent_id, planned_at,
  scheduled_at, due_at, rank_at, start_by, end_by, priority, parameters, max_retries
)
SELECT part.id, t.namespace_id, t.job_id, t.job_version, part.route_id, 'broadcast',
  t.id, t.planned_at, t.scheduled_at, t.due_at, t.rank_at, t.start_by, t.end_by,
  t.priority, t.parameters, t.max_retries
FROM unnest(
  $ids::uuid[], $parents::uuid[], $namespaces::text[], $routes::bigint[]
) AS part (id, parent_id, namespace_id, route_id)
CROSS JOIN LATERAL (
  SELECT * FROM sched_task
  WHERE id = part.parent_id AND namespace_id = part.namespace_id
    AND completed_at = 'infinity'
  OFFSET 0
) AS t

-- name: spread_tasks
-- Let locked tasks that have their parts run, and remember that they do.
WITH spread AS (
  UPDATE sched_task AS t
  SET status = 'running', claim_token = s.claim_token,
    reason = 'runs on ' || s.agents || CASE s.agents WHEN 1 THEN ' agent'
      ELSE ' agents' END,
    updated_at = now()
  FROM unnest(
    $ids::uuid[], $namespaces::text[], $claim_tokens::uuid[], $agents::integer[]
  ) AS s (id, namespace_id, claim_token, agents)
  WHERE t.id = s.id AND t.namespace_id = s.namespace_id
    AND t.completed_at = 'infinity' AND t.status = 'pending'
  RETURNING t.id, t.namespace_id
),
noted AS (
  INSERT INTO sched_broadcast AS known (task_id, namespace_id, started_at)
  SELECT id, namespace_id, now() FROM spread
  ON CONFLICT (task_id) DO UPDATE
  SET started_at = excluded.started_at, updated_at = now()
)
SELECT namespace_id, count(*), pg_notify('hetuflow', 'tasks:' || namespace_id)
FROM spread GROUP BY namespace_id

-- name: leave_unmatched
-- No agent matches these tasks: they fail, unless their start deadline lets them wait;
-- then they are looked at again in a second, behind others that are due.
WITH unmatched AS (
  UPDATE sched_task AS t
  SET status = CASE WHEN t.start_by > now() THEN t.status ELSE 'failed' END,
    reason = CASE WHEN t.start_by > now()
      THEN 'no agent matches; waits for one until its start_deadline'
      ELSE 'no agent matched' END,
    due_at = CASE WHEN t.start_by > now() THEN again.at ELSE t.due_at END,
    rank_at = CASE WHEN t.start_by > now()
      THEN again.at - t.priority * interval '1 minute' ELSE t.rank_at END,
    completed_at = CASE WHEN t.start_by > now() THEN 'infinity'::timestamptz
      ELSE now() END,
    updated_at = now()
  FROM unnest($ids::uuid[], $namespaces::text[]) AS u (id, namespace_id)
  CROSS JOIN (SELECT now() + interval '1 second' AS at) AS again
  WHERE t.id = u.id AND t.namespace_id = u.namespace_id AND t.completed_at = 'infinity'
    AND t.status = 'pending'
  RETURNING t.namespace_id, t.status, t.lane
),
freed AS (
  SELECT pg_notify('hetuflow', 'limits:' || namespace_id)
  FROM unmatched WHERE status = 'failed' AND lane IS NOT NULL GROUP BY namespace_id
)
SELECT count(*) FILTER (WHERE status = 'failed') AS failed,
  (SELECT count(*) FROM freed) AS hints
FROM unmatched

-- name: cancel_parts
-- Of broadcasts that are to be cancelled, cancel the parts: at once what no agent has; for
-- the others the agent is asked.
WITH cancelled AS (
  UPDATE sched_task AS t
  SET cancel_requested_at = now(), reason = 'its broadcast is cancelled',
    status = CASE WHEN t.status IN ('dispatched', 'running') THEN t.status
      ELSE 'cancelled' END,
    claim_token = CASE WHEN t.status IN ('dispatched', 'running') THEN t.claim_token END,
    completed_at = CASE WHEN t.status IN ('dispatched', 'running')
      THEN 'infinity'::timestamptz ELSE now() END,
    updated_at = now()
  FROM (
    SELECT part.id, part.namespace_id
    FROM sched_broadcast AS b
    CROSS JOIN LATERAL (
      SELECT FROM sched_task
      WHERE id = b.task_id AND namespace_id = b.namespace_id
        AND completed_at = 'infinity' AND cancel_requested_at IS NOT NULL
      OFFSET 0
    ) AS parent
    CROSS JOIN LATERAL (
      SELECT id, namespace_id FROM sched_task
      WHERE parent_id = b.task_id AND namespace_id = b.namespace_id
        AND completed_at = 'infinity' AND cancel_requested_at IS NULL
      OFFSET 0
    ) AS part
    WHERE b.namespace_id = ANY($namespaces::text[])
  ) AS found
  WHERE t.id = found.id AND t.namespace_id = found.namespace_id
    AND t.completed_at = 'infinity' AND t.cancel_requested_at IS NULL
  RETURNING t.status
),
counted AS (
  SELECT count(*) AS cancelled, count(*) FILTER (WHERE status <> 'cancelled') AS asked
  FROM cancelled
),
hint AS (
  SELECT pg_notify('hetuflow', 'cancels') FROM counted WHERE counted.asked > 0
)
SELECT counted.cancelled, (SELECT count(*) FROM hint) AS hints FROM counted

-- name: abandon_parts
-- Fail the parts that have been due for too long and whose agent, which alone could take
-- them, is away, drains or is forgotten.
UPDATE sched_task AS t
SET status = 'failed', reason = 'its agent is gone', claim_token = NULL,
  completed_at = now(), updated_at = now()
FROM (
  SELECT part.id, part.namespace_id
  FROM sched_broadcast AS b
  CROSS JOIN LATERAL (
    SELECT id, namespace_id, route_id FROM sched_task
    WHERE parent_id = b.task_id AND namespace_id = b.namespace_id
      AND completed_at = 'infinity' AND status IN ('pending', 'waiting_retry')
      AND due_at < now() - make_interval(secs => $grace)
    OFFSET 0
  ) AS part
  WHERE b.namespace_id = ANY($namespaces::text[])
    AND NOT EXISTS (
      SELECT FROM sched_route AS r
      JOIN sched_agent AS a ON a.id = (r.selector ->> 'agent')::uuid
      WHERE r.id = part.route_id AND a.lease_until > now() AND a.status <> 'draining')
) AS gone
WHERE t.id = gone.id AND t.namespace_id = gone.namespace_id
  AND t.completed_at = 'infinity' AND t.status IN ('pending', 'waiting_retry')
RETURNING t.id

-- name: lock_ending
-- Broadcasts of which no part seems to be live, with their tasks, kept from others until
-- the end of the transaction. Parts that come all come with the row of the broadcast.
SELECT b.task_id
FROM sched_broadcast AS b
LEFT JOIN LATERAL (
  SELECT t.id FROM sched_task AS t
  WHERE t.id = b.task_id AND t.namespace_id = b.namespace_id
    AND t.completed_at = 'infinity'
  FOR UPDATE
) AS parent ON true
WHERE b.namespace_id = ANY($namespaces::text[])
  AND NOT EXISTS (
    SELECT FROM sched_task AS part
    WHERE part.parent_id = b.task_id AND part.namespace_id = b.namespace_id
      AND part.completed_at = 'infinity')
ORDER BY b.task_id
LIMIT $limit
FOR UPDATE OF b SKIP LOCKED

-- name: end_tasks
-- End broadcasts that are locked, as their parts have ended, read anew: parts of this
-- round only, and none of them live.
WITH ended AS (
  SELECT b.task_id, b.namespace_id, parts.*
  FROM sched_broadcast AS b
  CROSS JOIN LATERAL (
    SELECT sum(count) AS all, COALESCE(sum(live), 0) AS live,
      COALESCE(sum(count) FILTER (WHERE status <> 'succeeded'), 0) AS bad,
      string_agg(count || ' ' || status, ', ' ORDER BY status)
        FILTER (WHERE status <> 'succeeded') AS ends
    FROM (
      SELECT p.status, count(*),
        count(*) FILTER (WHERE p.completed_at = 'infinity') AS live
      FROM sched_task AS p
      WHERE p.parent_id = b.task_id AND p.namespace_id = b.namespace_id
        AND p.created_at >= b.started_at
      GROUP BY p.status
    ) AS by_status
  ) AS parts
  WHERE b.task_id = ANY($ids::uuid[])
),
closed AS (
  UPDATE sched_task AS t
  SET status = CASE
      WHEN ended.bad = 0 THEN 'succeeded'
      WHEN t.cancel_requested_at IS NOT NULL AND t.reason <> 'total timeout'
        THEN 'cancelled'
      ELSE 'failed'
    END::task_status,
    reason = CASE
      WHEN ended.bad = 0 THEN NULL
      WHEN t.cancel_requested_at IS NOT NULL THEN t.reason
      ELSE ended.bad || ' of ' || ended.all || ' parts did not succeed: ' || ended.ends
    END,
    claim_token = NULL, completed_at = now(), updated_at = now()
  FROM ended
  WHERE ended.live = 0 AND t.id = ended.task_id AND t.namespace_id = ended.namespace_id
    AND t.completed_at = 'infinity' AND t.status = 'running'
  RETURNING t.namespace_id, t.lane
),
forgotten AS (
  DELETE FROM sched_broadcast AS b
  USING ended WHERE b.task_id = ended.task_id AND ended.live = 0
),
freed AS (
  SELECT pg_notify('hetuflow', 'limits:' || namespace_id)
  FROM closed WHERE lane IS NOT NULL GROUP BY namespace_id
)
SELECT count(*) AS closed, (SELECT count(*) FROM freed) AS hints FROM closed
