"""The SQLite file behind the journal: its schema, its statements, its transactions.

Blocking calls only; the journal runs them in a thread, one at a time. `load` reads by a
connection of its own and sees what is committed.
"""

import fcntl
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from itertools import chain
from pathlib import Path

from hetuflow.agent.journal.model import (
  Claim,
  ClaimState,
  Entry,
  JournalFull,
  Recovered,
)
from hetuflow.errors import Refused

__all__ = ["JournalFile", "Statement", "lock_directory"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (
  instance_id TEXT PRIMARY KEY,
  namespace   TEXT NOT NULL,
  claim_token TEXT NOT NULL,
  due_at      REAL NOT NULL,
  state       TEXT NOT NULL CHECK (state IN ('held', 'starting', 'running', 'finished')),
  pid         INTEGER,
  pid_start   INTEGER,
  boot_id     TEXT NOT NULL,
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
  (instance_id, namespace, claim_token, due_at, state, pid, pid_start, boot_id, payload)
VALUES (?, ?, ?, ?, ?, NULL, NULL, ?, ?)
ON CONFLICT (instance_id) DO UPDATE
SET claim_token = excluded.claim_token, due_at = excluded.due_at,
    payload = excluded.payload
WHERE claims.state = 'held'
"""
INTEND = """
UPDATE claims SET state = 'starting'
WHERE instance_id IN (SELECT value FROM json_each(?)) AND state = 'held'
"""
SPAWNED = """
UPDATE claims
SET state = 'running',
    pid = json_extract(?1, '$."' || instance_id || '"[0]'),
    pid_start = json_extract(?1, '$."' || instance_id || '"[1]')
WHERE instance_id IN (SELECT key FROM json_each(?1)) AND state <> 'finished'
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
SELECT instance_id, namespace, claim_token, due_at, state, pid, pid_start, boot_id, payload
FROM claims ORDER BY due_at, instance_id
"""
LOAD_OUTBOX = "SELECT seq, instance_id, kind, payload FROM outbox ORDER BY seq"
LAST_SEQ = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'outbox'"

NO_ROOM = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
HARD_FACTOR = 2
BUSY_SECONDS = 5.0
BLOCK_ROWS = 100
WAL_KEPT_BYTES = 4 * 1024 * 1024

Statement = tuple[str, Sequence[tuple[object, ...]]]
"""What to run, and for which rows. Only inserts are given more than a few: a change of
many rows takes them all as one JSON value."""


class JournalFile:
  """One open journal.

  Args:
    path: the SQLite file; made with mode 0600 if it is not there.
    limit_bytes: size from which on it counts as full; it never grows beyond twice that.
  """

  def __init__(self, path: Path, limit_bytes: int) -> None:
    self._path = path
    self._limit_bytes = limit_bytes
    self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)
    self._connection = sqlite3.connect(
      path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
      self._prepare()
    except sqlite3.Error as error:
      self._connection.close()
      raise _translated(error) from error
    except BaseException:
      self._connection.close()
      raise

  def close(self) -> None:
    """Close the file."""
    self._connection.close()

  def apply(self, batch: Sequence[Sequence[Statement]]) -> list[Exception | None]:
    """Write every operation of a batch, in one transaction if that can be.

    Returns:
      For each operation None once it is on record, or why it is not.
    """
    try:
      self._transact(batch)
      return [None] * len(batch)
    except sqlite3.Error as error:
      reason = _translated(error)
    # What lacks room lacks it for all; anything else is the fault of one of them.
    if isinstance(reason, JournalFull) or len(batch) == 1:
      return [reason] * len(batch)
    return [self.apply([operation])[0] for operation in batch]

  def measure(self) -> bool:
    """Whether what is stored exceeds the limit, or cannot be told."""
    try:
      pages = self._number("PRAGMA page_count") - self._number("PRAGMA freelist_count")
      return pages * self._number("PRAGMA page_size") > self._limit_bytes
    except sqlite3.Error:
      return True

  def load(self) -> Recovered:
    """Read all that is on record."""
    uri = f"{self._path.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as reader:
      claims = tuple(self._claims(reader))
      outbox = tuple(
        Entry(seq=seq, instance_id=instance_id, kind=kind, payload=payload)
        for seq, instance_id, kind, payload in reader.execute(LOAD_OUTBOX)
      )
    return Recovered(claims=claims, outbox=outbox)

  def held_rows(self, claims: Iterable[Claim]) -> list[tuple[object, ...]]:
    """Make the rows for HOLD, with this boot's id."""
    boot = self._boot_id
    return [
      (c.instance_id, c.namespace, c.claim_token, c.due_at, c.state, boot, c.payload)
      for c in claims
    ]

  def _prepare(self) -> None:
    """Set up the file, raise its epoch for good, then commit without a sync each time."""
    run = self._connection.execute
    run("PRAGMA journal_mode = WAL")
    run("PRAGMA synchronous = FULL")
    run(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")
    pages = HARD_FACTOR * self._limit_bytes // self._number("PRAGMA page_size")
    run(f"PRAGMA max_page_count = {pages}")
    self._connection.executescript(SCHEMA)
    meta = dict(run("SELECT key, value FROM meta").fetchall())
    self.agent_id: str = meta.get("agent_id") or _new_id()
    self.epoch = int(meta.get("epoch", 0)) + 1
    self.last_seq = self._number(LAST_SEQ)
    rows = [("agent_id", self.agent_id), ("epoch", str(self.epoch))]
    self._transact([[(SET_META, rows)]])
    run("PRAGMA synchronous = NORMAL")

  def _transact(self, batch: Sequence[Sequence[Statement]]) -> None:
    """Run all statements in one transaction, or none."""
    self._connection.execute("BEGIN IMMEDIATE")
    try:
      for operation in batch:
        for sql, rows in operation:
          self._run(sql, rows)
      self._connection.execute("COMMIT")
    except BaseException:
      # SQLite itself has rolled back after some errors, a full disk among them.
      if self._connection.in_transaction:
        self._connection.execute("ROLLBACK")
      raise

  def _run(self, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Run a statement for all rows in few steps.

    Each step gives the interpreter lock away and has to get it back, for which it waits
    up to 5 ms while the Trio thread is busy: one step a row would starve this thread.
    """
    start = 0
    while len(rows) - start >= BLOCK_ROWS:
      block = rows[start : start + BLOCK_ROWS]
      self._connection.execute(_for_block(sql), tuple(chain(*block)))
      start += BLOCK_ROWS
    self._connection.executemany(sql, rows[start:])

  def _claims(self, reader: sqlite3.Connection) -> Iterator[Claim]:
    """Read all claims."""
    for row in reader.execute(LOAD_CLAIMS):
      identity, namespace, token, due, state, pid, start, boot, payload = row
      yield Claim(
        instance_id=identity,
        namespace=namespace,
        claim_token=token,
        due_at=due,
        state=ClaimState(state),
        pid=pid,
        pid_start=start,
        earlier_boot=boot != self._boot_id,
        payload=payload,
      )

  def _number(self, sql: str) -> int:
    """Read one number."""
    return int(self._connection.execute(sql).fetchone()[0])


@contextmanager
def lock_directory(directory: Path) -> Iterator[None]:
  """Own a directory, mode 0700, for the block; made if it is not there.

  Raises:
    Refused: another agent owns it; says its process id.
  """
  directory.mkdir(mode=0o700, parents=True, exist_ok=True)
  directory.chmod(0o700)
  flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
  fd = os.open(directory / "agent.lock", flags, 0o600)
  try:
    try:
      fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      owner = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
      raise Refused(
        f"{directory} is in use by another agent, process id {owner}"
      ) from error
    os.ftruncate(fd, 0)
    os.write(fd, b"%d\n" % os.getpid())
    yield
  finally:
    os.close(fd)


@cache
def _for_block(sql: str) -> str:
  """Make a statement that inserts one row insert a block of them."""
  head, values, tail = re.split(r"VALUES (\([^)]*\))", sql)
  return f"{head}VALUES {', '.join([values] * BLOCK_ROWS)}{tail}"


def _translated(error: sqlite3.Error) -> Exception:
  """Turn a lack of room into `JournalFull`, leave anything else as it is."""
  # The low byte is the kind of an error, the rest details it.
  if (getattr(error, "sqlite_errorcode", 0) & 0xFF) in NO_ROOM:
    full = JournalFull(f"the journal cannot be written: {error}")
    full.__cause__ = error
    return full
  return error


def _new_id() -> str:
  """Make the id of a new agent, a UUID v7."""
  from uuid_utils.compat import uuid7  # once in the life of an agent

  return str(uuid7())
