-- name: list_gaps
-- The gaps of some schedules that reach into a span.
SELECT id, namespace_id, schedule_id, from_at, to_at, count, outcome, reason
FROM sched_ledger_gap
WHERE schedule_id = ANY($schedules::uuid[])
  AND from_at <= $to::timestamptz AND to_at >= $from::timestamptz
ORDER BY schedule_id, from_at, id

-- name: delete_gaps
-- Take gaps out of the ledger, before what is left of them is booked: the first part of
-- one begins where it began.
DELETE FROM sched_ledger_gap
WHERE schedule_id = ANY($schedules::uuid[]) AND id = ANY($ids::uuid[])

-- name: insert_gaps
-- Book what is left of gaps.
INSERT INTO sched_ledger_gap (
  id, namespace_id, schedule_id, from_at, to_at, count, outcome, reason
)
SELECT g.id, g.namespace_id, g.schedule_id, g.from_at, g.to_at, g.count, g.outcome,
  g.reason
FROM unnest(
  $ids::uuid[], $namespaces::text[], $schedules::uuid[], $from::timestamptz[],
  $to::timestamptz[], $counts::bigint[], $outcomes::ledger_outcome[], $reasons::text[]
) AS g (id, namespace_id, schedule_id, from_at, to_at, count, outcome, reason)
