"""The schema of the journal, and every statement on it."""

VERSION = 1
"""Of the schema; a file of another one is not touched."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;
-- Many claims share a job, whose configuration may be large.
CREATE TABLE IF NOT EXISTS jobs (
  id      TEXT PRIMARY KEY,
  content BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS claims (
  instance_id TEXT PRIMARY KEY,
  namespace   TEXT NOT NULL,
  claim_token TEXT NOT NULL,
  due_at      REAL NOT NULL,
  state       TEXT NOT NULL CHECK (state IN ('held', 'starting', 'running', 'finished')),
  pid         INTEGER,
  pid_start   INTEGER,
  boot_id     TEXT NOT NULL,
  job_id      TEXT NOT NULL,
  payload     BLOB NOT NULL
) WITHOUT ROWID;
-- AUTOINCREMENT: a number once given is never given again, not even after a deletion.
CREATE TABLE IF NOT EXISTS outbox (
  seq         INTEGER PRIMARY KEY AUTOINCREMENT,
  instance_id TEXT NOT NULL,
  kind        TEXT NOT NULL,
  payload     BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS outbox_instance ON outbox (instance_id);
CREATE INDEX IF NOT EXISTS claims_finished ON claims (state) WHERE state = 'finished';
"""

HOLD = """
INSERT INTO claims
  (instance_id, namespace, claim_token, due_at, state, pid, pid_start, boot_id, job_id,
   payload)
VALUES (?, ?, ?, ?, ?, NULL, NULL, ?, ?, ?)
ON CONFLICT (instance_id) DO UPDATE
SET claim_token = excluded.claim_token, due_at = excluded.due_at,
    job_id = excluded.job_id, payload = excluded.payload
WHERE claims.state = 'held'
"""
HOLD_JOB = "INSERT INTO jobs (id, content) VALUES (?, ?) ON CONFLICT (id) DO NOTHING"
FORGET_JOBS = "DELETE FROM jobs WHERE id NOT IN (SELECT job_id FROM claims)"
INTEND = """
UPDATE claims SET state = 'starting'
WHERE instance_id IN (SELECT value FROM json_each(?)) AND state = 'held'
"""
SPAWNED = """
UPDATE claims
SET state = 'running', pid = json_extract(note.value, '$[0]'),
    pid_start = json_extract(note.value, '$[1]')
FROM json_each(?) AS note
WHERE instance_id = note.key AND state <> 'finished'
"""
FINISH = """
UPDATE claims SET state = 'finished'
WHERE instance_id IN (SELECT value FROM json_each(?))
"""
APPEND = "INSERT INTO outbox (seq, instance_id, kind, payload) VALUES (?, ?, ?, ?)"
ACKNOWLEDGE = "DELETE FROM outbox WHERE seq IN (SELECT value FROM json_each(?))"
FORGET = """
DELETE FROM claims
WHERE state = 'finished'
  AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.instance_id = claims.instance_id)
"""
RELEASE = """
DELETE FROM claims WHERE instance_id IN (SELECT value FROM json_each(?))
"""
PROBE = "INSERT OR REPLACE INTO meta (key, value) VALUES ('probe', ?)"
SET_META = "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)"
LOAD_CLAIMS = """
SELECT instance_id, namespace, claim_token, due_at, state, pid, pid_start, boot_id,
  payload, coalesce(content, x'')
FROM claims LEFT JOIN jobs ON jobs.id = job_id
ORDER BY due_at, instance_id
"""
LOAD_OUTBOX = "SELECT seq, instance_id, kind, payload FROM outbox ORDER BY seq"
LAST_SEQ = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'outbox'"
