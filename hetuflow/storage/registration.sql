-- name: register_agent
-- Open a session of an agent, unless the agent has been started again since, or has
-- registered again, as it does when a server is slow to answer; or unless it belongs to
-- namespaces that who speaks for it may not enter.
INSERT INTO sched_agent AS a (
  id, namespace_ids, name, status, labels, capabilities, version, epoch,
  session_number, session_id, server_id, lease_until, connected_at, last_heartbeat_at
) VALUES (
  $id, $namespace_ids, $name, 'online', $labels, $capabilities, $version, $epoch,
  $session_number, $session_id, $server_id, now() + make_interval(secs => $lease),
  now(), now()
)
ON CONFLICT (id) DO UPDATE
SET namespace_ids = excluded.namespace_ids, name = excluded.name,
  status = 'online', labels = excluded.labels, capabilities = excluded.capabilities,
  version = excluded.version, epoch = excluded.epoch,
  session_number = excluded.session_number,
  session_id = excluded.session_id, server_id = excluded.server_id,
  lease_until = excluded.lease_until, connected_at = now(), last_heartbeat_at = now(),
  updated_at = now()
WHERE (a.epoch, a.session_number) <= (excluded.epoch, excluded.session_number)
  AND ('*' = ANY($allowed::text[]) OR a.namespace_ids <@ $allowed::text[])
RETURNING now() AS server_time, labels || label_overrides AS labels,
  drain_requested_at IS NOT NULL AS drained

-- name: find_forbidden_namespaces
-- Of the namespaces an agent belongs to, those that are not allowed.
SELECT unnest(namespace_ids) AS name FROM sched_agent WHERE id = $id
EXCEPT
SELECT unnest($allowed::text[])
ORDER BY name

-- name: find_missing_namespaces
-- Of the named namespaces, those that do not exist.
SELECT name FROM unnest($namespace_ids::text[]) AS named (name)
WHERE NOT EXISTS (SELECT FROM sched_namespace WHERE id = name)

-- name: list_claims
-- What an agent is thought to have; of a lost attempt also whether its claim is still the
-- one of its task.
SELECT i.id, i.namespace_id, i.claim_token, i.status = 'lost' AS lost,
  i.status = 'running' OR i.started_at IS NOT NULL AS begun,
  i.status <> 'lost' OR EXISTS (
    SELECT FROM sched_task AS t
    WHERE t.id = i.task_id AND t.namespace_id = i.namespace_id
      AND t.completed_at = 'infinity' AND t.claim_token = i.claim_token
  ) AS current
FROM sched_task_instance AS i
WHERE i.agent_id = $agent_id AND i.completed_at = 'infinity'
ORDER BY i.id
