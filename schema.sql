-- The whole schema of hetuflow, as a document. The migrations under
-- hetuflow/storage/migrations lead to exactly this; a test compares the two.
--
-- Reading order: words (types), helpers, who is there (namespaces, servers, agents,
-- access), what is to be done (jobs, routes, schedules), what is planned and run
-- (tasks, instances, output, ledger), what keeps promises (idempotency, dead letters).
--
-- Rules
-- * Ids are UUID version 7; namespaces are slugs.
-- * Configuration tables refer to each other by foreign keys. The hot tables (sched_task,
--   sched_task_instance, sched_task_log) refer by id without one: their partitions are
--   dropped as a whole and a key would be checked on the hot path; the statements keep
--   the references whole.
-- * completed_at = 'infinity' means "not completed". Such rows live in the _live
--   partitions; the statement that ends a row sets completed_at and PostgreSQL moves it
--   to the partition of its week. Every hot query says completed_at = 'infinity'.
-- * Every unique index of a hot table and every hot statement names namespace_id, so
--   that the tables can be distributed by it.

-- ── words ───────────────────────────────────────────────────────────────────────────

CREATE TYPE job_status AS ENUM ('enabled', 'disabled', 'deleted');

CREATE TYPE schedule_kind AS ENUM ('cron', 'time', 'daemon', 'event', 'flow');

CREATE TYPE task_status AS ENUM (
  'blocked', 'paused', 'pending', 'dispatched', 'running', 'waiting_retry',
  'succeeded', 'failed', 'cancelled', 'skipped', 'missed', 'merged'
);

CREATE TYPE task_instance_status AS ENUM (
  'dispatched', 'running',
  'succeeded', 'failed', 'timeout', 'cancelled', 'lost', 'released'
);

CREATE TYPE agent_status AS ENUM ('online', 'offline', 'busy', 'draining', 'error');

CREATE TYPE ledger_outcome AS ENUM ('skipped', 'missed', 'merged');

CREATE TYPE overlap_policy AS ENUM ('allow', 'skip', 'queue', 'replace');

CREATE TYPE task_cause AS ENUM (
  'request', 'schedule', 'catch_up', 'backfill', 'daemon', 'broadcast', 'event', 'flow'
);

CREATE TYPE log_stream AS ENUM ('stdout', 'stderr');

-- ── helpers ─────────────────────────────────────────────────────────────────────────

-- A UUID version 7 (RFC 9562, 5.7) for a given moment: 48 bits of milliseconds, the
-- version, and random bits, or zeros for the lowest id of that moment.
CREATE FUNCTION hetuflow_uuid7(at timestamptz, random boolean DEFAULT true)
RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
  SELECT encode(
    substring(int8send((extract(epoch FROM at) * 1000)::bigint) FROM 3)
    || CASE WHEN random
      THEN set_byte(tail, 0, 112 | (get_byte(tail, 0) & 15))
      ELSE '\x70008000000000000000'::bytea
    END, 'hex')::uuid
  FROM (SELECT substring(uuid_send(gen_random_uuid()) FROM 7) AS tail) AS fresh
$$;

