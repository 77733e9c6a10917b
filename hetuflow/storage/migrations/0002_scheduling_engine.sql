-- The scheduling engine: leader and bindings, limits, deadlines, late times, calendars,
-- daemons, broadcasts, and lost attempts that may still report.

CREATE TYPE overlap_policy AS ENUM ('allow', 'skip', 'queue', 'replace');

CREATE TYPE task_cause AS ENUM (
  'request', 'schedule', 'catch_up', 'backfill', 'daemon', 'broadcast', 'event', 'flow'
);

ALTER TABLE sched_namespace
  ADD COLUMN server_id uuid,
  ADD COLUMN max_running integer CHECK (max_running > 0);

ALTER TABLE sched_server
  ADD COLUMN weight integer NOT NULL DEFAULT 1 CHECK (weight BETWEEN 0 AND 1000),
  ADD COLUMN load double precision NOT NULL DEFAULT 0 CHECK (load BETWEEN 0 AND 1);

ALTER TABLE sched_agent
  ADD COLUMN drain_requested_at timestamptz,
  ADD COLUMN order_kind text CHECK (order_kind IN ('disconnect', 'shutdown')),
  ADD COLUMN order_session_id uuid;

CREATE TABLE distributed_lock (
  name text PRIMARY KEY,
  owner uuid NOT NULL,
  term bigint NOT NULL CHECK (term > 0),
  acquired_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE sched_binding (
  namespace_id text PRIMARY KEY REFERENCES sched_namespace ON DELETE CASCADE,
  server_id uuid NOT NULL,
  epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0),
  bound_at timestamptz NOT NULL DEFAULT now(),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX sched_binding_server ON sched_binding (server_id);

ALTER TABLE sched_job
  ADD COLUMN overlap overlap_policy NOT NULL DEFAULT 'allow',
  ADD COLUMN max_concurrent integer CHECK (max_concurrent > 0),
  ADD COLUMN concurrency_key text,
  ADD COLUMN rate_count integer CHECK (rate_count > 0),
  ADD COLUMN rate_seconds double precision CHECK (rate_seconds > 0),
  ADD COLUMN misfire jsonb NOT NULL DEFAULT '{}',
  ADD COLUMN start_deadline double precision CHECK (start_deadline >= 0),
  ADD COLUMN total_timeout double precision CHECK (total_timeout > 0),
  ADD COLUMN broadcast boolean NOT NULL DEFAULT false,
  ADD CHECK (num_nonnulls(rate_count, rate_seconds) <> 1),
  ADD CHECK (jsonb_typeof(misfire) = 'object');

UPDATE sched_job AS j
SET start_deadline = (v.config ->> 'start_deadline')::double precision
FROM sched_job_version AS v
WHERE v.job_id = j.id AND v.version = j.version
  AND v.config ->> 'start_deadline' IS NOT NULL;

CREATE TABLE sched_rate (
  job_id uuid PRIMARY KEY REFERENCES sched_job ON DELETE CASCADE,
  namespace_id text NOT NULL,
  arrival_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE sched_calendar (
  id uuid PRIMARY KEY,
  namespace_id text NOT NULL REFERENCES sched_namespace ON DELETE CASCADE,
  name text NOT NULL,
  description text NOT NULL DEFAULT '',
  version integer NOT NULL DEFAULT 1,
  definition jsonb NOT NULL CHECK (jsonb_typeof(definition) = 'object'),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (namespace_id, name)
);

CREATE TABLE sched_calendar_version (
  calendar_id uuid NOT NULL REFERENCES sched_calendar ON DELETE CASCADE,
  version integer NOT NULL,
  definition jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (calendar_id, version)
);

ALTER TABLE sched_schedule
  ADD COLUMN fixed_delay boolean NOT NULL DEFAULT false,
  ADD COLUMN replicas integer CHECK (replicas BETWEEN 1 AND 1000),
  ADD COLUMN event_name text,
  ADD COLUMN event_filter jsonb,
  ADD COLUMN after jsonb,
  ADD COLUMN calendars jsonb NOT NULL DEFAULT '[]'
    CHECK (jsonb_typeof(calendars) = 'array'),
  ADD COLUMN planned_from timestamptz NOT NULL DEFAULT now(),
  DROP CONSTRAINT sched_schedule_check,
  DROP CONSTRAINT sched_schedule_check1,
  DROP CONSTRAINT sched_schedule_check2,
  ADD CHECK (end_at > start_at),
  ADD CHECK ((kind = 'cron') = (cron_expression IS NOT NULL)),
  ADD CHECK ((kind = 'time') = (num_nonnulls(run_at, interval_seconds) = 1)),
  ADD CHECK ((kind = 'daemon') = (replicas IS NOT NULL)),
  ADD CHECK ((kind = 'event') = (event_name IS NOT NULL)),
  ADD CHECK ((kind = 'flow') = (after IS NOT NULL)),
  ADD CHECK (num_nonnulls(run_at, interval_seconds) < 2),
  ADD CHECK (NOT fixed_delay OR interval_seconds IS NOT NULL);

DROP INDEX sched_schedule_due;
CREATE INDEX sched_schedule_due ON sched_schedule (namespace_id, next_plan_at)
  WHERE enabled AND next_plan_at IS NOT NULL;

CREATE TABLE sched_replica (
  schedule_id uuid NOT NULL REFERENCES sched_schedule ON DELETE CASCADE,
  replica integer NOT NULL CHECK (replica >= 0),
  namespace_id text NOT NULL,
  generation bigint NOT NULL DEFAULT 0,
  task_id uuid,
  agent_id uuid,
  failures integer NOT NULL DEFAULT 0,
  next_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (schedule_id, replica)
);

CREATE INDEX sched_replica_namespace ON sched_replica (namespace_id);

CREATE INDEX sched_schedule_kept ON sched_schedule (namespace_id)
  WHERE kind = 'daemon' OR fixed_delay;

ALTER TABLE sched_task
  ADD COLUMN cause task_cause NOT NULL DEFAULT 'request',
  ADD COLUMN parent_id uuid,
  ADD COLUMN lane text,
  ADD COLUMN start_by timestamptz,
  ADD COLUMN end_by timestamptz,
  DROP CONSTRAINT sched_task_claim,
  ADD CONSTRAINT sched_task_claim CHECK (CASE
    WHEN status IN ('dispatched', 'running') THEN claim_token IS NOT NULL
    WHEN status <> 'waiting_retry' THEN claim_token IS NULL
    ELSE true END);

UPDATE sched_task SET cause = 'schedule'
WHERE completed_at = 'infinity' AND schedule_id IS NOT NULL;

CREATE INDEX sched_task_blocked ON sched_task_live (namespace_id, lane, rank_at)
  WHERE status = 'blocked' AND lane IS NOT NULL;
CREATE INDEX sched_task_blocked_due ON sched_task_live (namespace_id, due_at)
  WHERE status = 'blocked' AND lane IS NOT NULL;
CREATE INDEX sched_task_holder ON sched_task_live (namespace_id, lane)
  WHERE lane IS NOT NULL
    AND status IN ('pending', 'dispatched', 'running', 'waiting_retry');
CREATE INDEX sched_task_start_by ON sched_task_live (namespace_id, start_by)
  WHERE start_by IS NOT NULL AND status IN ('blocked', 'pending', 'waiting_retry');
CREATE INDEX sched_task_end_by ON sched_task_live (namespace_id, end_by)
  WHERE end_by IS NOT NULL AND cancel_requested_at IS NULL;
CREATE INDEX sched_task_of_parent ON sched_task (parent_id, id)
  WHERE parent_id IS NOT NULL;
CREATE UNIQUE INDEX sched_task_replica
  ON sched_task_live (namespace_id, schedule_id, split_part(occurrence, 'g', 1))
  WHERE cause = 'daemon';

CREATE TABLE sched_broadcast (
  task_id uuid PRIMARY KEY,
  namespace_id text NOT NULL,
  started_at timestamptz NOT NULL DEFAULT now(),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX sched_broadcast_namespace ON sched_broadcast (namespace_id);

ALTER TABLE sched_route DROP CONSTRAINT sched_route_namespace_id_selector_key;
CREATE UNIQUE INDEX sched_route_selector
  ON sched_route (namespace_id, md5(selector::text));
CREATE INDEX sched_route_broadcast ON sched_route (namespace_id)
  WHERE (selector -> 'broadcast') IS NOT NULL;

ALTER TABLE sched_task_instance
  ADD COLUMN lost_at timestamptz,
  ADD COLUMN kill_requested_at timestamptz,
  ADD COLUMN lease double precision NOT NULL DEFAULT 30,
  DROP CONSTRAINT sched_task_instance_end,
  ADD CONSTRAINT sched_task_instance_end CHECK (CASE
    WHEN status IN ('dispatched', 'running') THEN completed_at = 'infinity'
    WHEN status <> 'lost' THEN completed_at < 'infinity'
    ELSE true END);

DROP INDEX sched_task_instance_single;
CREATE UNIQUE INDEX sched_task_instance_single
  ON sched_task_instance_live (namespace_id, task_id)
  WHERE attempt > 0 AND status <> 'lost';
CREATE INDEX sched_task_instance_lost ON sched_task_instance_live (lost_at)
  WHERE status = 'lost';

CREATE FUNCTION hetuflow_drop_week(name text)
RETURNS boolean LANGUAGE plpgsql SET lock_timeout = '100ms' AS $$
BEGIN
  EXECUTE format('DROP TABLE IF EXISTS %I', name);
  RETURN true;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
  RETURN false;
END
$$;
