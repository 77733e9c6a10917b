-- name: insert_calendar
-- Make a calendar with its first version; nothing comes back when its name is taken.
WITH made AS (
  INSERT INTO sched_calendar (id, namespace_id, name, description, definition)
  VALUES ($id, $namespace_id, $name, $description, $definition)
  ON CONFLICT (namespace_id, name) DO NOTHING
  RETURNING id, namespace_id, name, description, version, definition, created_at,
    updated_at
),
frozen AS (
  INSERT INTO sched_calendar_version (calendar_id, version, definition)
  SELECT id, version, definition FROM made
)
SELECT id, namespace_id, name, description, version, definition, created_at, updated_at
FROM made

-- name: select_calendar
-- One calendar.
SELECT id, namespace_id, name, description, version, definition, created_at, updated_at
FROM sched_calendar WHERE id = $id

-- name: list_calendars
-- A page of calendars, newest first.
SELECT id, namespace_id, name, description, version, definition, created_at, updated_at
FROM sched_calendar
WHERE ($namespace_id::text IS NULL OR namespace_id = $namespace_id)
  AND ($name::text IS NULL OR name = $name)
  AND ($cursor::uuid IS NULL OR id < $cursor)
ORDER BY id DESC
LIMIT $limit

-- name: list_versions
-- A page of a calendar's definitions, newest first.
SELECT calendar_id, version, definition, created_at
FROM sched_calendar_version
WHERE calendar_id = $calendar_id AND ($cursor::integer IS NULL OR version < $cursor)
ORDER BY version DESC
LIMIT $limit

-- name: read_definitions
-- The definitions of some calendars, by namespace and name.
SELECT c.namespace_id, c.name, c.definition
FROM unnest($namespaces::text[], $names::text[]) AS wanted (namespace_id, name)
JOIN sched_calendar AS c
  ON c.namespace_id = wanted.namespace_id AND c.name = wanted.name

-- name: share_calendars
-- Keep calendars as they are until the end of the transaction. Who locks schedules too
-- does it after this, so that nobody waits for the other.
SELECT id FROM sched_calendar
WHERE namespace_id = $namespace_id AND name = ANY($names::text[])
ORDER BY name
FOR SHARE

-- name: lock_calendar
-- Keep everybody from changing a calendar, and from beginning to heed it, until the end of
-- the transaction.
SELECT id, namespace_id, name, description, version, definition, created_at, updated_at
FROM sched_calendar WHERE id = $id FOR UPDATE

-- name: update_calendar
-- Change a calendar.
UPDATE sched_calendar
SET description = $description, definition = $definition, version = $version,
  updated_at = now()
WHERE id = $id
RETURNING id, namespace_id, name, description, version, definition, created_at,
  updated_at

-- name: insert_version
-- Freeze a definition.
INSERT INTO sched_calendar_version (calendar_id, version, definition)
VALUES ($calendar_id, $version, $definition)

-- name: delete_calendar
-- Remove a calendar that no schedule heeds.
DELETE FROM sched_calendar WHERE id = $id

-- name: list_users
-- Some of the schedules that heed a calendar, with the names of their jobs.
SELECT s.name, j.name AS job_name
FROM sched_schedule AS s
JOIN sched_job AS j ON j.id = s.job_id AND j.status <> 'deleted'
WHERE s.namespace_id = $namespace_id
  AND s.calendars @> jsonb_build_array(jsonb_build_object('name', $name::text))
ORDER BY j.name, s.name
LIMIT $limit

-- name: share_jobs_of_users
-- The jobs whose schedules heed a calendar, kept as they are until the transaction ends.
SELECT j.id FROM sched_job AS j
WHERE j.id IN (
  SELECT s.job_id FROM sched_schedule AS s
  WHERE s.namespace_id = $namespace_id
    AND s.calendars @> jsonb_build_array(jsonb_build_object('name', $name::text)))
ORDER BY j.id
FOR SHARE

-- name: lock_users
-- The schedules that heed a calendar, kept away from planners and editors.
SELECT s.id FROM sched_schedule AS s
WHERE s.namespace_id = $namespace_id
  AND s.calendars @> jsonb_build_array(jsonb_build_object('name', $name::text))
ORDER BY s.id
FOR UPDATE

-- name: read_today
-- The date by the database's clock, in UTC.
SELECT (now() AT TIME ZONE 'UTC')::date
