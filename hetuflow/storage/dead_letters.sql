-- name: insert_dead_letter
-- Keep what could not be delivered or stored.
INSERT INTO sched_dead_letter (id, kind, agent_id, reason, payload)
VALUES ($id, $kind, $agent_id, $reason, $payload)
