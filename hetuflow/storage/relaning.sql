-- name: get_max_running
-- How many tasks of a namespace may be under way.
SELECT max_running FROM sched_namespace WHERE id = $namespace_id

-- name: list_lanes
-- A page of the live tasks of a job, but for the parts of broadcasts, whose place is that of
-- the whole.
SELECT id, lane, parameters FROM sched_task
WHERE job_id = $job_id AND namespace_id = $namespace_id AND completed_at = 'infinity'
  AND id > $after AND parent_id IS NULL
ORDER BY job_id, id
LIMIT $limit

-- name: change_lanes
-- Put tasks into other lanes. Those that wait are judged anew, or claimed where no limit
-- concerns them any more; what is under way takes its place along.
WITH changed AS (
  SELECT c.lane, c.reason, found.row
  FROM unnest($ids::uuid[], $lanes::text[], $reasons::text[]) AS c (id, lane, reason)
  CROSS JOIN LATERAL (
    SELECT t.ctid AS row FROM sched_task AS t
    WHERE t.id = c.id AND t.namespace_id = $namespace_id AND t.completed_at = 'infinity'
    FOR UPDATE
  ) AS found
  WHERE num_nulls(c.id) = 0
)
UPDATE sched_task AS t
SET lane = changed.lane,
  status = CASE
    WHEN changed.lane IS NOT NULL AND t.status = 'pending' THEN 'blocked'
    WHEN changed.lane IS NULL AND t.lane IS NOT NULL AND t.status = 'blocked'
      THEN 'pending'
    ELSE t.status END,
  reason = CASE
    WHEN t.status = 'pending' OR t.status = 'blocked' AND t.lane IS NOT NULL
      THEN changed.reason
    ELSE t.reason END,
  updated_at = now()
FROM changed
WHERE t.ctid = changed.row AND num_nulls(changed.row) = 0
  AND t.namespace_id = $namespace_id AND t.completed_at = 'infinity'
RETURNING t.id

-- name: hint_limits
-- Say that there may be tasks to claim, and places to give.
SELECT pg_notify('hetuflow', kind.name || $namespace_id)
FROM (VALUES ('tasks:'), ('limits:')) AS kind (name)