-- Make the partitions for every week from one week before a moment to `weeks` after it.
-- Attaching takes a lock that neither readers nor writers wait for; calls take turns.
CREATE FUNCTION hetuflow_ensure_partitions(
  weeks integer, around timestamptz DEFAULT now())
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
  week timestamptz;
  made integer := 0;
  parent text;
  child text;
  low text;
  high text;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('hetuflow_ensure_partitions'));
  FOR offset_weeks IN -1..weeks LOOP
    week := date_trunc('week', around AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
      + make_interval(days => 7 * offset_weeks);
    FOREACH parent IN ARRAY
      ARRAY['sched_task', 'sched_task_instance', 'sched_task_log']
    LOOP
      child := parent || to_char(week AT TIME ZONE 'UTC', '_IYYY"w"IW');
      CONTINUE WHEN to_regclass(child) IS NOT NULL;
      IF parent = 'sched_task_log' THEN
        low := hetuflow_uuid7(week, false);
        high := hetuflow_uuid7(week + interval '7 days', false);
      ELSE
        low := week;
        high := week + interval '7 days';
      END IF;
      EXECUTE format(
        'CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
        child, parent);
      EXECUTE format(
        'ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        parent, child, low, high);
      -- What did not succeed is rare, and looked for. No live partition has any.
      IF parent <> 'sched_task_log' THEN
        EXECUTE format(
          'CREATE INDEX ON %I (status, id) WHERE status <> ''succeeded''', child);
      END IF;
      made := made + 1;
    END LOOP;
  END LOOP;
  RETURN made;
END
$$;

-- Drop a partition, or say that it could not be done: while the table is waited for, so is
-- everybody who comes later, and nobody is to wait for long.
CREATE FUNCTION hetuflow_drop_week(name text)
RETURNS boolean LANGUAGE plpgsql SET lock_timeout = '100ms' AS $$
BEGIN
  EXECUTE format('DROP TABLE IF EXISTS %I', name);
  RETURN true;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
  RETURN false;
END
$$;

-- ── who is there ────────────────────────────────────────────────────────────────────

-- Who is kept apart from whom, and with how much lead they are served.
CREATE TABLE sched_namespace (
  id text PRIMARY KEY CHECK (id ~ '^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$'),
  weight integer NOT NULL DEFAULT 1 CHECK (weight BETWEEN 0 AND 1000),
  retention_days integer NOT NULL DEFAULT 30 CHECK (retention_days BETWEEN 1 AND 3650),
  -- seconds before its time at which a task is handed to an agent
  lead double precision NOT NULL DEFAULT 5 CHECK (lead BETWEEN 0.5 AND 3600),
  -- seconds after its time for which a held claim stays good
  lease double precision NOT NULL DEFAULT 30 CHECK (lease >= 1),
  -- the server that is to plan for it, as long as it is alive; null: any
  server_id uuid,
  -- tasks under way at a time; null: any number
  max_running integer CHECK (max_running > 0),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

-- The running servers; each says with every heartbeat until when it counts as alive.
CREATE TABLE sched_server (
  id uuid PRIMARY KEY,
  name text NOT NULL,
  url text NOT NULL,
  version text NOT NULL,
  started_at timestamptz NOT NULL DEFAULT now(),
  heartbeat_at timestamptz NOT NULL DEFAULT now(),
  alive_until timestamptz NOT NULL DEFAULT '-infinity',
  stopped_at timestamptz,
  -- its share of the namespaces; 0: none
  weight integer NOT NULL DEFAULT 1 CHECK (weight BETWEEN 0 AND 1000),
  -- how busy it is, from 0 to 1
  load double precision NOT NULL DEFAULT 0 CHECK (load BETWEEN 0 AND 1),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

-- Who may do what only one server may: `term` rises with each owner, and every write that
-- an owner makes checks owner, term and expiry, holding this row FOR SHARE.
CREATE TABLE distributed_lock (
  name text PRIMARY KEY,
  owner uuid NOT NULL,
  term bigint NOT NULL CHECK (term > 0),
  acquired_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

-- Which server plans for a namespace. `epoch` rises with each move; plans of an earlier
-- epoch are refused.
CREATE TABLE sched_binding (
  namespace_id text PRIMARY KEY REFERENCES sched_namespace ON DELETE CASCADE,
  server_id uuid NOT NULL,
  epoch bigint NOT NULL DEFAULT 1 CHECK (epoch > 0),
  bound_at timestamptz NOT NULL DEFAULT now(),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX sched_binding_server ON sched_binding (server_id);

-- The agents. `epoch` rises at each start of an agent, `session_number` at each of its
-- registrations; `session_id` names the one live connection that may claim and renew;
-- `lease_until` is when its word ends.
CREATE TABLE sched_agent (
  id uuid PRIMARY KEY,
  namespace_ids text[] NOT NULL CHECK (cardinality(namespace_ids) > 0),
  name text NOT NULL,
  status agent_status NOT NULL DEFAULT 'offline',
  labels jsonb NOT NULL DEFAULT '{}',
  -- set by operators; laid over what the agent declares
  label_overrides jsonb NOT NULL DEFAULT '{}',
  capabilities jsonb NOT NULL DEFAULT '{}',
  metrics jsonb NOT NULL DEFAULT '{}',
  version text NOT NULL DEFAULT '',
  epoch bigint NOT NULL DEFAULT 0,
  session_number bigint NOT NULL DEFAULT 0,
  session_id uuid,
  server_id uuid,
  lease_until timestamptz NOT NULL DEFAULT '-infinity',
  clock_offset_ms double precision,
  connected_at timestamptz,
  last_heartbeat_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  -- since when it is to take nothing new, over all its sessions
  drain_requested_at timestamptz,
  -- what one of its sessions is to be told
  order_kind text CHECK (order_kind IN ('disconnect', 'shutdown')),
  order_session_id uuid
) WITH (fillfactor = 50);

-- What an agent shows to be let in; only the SHA-256 of the token is kept.
-- namespace_ids {*} means every namespace.
CREATE TABLE sched_agent_token (
  id uuid PRIMARY KEY,
  name text NOT NULL UNIQUE,
  token_hash bytea NOT NULL UNIQUE CHECK (length(token_hash) = 32),
  namespace_ids text[] NOT NULL CHECK (cardinality(namespace_ids) > 0),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

-- What a caller of the API shows; only the SHA-256 of the key is kept.
CREATE TABLE sched_api_key (
  id uuid PRIMARY KEY,
  name text NOT NULL UNIQUE,
  key_hash bytea NOT NULL UNIQUE CHECK (length(key_hash) = 32),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

-- ── what is to be done ──────────────────────────────────────────────────────────────

-- A route is what a job asks of an agent (executor, function, labels), interned: the
-- claim looks along routes, and an agent knows which ones it satisfies.
CREATE TABLE sched_route (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  namespace_id text NOT NULL REFERENCES sched_namespace,
  selector jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

-- By its hash: an index bears no more than some kB.
CREATE UNIQUE INDEX sched_route_selector
  ON sched_route (namespace_id, md5(selector::text));

-- Those of jobs that every matching agent runs.
CREATE INDEX sched_route_broadcast ON sched_route (namespace_id)
  WHERE (selector -> 'broadcast') IS NOT NULL;

CREATE TABLE sched_job (
  id uuid PRIMARY KEY,
  namespace_id text NOT NULL REFERENCES sched_namespace,
  name text NOT NULL,
  description text NOT NULL DEFAULT '',
  status job_status NOT NULL DEFAULT 'enabled',
  version integer NOT NULL DEFAULT 1,
  route_id bigint NOT NULL REFERENCES sched_route,
  priority smallint NOT NULL DEFAULT 0 CHECK (priority BETWEEN -10 AND 10),
  max_retries integer NOT NULL DEFAULT 0 CHECK (max_retries >= 0),
  -- What its configuration says of limits and late times, where planning looks for it.
  -- Limits are those of now, also for tasks that were planned with an earlier version.
  overlap overlap_policy NOT NULL DEFAULT 'allow',
  max_concurrent integer CHECK (max_concurrent > 0),
  concurrency_key text,
  -- at most rate_count starts in rate_seconds
  rate_count integer CHECK (rate_count > 0),
  rate_seconds double precision CHECK (rate_seconds > 0),
  misfire jsonb NOT NULL DEFAULT '{}',
  start_deadline double precision CHECK (start_deadline >= 0),
  total_timeout double precision CHECK (total_timeout > 0),
  broadcast boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CHECK (num_nonnulls(rate_count, rate_seconds) <> 1),
  CHECK (jsonb_typeof(misfire) = 'object')
);

-- A name is taken once in its namespace, until its job is deleted.
CREATE UNIQUE INDEX sched_job_name ON sched_job (namespace_id, name)
  WHERE status <> 'deleted';

-- Every configuration a job ever had; a task runs with the one it was planned with.
CREATE TABLE sched_job_version (
  job_id uuid NOT NULL REFERENCES sched_job,
  version integer NOT NULL,
  config jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (job_id, version)
);

-- When the next start of a job with a rate limit is free: the theoretical arrival time of
-- the generic cell rate algorithm (ITU-T I.371).
CREATE TABLE sched_rate (
  job_id uuid PRIMARY KEY REFERENCES sched_job ON DELETE CASCADE,
  namespace_id text NOT NULL,
  arrival_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

-- Sets of days, by name, that schedules refer to; each change is a version.
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

-- When a job is due. Everything up to `cursor_at` is planned; `next_plan_at` is the
-- first planned time after it (null: none); `taken` are times after it that nevertheless
-- have a task, left over by an edit. `revision` rises with every edit, so that a plan made
-- from an older reading is refused.
CREATE TABLE sched_schedule (
  id uuid PRIMARY KEY,
  namespace_id text NOT NULL REFERENCES sched_namespace,
  job_id uuid NOT NULL REFERENCES sched_job,
  name text NOT NULL,
  kind schedule_kind NOT NULL,
  enabled boolean NOT NULL DEFAULT true,
  timezone text NOT NULL DEFAULT 'UTC',
  cron_expression text,
  run_at timestamptz,
  interval_seconds double precision CHECK (interval_seconds >= 1),
  -- the interval is counted from the end of the task before
  fixed_delay boolean NOT NULL DEFAULT false,
  -- of a daemon: tasks that are kept running
  replicas integer CHECK (replicas BETWEEN 1 AND 1000),
  event_name text,
  event_filter jsonb,
  -- of kind flow: the end of what other job or flow it follows, and how that ended
  after jsonb,
  -- [{"name": …, "mode": "include" | "exclude" | "next" | "previous"}]
  calendars jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(calendars) = 'array'),
  parameters jsonb NOT NULL DEFAULT '{}',
  start_at timestamptz,
  end_at timestamptz CHECK (end_at > start_at),
  max_runs integer CHECK (max_runs > 0),
  jitter_seconds double precision NOT NULL DEFAULT 0 CHECK (jitter_seconds >= 0),
  dst jsonb NOT NULL DEFAULT '{"gap": "shift", "fold": "first"}',
  revision bigint NOT NULL DEFAULT 1,
  cursor_at timestamptz NOT NULL DEFAULT now(),
  next_plan_at timestamptz,
  taken timestamptz[] NOT NULL DEFAULT '{}',
  run_count bigint NOT NULL DEFAULT 0,
  last_run_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  -- behind it every planned time of the definition of now is covered exactly once
  planned_from timestamptz NOT NULL DEFAULT now(),
  -- a schedule has exactly the time that belongs to its kind
  CHECK ((kind = 'cron') = (cron_expression IS NOT NULL)),
  CHECK ((kind = 'time') = (num_nonnulls(run_at, interval_seconds) = 1)),
  CHECK ((kind = 'daemon') = (replicas IS NOT NULL)),
  CHECK ((kind = 'event') = (event_name IS NOT NULL)),
  CHECK ((kind = 'flow') = (after IS NOT NULL)),
  CHECK (num_nonnulls(run_at, interval_seconds) < 2),
  CHECK (NOT fixed_delay OR interval_seconds IS NOT NULL),
  -- what can be read again: one that cannot would hide the others of its page
  CONSTRAINT sched_schedule_readable CHECK ((
    jsonb_typeof(parameters) = 'object'
    AND dst ->> 'gap' IN ('shift', 'skip')
    AND dst ->> 'fold' IN ('first', 'both', 'last')
    AND COALESCE(LEAST(run_at, start_at, end_at) >= '1900-01-01Z', true)
    AND COALESCE(GREATEST(run_at, start_at, end_at) < '9999-01-01Z', true)
  ) IS TRUE)
) WITH (fillfactor = 70);

-- A schedule's name is taken once among those of its job.
CREATE UNIQUE INDEX sched_schedule_name ON sched_schedule (job_id, name);

-- What the generator looks along.
CREATE INDEX sched_schedule_due ON sched_schedule (namespace_id, next_plan_at)
  WHERE enabled AND next_plan_at IS NOT NULL;

-- What the reconciler looks along.
CREATE INDEX sched_schedule_kept ON sched_schedule (namespace_id)
  WHERE kind = 'daemon' OR fixed_delay;

-- What is kept going: each replica of a daemon, and the one task of a schedule whose
-- interval is counted from the end of the task before. `generation` rises with each task;
-- `next_at` is when the next one is due once `task_id` has ended.
CREATE TABLE sched_replica (
  schedule_id uuid NOT NULL REFERENCES sched_schedule ON DELETE CASCADE,
  replica integer NOT NULL CHECK (replica >= 0),
  namespace_id text NOT NULL,
  generation bigint NOT NULL DEFAULT 0,
  task_id uuid,
  agent_id uuid,
  -- ends in a row that came too soon; the pause before the next start grows with them
  failures integer NOT NULL DEFAULT 0,
  next_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (schedule_id, replica)
);

CREATE INDEX sched_replica_namespace ON sched_replica (namespace_id);

-- ── what is planned and run ─────────────────────────────────────────────────────────

-- One planned occurrence of a job. planned_at: nominal; scheduled_at: with jitter;
-- due_at: when the next attempt is due; rank_at: due_at less a minute per priority.
-- lane: whose limit decides when it may be claimed, null where none does. Of a lane's
-- tasks those that are pending, dispatched, running or waiting for a retry hold a place;
-- the others are blocked. Nothing counts them: they are counted where it is decided.
CREATE TABLE sched_task (
  id uuid NOT NULL,
  namespace_id text NOT NULL,
  job_id uuid NOT NULL,
  job_version integer NOT NULL,
  schedule_id uuid,
  flow_run_id uuid,
  occurrence text,
  status task_status NOT NULL DEFAULT 'pending',
  reason text,
  route_id bigint NOT NULL,
  planned_at timestamptz NOT NULL,
  scheduled_at timestamptz NOT NULL,
  due_at timestamptz NOT NULL,
  rank_at timestamptz NOT NULL,
  priority smallint NOT NULL DEFAULT 0,
  parameters jsonb NOT NULL DEFAULT '{}',
  attempts integer NOT NULL DEFAULT 0,
  lost_attempts integer NOT NULL DEFAULT 0,
  max_retries integer NOT NULL DEFAULT 0,
  claim_token uuid,
  cancel_requested_at timestamptz,
  cause task_cause NOT NULL DEFAULT 'request',
  -- the broadcast that it is the part of one agent of
  parent_id uuid,
  lane text,
  -- not started by then: missed; not ended by then: failed
  start_by timestamptz,
  end_by timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  completed_at timestamptz NOT NULL DEFAULT 'infinity',
  PRIMARY KEY (id, namespace_id, completed_at),
  -- final statuses have an end, the others have none
  CONSTRAINT sched_task_end CHECK (
    (completed_at = 'infinity') = (status IN (
      'blocked', 'paused', 'pending', 'dispatched', 'running', 'waiting_retry'))),
  -- a claim has its token, and only a claim; that of a lost attempt stays good until
  -- there is a newer one
  CONSTRAINT sched_task_claim CHECK (CASE
    WHEN status IN ('dispatched', 'running') THEN claim_token IS NOT NULL
    WHEN status <> 'waiting_retry' THEN claim_token IS NULL
    ELSE true END),
  CONSTRAINT sched_task_parameters CHECK (jsonb_typeof(parameters) = 'object')
) PARTITION BY RANGE (completed_at);

CREATE INDEX sched_task_of_job ON sched_task (job_id, id);
CREATE INDEX sched_task_of_schedule ON sched_task (schedule_id, planned_at)
  WHERE schedule_id IS NOT NULL;

-- The parts of a broadcast, ended ones too.
CREATE INDEX sched_task_of_parent ON sched_task (parent_id, id)
  WHERE parent_id IS NOT NULL;

CREATE TABLE sched_task_live PARTITION OF sched_task
  FOR VALUES FROM ('infinity') TO (MAXVALUE)
  WITH (
    fillfactor = 60,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0);

-- The claim: per route, in order of rank.
CREATE INDEX sched_task_claim ON sched_task_live (namespace_id, route_id, rank_at)
  WHERE status IN ('pending', 'waiting_retry');

-- Handing out ahead of time: only tasks that were planned ahead stand in it.
CREATE INDEX sched_task_ahead ON sched_task_live (namespace_id, route_id, due_at)
  WHERE status IN ('pending', 'waiting_retry') AND due_at > created_at;

-- An occurrence of a schedule is planned at most once.
CREATE UNIQUE INDEX sched_task_occurrence
  ON sched_task_live (namespace_id, schedule_id, occurrence)
  WHERE schedule_id IS NOT NULL;

-- A replica of a daemon (occurrence: r<replica>g<generation>) has at most one live task.
CREATE UNIQUE INDEX sched_task_replica
  ON sched_task_live (namespace_id, schedule_id, split_part(occurrence, 'g', 1))
  WHERE cause = 'daemon';

-- What waits for a place in its lane, in order of rank, and when the next one is due.
CREATE INDEX sched_task_blocked ON sched_task_live (namespace_id, lane, rank_at)
  WHERE status = 'blocked' AND lane IS NOT NULL;
CREATE INDEX sched_task_blocked_due ON sched_task_live (namespace_id, due_at)
  WHERE status = 'blocked' AND lane IS NOT NULL;

-- What holds a place.
CREATE INDEX sched_task_holder ON sched_task_live (namespace_id, lane)
  WHERE lane IS NOT NULL
    AND status IN ('pending', 'dispatched', 'running', 'waiting_retry');

-- Deadlines.
CREATE INDEX sched_task_start_by ON sched_task_live (namespace_id, start_by)
  WHERE start_by IS NOT NULL AND status IN ('blocked', 'pending', 'waiting_retry');
CREATE INDEX sched_task_end_by ON sched_task_live (namespace_id, end_by)
  WHERE end_by IS NOT NULL AND cancel_requested_at IS NULL;

-- Cancels that agents still have to be told.
CREATE INDEX sched_task_cancel ON sched_task_live (cancel_requested_at)
  WHERE cancel_requested_at IS NOT NULL;

-- One attempt of a task on one agent. claim_token is known to that agent alone; a report
-- without it is refused.
CREATE TABLE sched_task_instance (
  id uuid NOT NULL,
  namespace_id text NOT NULL,
  task_id uuid NOT NULL,
  job_id uuid NOT NULL,
  job_version integer NOT NULL,
  agent_id uuid NOT NULL,
  attempt integer NOT NULL,
  status task_instance_status NOT NULL DEFAULT 'dispatched',
  reason text,
  claim_token uuid NOT NULL,
  exit_code integer,
  error_message text,
  output text NOT NULL DEFAULT '',
  metrics jsonb NOT NULL DEFAULT '{}',
  scheduled_at timestamptz NOT NULL,
  due_at timestamptz NOT NULL,
  dispatched_at timestamptz NOT NULL DEFAULT now(),
  started_at timestamptz,
  start_error_ms double precision,
  updated_at timestamptz NOT NULL DEFAULT now(),
  -- when its agent was given up; it may still report until there is a newer attempt
  lost_at timestamptz,
  -- when somebody asked for it to be killed
  kill_requested_at timestamptz,
  -- seconds after its due time for which its agent may start it
  lease double precision NOT NULL DEFAULT 30,
  completed_at timestamptz NOT NULL DEFAULT 'infinity',
  PRIMARY KEY (id, namespace_id, completed_at),
  CONSTRAINT sched_task_instance_end CHECK (CASE
    WHEN status IN ('dispatched', 'running') THEN completed_at = 'infinity'
    WHEN status <> 'lost' THEN completed_at < 'infinity'
    ELSE true END)
) PARTITION BY RANGE (completed_at);

CREATE INDEX sched_task_instance_of_task ON sched_task_instance (task_id, id);
CREATE INDEX sched_task_instance_of_job ON sched_task_instance (job_id, id);

CREATE TABLE sched_task_instance_live PARTITION OF sched_task_instance
  FOR VALUES FROM ('infinity') TO (MAXVALUE)
  WITH (
    fillfactor = 60,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0);

-- A task has at most one attempt under way, beside lost ones. The condition always holds; with it the index
-- is no way to look up an instance by namespace, which a planner that believes the table
-- to be empty would prefer to the id.
CREATE UNIQUE INDEX sched_task_instance_single
  ON sched_task_instance_live (namespace_id, task_id)
  WHERE attempt > 0 AND status <> 'lost';

-- Lost attempts that may still report.
CREATE INDEX sched_task_instance_lost ON sched_task_instance_live (lost_at)
  WHERE status = 'lost';

-- What an agent is thought to have, for state sync.
CREATE INDEX sched_task_instance_of_agent ON sched_task_instance_live (agent_id);

-- The broadcasts whose parts have not all ended. Parts made before `started_at` belong to
-- an earlier round of the same task.
CREATE TABLE sched_broadcast (
  task_id uuid PRIMARY KEY,
  namespace_id text NOT NULL,
  started_at timestamptz NOT NULL DEFAULT now(),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX sched_broadcast_namespace ON sched_broadcast (namespace_id);

-- Output, as it came: bytes from `start_offset` on. Partitioned by the week in the
-- instance's id, so that a piece sent twice meets itself in the same partition. `number`
-- rises in the order in which pieces come, whatever the clock does.
CREATE SEQUENCE sched_task_log_number;

CREATE TABLE sched_task_log (
  namespace_id text NOT NULL,
  instance_id uuid NOT NULL,
  stream log_stream NOT NULL,
  start_offset bigint NOT NULL CHECK (start_offset >= 0),
  data bytea NOT NULL,
  number bigint NOT NULL DEFAULT nextval('sched_task_log_number'),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (instance_id, stream, start_offset, namespace_id)
) PARTITION BY RANGE (instance_id);

-- Both streams, as they came.
CREATE INDEX sched_task_log_both ON sched_task_log (instance_id, number);

-- Planned times that have no task: `count` of them, from from_at to to_at. Together with
-- the tasks every planned time of a schedule is covered exactly once.
CREATE TABLE sched_ledger_gap (
  id uuid PRIMARY KEY,
  namespace_id text NOT NULL,
  schedule_id uuid NOT NULL,
  from_at timestamptz NOT NULL,
  to_at timestamptz NOT NULL CHECK (to_at >= from_at),
  count bigint NOT NULL CHECK (count > 0),
  outcome ledger_outcome NOT NULL,
  reason text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE UNIQUE INDEX sched_ledger_gap_from ON sched_ledger_gap (schedule_id, from_at);

-- ── what keeps promises ─────────────────────────────────────────────────────────────

-- First answers, so that a repeated request is answered alike until the key expires.
CREATE TABLE sched_idempotency (
  namespace_id text NOT NULL,
  scope text NOT NULL,
  key text NOT NULL,
  answer jsonb NOT NULL,
  expires_at timestamptz NOT NULL DEFAULT now() + interval '1 day',
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (namespace_id, scope, key)
);

CREATE INDEX sched_idempotency_expiry ON sched_idempotency (expires_at);

-- Messages that could not be delivered or stored, kept for a person to look at.
CREATE TABLE sched_dead_letter (
  id uuid PRIMARY KEY,
  kind text NOT NULL,
  agent_id uuid,
  reason text NOT NULL,
  payload jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX sched_dead_letter_time ON sched_dead_letter (created_at);

-- ── what is there from the beginning ────────────────────────────────────────────────

INSERT INTO sched_namespace (id) VALUES ('default');
