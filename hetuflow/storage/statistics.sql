-- name: read_in_order
-- Until the transaction ends what an index has in order is read in order. Where a planner
-- believes a partition to be small it reads all that there is of a job and sorts it.
SELECT set_config('enable_sort', 'off', true),
  set_config('enable_bitmapscan', 'off', true)

-- name: recent_durations
-- How long the last attempts of some jobs took that succeeded, in seconds, the newest
-- first. The index of jobs and ids is read for so many attempts of each, however they
-- ended, and no further.
SELECT wanted.job_id, recent.seconds
FROM unnest($job_ids::uuid[]) AS wanted (job_id)
CROSS JOIN LATERAL (
  SELECT i.id, i.status,
    extract(epoch FROM i.completed_at - i.started_at)::double precision AS seconds
  FROM sched_task_instance AS i
  WHERE i.job_id = wanted.job_id AND i.completed_at < 'infinity'
  ORDER BY i.id DESC
  LIMIT $limit
) AS recent
WHERE recent.status = 'succeeded' AND recent.seconds IS NOT NULL
ORDER BY wanted.job_id, recent.id DESC

-- name: job_statuses
-- What became of the last tasks of a job, by status, with the time of the oldest of them.
SELECT recent.status, count(*) AS count, min(recent.created_at) AS since
FROM (
  SELECT t.status, t.created_at
  FROM sched_task AS t
  WHERE t.job_id = $job_id
  ORDER BY t.id DESC
  LIMIT $limit
) AS recent
GROUP BY recent.status
ORDER BY recent.status

-- name: job_attempts
-- How long the last attempts of a job took and how late they started, in shares of them:
-- the first row is of durations in seconds, the second of start errors in milliseconds.
WITH recent AS MATERIALIZED (
  SELECT i.start_error_ms,
    CASE WHEN i.completed_at < 'infinity'
      THEN extract(epoch FROM i.completed_at - i.started_at)::double precision
    END AS seconds
  FROM sched_task_instance AS i
  WHERE i.job_id = $job_id
  ORDER BY i.id DESC
  LIMIT $limit
)
SELECT count(m.value) AS count,
  percentile_cont(0.5) WITHIN GROUP (ORDER BY m.value) AS p50,
  percentile_cont(0.95) WITHIN GROUP (ORDER BY m.value) AS p95,
  max(m.value) AS max
FROM (VALUES (1), (2)) AS measure (number)
LEFT JOIN LATERAL (
  SELECT CASE measure.number WHEN 1 THEN seconds ELSE start_error_ms END AS value
  FROM recent
) AS m ON true
GROUP BY measure.number
ORDER BY measure.number
